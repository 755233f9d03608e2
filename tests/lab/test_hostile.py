"""The archives of lesson 05 do what they say they do: a simple unpacker is led out, the engine's is not."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from minidocker.errors import Breakout
from minidocker.lab.props.hostile import archive_that_climbs, archive_that_leads_out, unpack_naively
from minidocker.storage.extract import Extractor
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import TarReader


def _directories(place: Path) -> tuple[Path, Path]:
    for name in ("root", "outside"):
        (place / name).mkdir()
    return place / "root", place / "outside"


def test_a_simple_unpacker_follows_the_link_out(tmp_path: Path) -> None:
    root, outside = _directories(tmp_path)
    unpack_naively(archive_that_leads_out(str(outside)), str(root))
    assert os.listdir(outside) == ["evil"]
    with pytest.raises(ValueError, match="leads out"):
        unpack_naively(archive_that_climbs(), str(root))


@pytest.mark.needs_root
def test_the_engines_extractor_stays_inside(tmp_path: Path) -> None:
    root, outside = _directories(tmp_path)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Extractor(fd, layer=True) as extractor:
            extractor.extract(TarReader(ByteStream(iter([archive_that_leads_out(str(outside))]))))
            with pytest.raises(Breakout):
                extractor.extract(TarReader(ByteStream(iter([archive_that_climbs()]))))
    finally:
        os.close(fd)
    assert not os.listdir(outside) and (root / str(outside).lstrip("/") / "evil").exists()


def test_the_archives_are_ordinary_tars() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_that_leads_out("/x"))) as tar:
        assert [(member.name, member.linkname) for member in tar] == [("way", "/x"), ("way/evil", "")]
