"""Volumes: names, records, what a crash leaves."""

import os
import stat
from pathlib import Path

import pytest

from minidocker.errors import Conflict, InvalidArgument, NotFound
from minidocker.storage.volumes import VolumeStore


def test_volume_is_made_once_and_kept(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    made = store.create("db", labels={"a": "b"})
    (store.path("db") / "f").write_bytes(b"kept")
    assert store.create("db") == made
    assert VolumeStore(tmp_path).list() == (made,)
    assert (store.path("db") / "f").read_bytes() == b"kept"
    assert stat.S_IMODE(store.path("db").stat().st_mode) == 0o755
    assert not made.anonymous


def test_anonymous_volume_gets_a_name(tmp_path: Path) -> None:
    made = VolumeStore(tmp_path).create()
    assert made.anonymous and len(made.name) == 64


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "/etc", "a", "-x", "a b", "x" * 300, "a\0b", "a\n"])
def test_name_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    store = VolumeStore(tmp_path)
    for call in (store.create, store.path, store.get, store.remove):
        with pytest.raises((InvalidArgument, NotFound)):
            call(name)
    assert os.listdir(tmp_path / "volumes") == []


def test_a_name_keeps_its_options_and_its_driver(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    options = {"type": "tmpfs", "device": "tmpfs"}
    store.create("db", options=options)
    assert store.create("db", options={"type": "nfs", "device": ":/x"}).options == options
    with pytest.raises(Conflict, match="driver 'local' already has volume 'db'"):
        store.create("db", driver="other")


def test_a_volume_of_another_driver_is_a_record_without_a_directory(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    store.create("far", driver="other", options={"any": "thing"})
    assert (store.get("far").driver, store.path("far").exists()) == ("other", False)
    store.repair()
    store.remove("far")
    assert store.list() == ()


def test_removed_volume_is_gone(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    store.create("db")
    (store.path("db") / "deep").mkdir()
    store.remove("db")
    assert os.listdir(tmp_path / "volumes") == []
    with pytest.raises(NotFound):
        store.remove("db")


def test_half_made_volume_is_removed_at_start(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    store.create("whole")
    (tmp_path / "volumes" / "half" / "_data").mkdir(parents=True)
    store.repair()
    assert os.listdir(tmp_path / "volumes") == ["whole"]
