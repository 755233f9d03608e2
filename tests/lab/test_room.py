"""A room's servers work, share nothing with the course's, and are gone with the kernel, however that ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import MinidockerError, Unavailable
from minidocker.lab import room
from minidocker.lab.props.plugin_server import Body, PluginServer

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: apt-get install it"),
]
HOLDER = """
import sys, time
from minidocker.lab import room
made = room.begin()
made.folder("files", {"note": "x"})
made.registry()
made.daemon(image="")
print(made.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def made(leftovers: Any) -> Iterator[room.Room]:
    opened = room.Room()
    leftovers.claim(str(opened.path))
    yield opened
    opened.close()
    assert not opened.path.exists()


def _tags(address: str, repository: str) -> list[str]:
    with urllib.request.urlopen(f"http://{address}/v2/{repository}/tags/list") as answer:
        found: list[str] = json.load(answer)["tags"]
    return found


def test_a_daemon_that_was_killed_is_followed_by_one_that_finds_its_containers(made: room.Room) -> None:
    first: Any = made.daemon()
    container = first.containers.run("busybox", ["sleep", "600"], detach=True)
    container.reload()
    pid = container.attrs["State"]["Pid"]
    os.kill(int((made.path / "daemon/exec/minidocker.pid").read_text()), signal.SIGKILL)
    second: Any = made.daemon(image="")
    assert [one.id for one in second.containers.list()] == [container.id]
    assert second.containers.get(container.id).attrs["State"]["Pid"] == pid


def test_two_registries_can_share_one_storage(made: room.Room) -> None:
    first = made.registry()
    second = made.registry("second", storage_of="registry")
    daemon = made.daemon(image="")
    folder = made.folder("app", {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    daemon.images.build(str(folder), tag=f"{first}/app:1")
    daemon.images.push(f"{first}/app:1")
    assert first != second and _tags(second, "app") == ["1"]


def test_a_daemon_of_the_room_knows_no_image_of_the_course(made: room.Room) -> None:
    daemon = made.daemon(image="")
    assert not daemon.images.list(all=True)
    assert str(made.path) in str(daemon.info()["DockerRootDir"])


def test_a_daemon_of_the_room_has_plugins_of_its_own_and_little_patience(made: room.Room) -> None:
    daemon, released = made.daemon(image=""), threading.Event()

    def answer(method: str, asked: Body) -> Body:
        if method == "VolumeDriver.Remove":
            released.wait()
        return {"Implements": ["VolumeDriver"]} if method == "Plugin.Activate" else {}

    plugin = PluginServer(made.path / "daemon/plugins/own.sock", answer)
    try:
        volume = daemon.volumes.create("kept", driver="own")
        with pytest.raises(MinidockerError, match="within 2 seconds"):
            volume.remove()
    finally:
        released.set()
        plugin.close()


def test_a_folder_is_made_with_its_files_and_can_be_added_to(made: room.Room) -> None:
    folder = made.folder("app", {"a": "1", "sub/b": "2"})
    made.folder("app", {"a": "3"})
    assert (folder / "a").read_text() == "3" and (folder / "sub/b").read_text() == "2"


def test_what_a_server_lacks_is_told_by_the_keeper(made: room.Room) -> None:
    with pytest.raises(Unavailable, match="File exists"):
        made.folder("broken", {"config.yml": ""})
        made.registry("broken")
    assert made.registry("sound")  # the keeper lives on


def test_a_closed_room_says_so() -> None:
    opened = room.Room()
    opened.close()
    with pytest.raises(Unavailable, match="this room is closed"):
        opened.registry()


def test_beginning_again_closes_the_room_before() -> None:
    first = room.begin()
    second = room.begin()
    try:
        assert not first.path.exists() and second.path.is_dir()
    finally:
        second.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_room_ends_with_its_kernel(number: int, leftovers: Any) -> None:
    kernel = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=-3)
    assert kernel.stdin is not None and kernel.stdout is not None
    path = Path(kernel.stdout.readline().decode().strip())
    assert (path / "files/note").exists() and (path / "daemon/d.sock").is_socket()
    leftovers.claim(str(path))
    leftovers.claim(f"minidocker-{path.name}")
    os.kill(kernel.pid, number)
    kernel.communicate()
    deadline = time.monotonic() + 10
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not path.exists()


def test_a_room_whose_keeper_was_killed_is_swept_and_one_in_use_is_not(made: room.Room) -> None:
    abandoned = room.Room()
    (abandoned.path / "files").mkdir()
    abandoned._keeper.kill()
    abandoned._keeper.communicate()
    room.sweep()
    assert not abandoned.path.exists() and made.path.is_dir()
