"""The map of mounts says what mountinfo and the daemon say: kinds, modes, filesystems, and sources that are shared."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.client.client import Client
from minidocker.client.containers import Container
from minidocker.client.resource import document
from minidocker.lab import room
from minidocker.lab.diagrams.volumes import BIND, IMAGE, PLUGIN, TMPFS, VOLUME, mounts_of, volume_map
from minidocker.lab.props.plugin_server import Body, PluginServer
from minidocker.linux.mounts import mountinfo

pytestmark = pytest.mark.needs_daemon


@pytest.fixture(scope="module")
def place() -> Iterator[room.Room]:
    made = room.Room()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(place: room.Room) -> Client:
    return place.daemon()


@pytest.fixture(scope="module")
def containers(place: room.Room, client: Client) -> Iterator[list[Container]]:
    """web has one mount of each kind; backup shares its volume, read only."""
    shelf = place.folder("shelf")
    there = {"Mountpoint": str(shelf), "Volume": {"Name": "book", "Mountpoint": str(shelf)}}

    def answer(method: str, asked: Body) -> Body:
        return {"Implements": ["VolumeDriver"]} if method == "Plugin.Activate" else {**there}

    client.volumes.create("notes")  # before the plugin is there, which says of any volume that it has it
    plugin = PluginServer(place.path / "daemon/plugins/shelf.sock", answer)
    client.volumes.create("book", driver="shelf")
    mounts = ["notes:/data", f"{place.folder('files')}:/host:ro", "book:/book"]
    web = client.containers.run(
        "busybox", ["sleep", "600"], name="web", detach=True, volumes=mounts, tmpfs={"/scratch": ""}
    )
    backup = client.containers.run("busybox", ["sleep", "600"], name="backup", detach=True, volumes=["notes:/in:ro"])
    yield [web, backup]
    for container in (web, backup):
        container.remove(force=True)
    plugin.close()


def test_each_kind_is_told_with_the_kernels_mode_and_filesystem(containers: list[Container]) -> None:
    found = {one.target: one for one in mounts_of(containers[0])}
    kinds = {target: (one.kind, one.mode) for target, one in found.items()}
    assert kinds == {
        "/": (IMAGE, "rw"), "/data": (VOLUME, "rw"), "/host": (BIND, "ro"), "/book": (PLUGIN, "rw"),
        "/scratch": (TMPFS, "rw"),
    }  # fmt: skip
    pid = document(containers[0].attrs["State"])["Pid"]
    assert isinstance(pid, int)
    kernel = {mount.mount_point: mount for mount in mountinfo(pid)}
    assert all(one.fstype == kernel[target].fstype for target, one in found.items())
    assert found["/scratch"].fstype == "tmpfs" and found["/book"].driver == "shelf"
    for target in ("/data", "/host", "/book"):
        inside, outside = os.stat(f"/proc/{pid}/root{target}"), Path(found[target].place).stat()
        assert (inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino)


def test_a_shared_source_is_drawn_once_with_an_arrow_to_each_container(containers: list[Container]) -> None:
    picture = volume_map(containers, "the test")
    assert picture.alt.startswith("the test: 2 containers, 6 sources, 1 of them shared; ")
    assert "web has volume notes at /data" in picture.alt and "web has memory (tmpfs) at /scratch" in picture.alt
    assert picture.dot.count('"volume notes" ->') == 2 and picture.dot.count('"volume notes" [label') == 1
    rows = {(row[0], row[1]): row for row in picture.rows}
    assert len(rows) == 7 and rows["backup", "/in"][2:6] == (VOLUME, "notes", "local", "ro")


def test_what_does_not_run_has_no_mounts(client: Client) -> None:
    container = client.containers.create("busybox", ["true"])
    with pytest.raises(ValueError, match="does not run"):
        mounts_of(container)
    container.remove()
    with pytest.raises(ValueError, match="no container"):
        volume_map([])
