"""Binds, volumes and tmpfs: how they are read."""

from pathlib import Path

import pytest

from minidocker.engine.containers import mounts
from minidocker.engine.containers.config import ContainerConfig, HostConfig
from minidocker.engine.containers.config_reader import read_create
from minidocker.errors import InvalidArgument


def host(**fields: object) -> HostConfig:
    return read_create({"HostConfig": fields}).host


def no_others(name: str) -> list[mounts.MountPoint]:
    raise AssertionError(name)


def test_a_path_is_a_bind_and_a_name_a_volume() -> None:
    bind = mounts.parse_bind("/src/../src:/dst:ro,rslave")
    assert (bind.type, bind.source, bind.destination, bind.writable, bind.propagation) == (
        "bind",
        "/src",
        "/dst",
        False,
        "rslave",
    )
    volume = mounts.parse_bind("data:/dst:nocopy")
    assert (volume.type, volume.name, volume.copy_up, volume.owned) == ("volume", "data", False, False)
    anonymous = mounts.parse_bind("/dst")
    assert (anonymous.type, anonymous.name, anonymous.owned) == ("volume", "", True)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("/a:rel", "must be absolute"),
        ("data:/", "destination can't be '/'"),
        ("/a:/..", "destination can't be '/'"),
        ("a/b:/x", "includes invalid characters"),
        ("../x:/x", "includes invalid characters"),
        ("/a:/b:strange", "invalid mode"),
        ("/a:/b:ro,rw", "invalid mode"),
        ("/a:/b:nocopy", "invalid mode"),
        ("data:/b:rslave", "invalid mode"),
        ("/a::ro", "invalid spec"),
        ("/a:/b:ro:x", "invalid spec"),
    ],
)
def test_bad_binds_are_refused(text: str, word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        mounts.parse_bind(text)


def test_mount_requests_are_strict(tmp_path: Path) -> None:
    for fields, word in (
        ({"Type": "bind", "Source": "/nonexistent", "Target": "/x"}, "does not exist: /nonexistent"),
        ({"Type": "bind", "Source": "", "Target": "/x"}, "Source must not be empty"),
        ({"Type": "npipe", "Target": "/x"}, "mount type unknown"),
        ({"Type": "tmpfs", "Source": "a", "Target": "/x"}, "Source must not be specified"),
        ({"Type": "volume", "Target": "/x", "TmpfsOptions": {"SizeBytes": 5}}, "TmpfsOptions must not"),
        ({"Type": "volume", "Target": "x"}, "must be absolute"),
        ({"Type": "volume", "Target": "/x", "ReadOnly": True}, "must not set ReadOnly mode"),
        ({"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}, "must not set Subpath"),
        ({"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "a/../.."}}, "relative path"),
    ):
        with pytest.raises(InvalidArgument, match=word):
            mounts.plan(ContainerConfig(), host(Mounts=[fields]), no_others)
    point = mounts.plan(
        ContainerConfig(),
        host(Mounts=[{"Type": "bind", "Source": str(tmp_path), "Target": "/x", "ReadOnly": True}]),
        no_others,
    )[0]
    assert (point.source, point.writable, point.create_source) == (str(tmp_path), False, False)


def test_tmpfs_options_override_the_defaults() -> None:
    assert mounts.parse_tmpfs("/t", "").options == ["noexec", "nosuid", "nodev"]
    assert mounts.parse_tmpfs("/t", "exec,size=1m").options == ["nosuid", "nodev", "exec", "size=1m"]
    for bad in ("size", "bind", "exec=1", "colour=red"):
        with pytest.raises(InvalidArgument, match="invalid tmpfs option"):
            mounts.parse_tmpfs("/t", bad)


def test_duplicates_are_refused_and_image_volumes_give_way() -> None:
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /d"):
        mounts.plan(ContainerConfig(), host(Binds=["/a:/d", "bb:/d/"]), no_others)
    points = mounts.plan(ContainerConfig(volumes={"/d": {}, "/e/f": {}}), host(Binds=["/a:/d"]), no_others)
    assert [(p.destination, p.type) for p in points] == [("/d", "bind"), ("/e/f", "volume")]


def test_shallow_mounts_come_before_deep_ones() -> None:
    points = mounts.plan(ContainerConfig(), host(Binds=["/1:/a/b/c", "/2:/z", "/3:/a/b"]), no_others)
    assert [p.destination for p in points] == ["/z", "/a/b", "/a/b/c"]


def test_volumes_from_another_container_may_be_made_read_only() -> None:
    other = [mounts.MountPoint("volume", "/v", "/data", "name", writable=True, owned=True)]
    point = mounts.plan(ContainerConfig(), host(VolumesFrom=["other:ro"]), lambda name: other)[0]
    assert (point.name, point.writable, point.owned) == ("name", False, True)
