"""Binds that share their mounts with the host: what one side mounts the other sees, and no more than that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.linux import mounts
from minidocker.linux.mounts import MountFlag

from .conftest import Daemon, wait_until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mount of the host that is shared, as most hosts' root is."""
    place = tmp_path / "tied"
    place.mkdir()
    mounts.mount("tmpfs", place, "tmpfs", MountFlag(0))
    mounts.set_propagation(place, MountFlag.SHARED)
    yield place
    for one in sorted(
        (m.mount_point for m in mounts.mountinfo() if m.mount_point.startswith(str(place))), reverse=True
    ):
        mounts.unmount(one, detach=True)


def mount_inside(place: Path) -> None:
    """What the host mounts later, below a shared mount."""
    (place / "later").mkdir()
    mounts.mount("tmpfs", place / "later", "tmpfs", MountFlag(0))
    (place / "later" / "file").write_text("from the host\n")


def ties(daemon: Daemon, name: str) -> list[str]:
    """The kinds of ties that the container's mount has."""
    line = daemon.cli("exec", name, "sh", "-c", "grep ' /m ' /proc/self/mountinfo").stdout.split(" - ")[0].split()
    return [word.partition(":")[0] for word in line[6:]]


def start(daemon: Daemon, name: str, bind: str, *more: str) -> None:
    done = daemon.cli("run", "-d", "--name", name, *more, "-v", bind, "busybox", "sleep", "100")
    assert done.returncode == 0, done.stderr


def test_a_shared_bind_sees_the_hosts_mounts_and_shows_its_own(daemon: Daemon, place: Path) -> None:
    before = len(mounts.mountinfo())
    start(daemon, "box", f"{place}:/m:rshared", "--cap-add", "SYS_ADMIN")
    assert len(mounts.mountinfo()) == before, "the container's own mounts are not the host's"
    assert ties(daemon, "box") == ["shared"]
    mount_inside(place)
    assert daemon.cli("exec", "box", "cat", "/m/later/file").stdout == "from the host\n"
    script = "mkdir /m/mine && mount -t tmpfs tmpfs /m/mine && echo inside > /m/mine/file"
    done = daemon.cli("exec", "box", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert (place / "mine" / "file").read_text() == "inside\n"


def test_a_slave_sees_the_hosts_mounts_and_keeps_its_own(daemon: Daemon, place: Path) -> None:
    start(daemon, "box", f"{place}:/m:rslave", "--cap-add", "SYS_ADMIN")
    assert ties(daemon, "box") == ["master"]
    mount_inside(place)
    assert daemon.cli("exec", "box", "cat", "/m/later/file").stdout == "from the host\n"
    assert daemon.cli("exec", "box", "sh", "-c", "mkdir /m/mine && mount -t tmpfs tmpfs /m/mine").returncode == 0
    assert not (place / "mine").is_mount()


def test_a_private_bind_sees_nothing_of_it(daemon: Daemon, place: Path) -> None:
    start(daemon, "box", f"{place}:/m")
    assert ties(daemon, "box") == []
    mount_inside(place)
    assert daemon.cli("exec", "box", "ls", "/m/later").stdout == ""


def test_what_the_host_does_not_share_is_not_shared(daemon: Daemon, place: Path) -> None:
    mounts.set_propagation(place, MountFlag.PRIVATE)
    for mode, wanted in (("rshared", "shared"), ("rslave", "shared or slave")):
        refused = daemon.cli("run", "--rm", "-v", f"{place}:/m:{mode}", "busybox", "true")
        assert refused.returncode == 125
        assert f"path {place} is mounted on {place} but it is not a {wanted} mount" in refused.stderr
    wait_until(lambda: daemon.cli("ps", "-aq").stdout == "")
