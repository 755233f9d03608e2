"""The base image: small, static, the same bytes each time."""

import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest

from minidocker.errors import NotFound
from minidocker.lab.setup import base_image
from minidocker.oci.digest import Digest


@pytest.fixture(scope="module")
def image() -> base_image.BaseImage:
    try:
        return base_image.build()
    except NotFound as error:
        pytest.skip(str(error))


def test_it_is_the_same_bytes_each_time_and_small(image: base_image.BaseImage) -> None:
    assert base_image.build() == image
    assert len(zlib.decompress(image.layer, 31)) < 10 << 20


def test_its_digests_agree(image: base_image.BaseImage) -> None:
    manifest, config = json.loads(image.manifest), json.loads(image.config)
    assert manifest["config"]["digest"] == Digest.of(image.config)
    assert manifest["layers"][0]["digest"] == Digest.of(image.layer)
    assert config["rootfs"]["diff_ids"] == [Digest.of(zlib.decompress(image.layer, 31))]
    assert config["config"]["Cmd"] == ["sh"]


def test_it_holds_what_a_container_expects(image: base_image.BaseImage) -> None:
    with tarfile.open(fileobj=io.BytesIO(image.layer)) as tar:
        entries = {entry.name: entry for entry in tar}
        passwd = tar.extractfile("etc/passwd")
        assert passwd is not None and b"nobody:x:65534:65534:" in passwd.read()
    assert entries["tmp"].mode == 0o1777 and entries["root"].mode == 0o700
    for applet in ("bin/sh", "bin/ls", "usr/bin/env", "bin/sleep"):
        assert entries[applet].islnk() and entries[applet].linkname == "bin/busybox", applet
    assert all(entry.uid == entry.gid == 0 for entry in entries.values())


def test_a_dynamically_linked_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_image, "PROGRAMS", (Path("/bin/ls"),))
    with pytest.raises(NotFound, match="not statically linked"):
        base_image.find_busybox()
