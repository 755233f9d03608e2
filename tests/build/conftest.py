"""Builds here and by Docker's own daemon: the same context and Dockerfile, then what each made of it."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parents[1])]  # docker_oracle.py

from docker_oracle import dockerd, minidockerd  # noqa: E402

__all__ = ["dockerd", "minidockerd"]

BASE = "box:1"


@dataclass(frozen=True)
class Built:
    """What a build said and made. `layers` above the base image's: each a list of its files."""

    status: int
    said: str
    config: dict[str, Any]
    history: list[tuple[str, bool, str]]
    layers: list[list[tuple[Any, ...]]]


def masked(text: str) -> str:
    """`text` without IDs and sums, and without what only one of the two says."""
    text = re.sub(r"(file|dir|multi):[0-9a-f]{64}", r"\1:SUM", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID64", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID12", text)
    text = re.sub(r"DEPRECATED: .*?\n\n", "", text, flags=re.S)
    text = text.replace("\x1b[0m\x1b[91m", "")  # how often a stream was read
    text = re.sub(r"OCI runtime create failed: .*exec: ", "OCI runtime create failed: exec: ", text)
    return text.replace("failed to create task for container: ", "")


def _docker(url: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "DOCKER_HOST": url, "DOCKER_BUILDKIT": "0"}
    return subprocess.run(["docker", *words], capture_output=True, check=False, env=environment, timeout=120)


def _files(layer: bytes) -> list[tuple[Any, ...]]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            sum = hashlib.sha256(content.read()).hexdigest()[:12] if content else ""
            mode = "" if "/.wh." in f"/{member.name}" else oct(member.mode & 0o7777)
            found.append((member.name, member.type, mode, member.uid, member.gid, member.linkname, sum))
    return sorted(found)


def _saved(url: str, image: str) -> tuple[dict[str, Any], list[bytes]]:
    with tarfile.open(fileobj=io.BytesIO(_docker(url, "save", image).stdout)) as archive:
        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        manifest = json.loads(read("manifest.json"))[0]
        return json.loads(read(manifest["Config"])), [read(name) for name in manifest["Layers"]]


def build(url: str, context: Path, *options: str) -> Built:
    """Build with Docker's command line, and look at the result."""
    done = _docker(url, "build", "-t", "made", *options, str(context))
    said = masked((done.stdout + done.stderr).decode())
    if done.returncode:
        return Built(done.returncode, said, {}, [], [])
    config, layers = _saved(url, "made")
    base, _ = _saved(url, BASE)
    above = len(base["rootfs"]["diff_ids"]) if config["rootfs"]["diff_ids"][:1] == base["rootfs"]["diff_ids"] else 0
    steps = config["history"][len(base["history"]) if above else 0 :]
    history = [(masked(s.get("created_by", "")), s.get("empty_layer", False), s.get("author", "")) for s in steps]
    kept = {key: value for key, value in config["config"].items() if value and key not in ("Image", "Hostname")}
    return Built(0, said, kept, history, [_files(layer) for layer in layers[above:]])


@pytest.fixture
def alike(dockerd: str, minidockerd: str) -> Callable[..., tuple[Built, Built]]:
    """Build with both; returns (Docker's, ours)."""
    return lambda context, *options: (build(dockerd, context, *options), build(minidockerd, context, *options))
