"""Stores in a directory of their own, and one worker for all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.storage.archive import Stores
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import ImageStore
from minidocker.storage.layers import LayerStore
from minidocker.storage.worker import Worker

sys.path.insert(0, str(Path(__file__).parent))  # for `builders`


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    if os.geteuid() != 0:
        pytest.skip("needs root: the worker calls chroot, chown and mknod")
    made = Worker(tmp_path_factory.mktemp("exec-root"))
    yield made
    made.close()


@pytest.fixture
def stores(tmp_path: Path, worker: Worker) -> Stores:
    root = tmp_path / "data"
    root.mkdir()
    blobs = BlobStore(root)
    return Stores(blobs, LayerStore(root, worker), ImageStore(root, blobs))
