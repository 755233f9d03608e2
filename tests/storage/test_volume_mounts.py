"""What the local driver mounts: options checked, kernel asked, nothing left."""

import os
from pathlib import Path

import pytest

from minidocker.errors import InvalidArgument, MinidockerError
from minidocker.linux.mounts import mountinfo
from minidocker.storage import volume_mounts
from minidocker.storage.volumes import VolumeStore

from ..conftest import Leftovers

TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,uid=7,nosuid,noexec"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, 'invalid option: "colour"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "x"}, 'missing required option: "type"'),
        ({"size": "5m"}, "quota size requested but no quota support"),
        ({"size": "big"}, "invalid size: 'big'"),
    ],
)
def test_options_are_checked_at_create(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        volume_mounts.check(options)


def test_empty_options_and_no_size_are_fine_and_ask_for_nothing() -> None:
    for options in ({}, {"o": "ro"}, {"size": "0"}, {"type": "", "device": "", "o": ""}):
        volume_mounts.check(options)
        assert not volume_mounts.wanted(options)
    assert volume_mounts.wanted(TMPFS)


@pytest.mark.needs_root
def test_flags_become_flags_and_the_rest_goes_to_the_filesystem(tmp_path: Path, leftovers: Leftovers) -> None:
    store = VolumeStore(tmp_path)
    store.create("vt", options=TMPFS)
    place = store.path("vt")
    volume_mounts.mount(place, TMPFS)
    mount = next(mount for mount in mountinfo() if mount.mount_point == str(place))
    assert {"nosuid", "noexec"} <= set(mount.options) and {"size=64k", "uid=7"} <= set(mount.super_options)
    assert volume_mounts.mounted(store.directory) == {"vt"}
    held = os.open(place, os.O_RDONLY)  # someone is inside: it goes all the same
    volume_mounts.unmount(place)
    os.close(held)
    assert volume_mounts.mounted(store.directory) == set()
    volume_mounts.unmount(place)


@pytest.mark.needs_root
def test_removing_a_volume_never_removes_what_is_mounted_there(tmp_path: Path, leftovers: Leftovers) -> None:
    device = tmp_path / "device"
    device.mkdir()
    (device / "kept").write_text("text")
    store = VolumeStore(tmp_path / "root")
    options = {"type": "none", "device": str(device), "o": "bind"}
    store.create("vb", options=options)
    volume_mounts.mount(store.path("vb"), options)
    store.remove("vb")
    assert (device / "kept").read_text() == "text"
    (store.directory / "half/_data").mkdir(parents=True)  # a create that a crash cut short
    volume_mounts.mount(store.directory / "half/_data", options)
    store.repair()
    assert (device / "kept").read_text() == "text"
    assert list(store.directory.iterdir()) == []


@pytest.mark.needs_root
def test_the_kernels_no_is_told_in_dockers_words(tmp_path: Path) -> None:
    with pytest.raises(MinidockerError) as told:
        volume_mounts.mount(tmp_path, {"type": "none", "device": "/nosuch", "o": "bind,ro"})
    assert str(told.value) == (
        f"failed to mount local volume: mount /nosuch:{tmp_path}, flags: 0x1001: no such file or directory"
    )
