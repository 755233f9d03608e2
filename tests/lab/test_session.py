"""A notebook's session on a daemon of its own: all that carries the label goes, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client.client import Client
from minidocker.lab import session, swap

pytestmark = pytest.mark.needs_root
pytest.importorskip("IPython", reason="needs the notebooks: pip install minidocker[notebooks]")

MAKE = """
def make(client, labels, name, folder):
    client.networks.create(f"{name}-net", labels=labels)
    client.volumes.create(f"{name}-vol", labels=labels)
    client.images.build(folder, tag=f"{name}-image", labels=labels)
    client.images.get(f"{name}-image").tag(f"{name}-again")
    client.containers.run(f"{name}-image", ["sleep", "600"], detach=True, name=f"{name}-box", labels=labels,
                          network=f"{name}-net", volumes=[f"{name}-vol:/data"])
"""
KERNEL = f"""
{MAKE}
import os, sys
from minidocker.client import connect
from minidocker.lab import session
client = connect(sys.argv[2])
make(client, session.begin(client), "killed", sys.argv[1])
print("made", flush=True)
sys.stdin.read()
"""
scope: dict[str, Any] = {}
exec(MAKE, scope)
make: Callable[[Client, dict[str, str], str, str], None] = scope["make"]


@pytest.fixture(scope="module")
def daemon() -> Iterator[swap.Swapped]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a daemon of its own")
    with swap.engine({}) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\n")
    return tmp_path


def names(client: Client) -> set[str]:
    """All that the daemon has, by name; without what every daemon has."""
    found = {str(item.attrs["Names"][0]).strip("/") for item in client.containers.list(all=True)}  # type: ignore[index]
    found |= {str(item.attrs["Name"]) for item in client.networks.list()} - {"bridge", "host", "none"}
    found |= {item.id for item in client.volumes.list()}
    return found | {tag.partition(":")[0] for item in client.images.list() for tag in item.tags} - {"busybox"}


def all_of(name: str) -> set[str]:
    return {f"{name}-{kind}" for kind in ("box", "net", "vol", "image", "again")}


def test_begin_removes_what_an_earlier_run_of_this_kernel_made_and_nothing_else(
    daemon: swap.Swapped, folder: Path
) -> None:
    mine = session.begin(daemon.client)
    other = subprocess.Popen(["sleep", "60"])
    try:
        theirs = {session.LABEL: session._identity(other.pid)}
        for labels, name in ((mine, "first"), (theirs, "living"), ({"else": "x"}, "plain")):
            make(daemon.client, labels, name, str(folder))
        assert names(daemon.client) == all_of("first") | all_of("living") | all_of("plain")
        assert session.begin(daemon.client) == mine
        assert names(daemon.client) == all_of("living") | all_of("plain")
    finally:
        other.kill()
        other.wait()
    session.begin(daemon.client)  # the other kernel is gone
    assert names(daemon.client) == all_of("plain")
    session.remove(daemon.client, "else", lambda _: True)
    assert names(daemon.client) == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_kernel_that_is_killed_leaves_nothing_in_the_daemon(
    daemon: swap.Swapped, folder: Path, number: signal.Signals
) -> None:
    before = names(daemon.client)
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(folder), daemon.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert kernel.stdout is not None
    assert kernel.stdout.readline() == b"made\n"
    assert names(daemon.client) == before | all_of("killed")
    kernel.send_signal(number)
    kernel.communicate()
    deadline = time.monotonic() + 20
    while names(daemon.client) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert names(daemon.client) == before
