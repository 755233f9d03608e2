"""A tap passes every byte on, and what it writes down is what went over the wire, whoever the client is."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.errors import NotFound, Unavailable
from minidocker.lab import room
from minidocker.lab.props.socket_tap import Half, SocketTap, _Reader, as_requests

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def daemon() -> Iterator[Client]:
    made = room.Room()
    yield made.daemon()
    made.close()


@pytest.fixture
def tap(daemon: Client, tmp_path: Path) -> Iterator[SocketTap]:
    made = SocketTap(daemon.transport.url, tmp_path / "tap.sock")
    yield made
    made.close()
    assert not made.path.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "tap" and _still_there(thread)]


def _still_there(thread: threading.Thread) -> bool:
    thread.join(5)
    return thread.is_alive()


def test_requests_and_answers_are_written_down_with_their_bodies(tap: SocketTap, daemon: Client) -> None:
    through = connect(tap.url)
    container = through.containers.create("busybox", ["true"])
    with pytest.raises(NotFound):
        through.containers.get("nobody")
    container.remove()
    seen = tap.take()
    assert [(one.number, one.method, one.status) for one in seen] == [
        (1, "POST", 201), (2, "GET", 404), (3, "DELETE", 204)
    ]  # fmt: skip
    assert json.loads(seen[0].request.body)["Cmd"] == ["true"]
    assert json.loads(seen[0].answer.body)["Id"] == container.id
    assert seen[0].answer.size == len(seen[0].answer.body)
    assert all(one.ended_after == one.number and not one.note for one in seen)


def test_a_hijacked_connection_passes_through_and_its_bytes_are_counted(tap: SocketTap, daemon: Client) -> None:
    through = connect(tap.url)
    assert through.containers.run("busybox", ["cat"], stdin=b"x" * 300_000, remove=True) == b"x" * 300_000
    create, attach, wait, start = tap.take()
    assert attach.hijacked and attach.request.size == 300_000 and attach.answer.size > 300_000
    assert (attach.ended_after, wait.ended_after, start.ended_after) == (4, 4, 4) and create.ended_after == 1
    assert wait.note == "the answer ends after request 4" and not start.note
    assert json.loads(wait.answer.body)["StatusCode"] == 0  # out of its chunks


def test_the_command_line_can_be_watched_too(tap: SocketTap) -> None:
    command = [sys.executable, "-m", "minidocker.cli", "-H", tap.url, "run", "--rm", "busybox", "echo", "hello"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hello\n"
    requests = as_requests(tap.take())
    first, *both, last = [one.path.partition("?")[0].rpartition("/")[2] for one in requests]
    assert first == "create" and set(both) == {"attach", "wait"} and last == "start"  # both at once, on two connections
    times = [(one.began, one.answered, one.ended) for one in requests]
    assert all(began and answered and ended and began <= answered <= ended for began, answered, ended in times)
    assert {(one.sender, one.receiver) for one in requests} == {("client", "daemon")}


def test_after_a_refused_hijack_the_connection_is_read_on(tap: SocketTap) -> None:
    through = connect(tap.url)
    with pytest.raises(NotFound):
        through.transport.request("POST", "/containers/nobody/attach?stream=1", hijack=True)
    assert through.ping()
    assert [(one.path.partition("?")[0], one.status) for one in tap.take()] == [
        ("/containers/nobody/attach", 404), ("/_ping", 200)
    ]  # fmt: skip


def test_nobody_but_root_may_open_the_tap(tap: SocketTap) -> None:
    assert stat.S_IMODE(os.stat(tap.path).st_mode) == 0o600


def test_a_listener_that_fails_does_not_stop_bytes(tap: SocketTap) -> None:
    def fail() -> None:
        raise ValueError

    tap.listener = fail
    assert connect(tap.url).ping() and len(tap.exchanges) == 1


def test_a_tap_whose_daemon_is_gone_hangs_up(tmp_path: Path) -> None:
    tap = SocketTap("unix:///no/such/socket", tmp_path / "tap.sock")
    try:
        with pytest.raises((Unavailable, ConnectionError)):
            connect(tap.url).ping()
    finally:
        tap.close()


CHUNKS = b"3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_messages_are_found_however_the_bytes_are_cut(step: int) -> None:
    heads: list[Half] = []
    ends: list[int] = []

    def begun(half: Half) -> int:
        heads.append(half)
        return int(half.fields.get("content-length", -1))

    reader = _Reader(begun, lambda: ends.append(len(heads)))
    wire = PLAIN + CHUNKED + PLAIN
    for at in range(0, len(wire), step):
        reader.feed(wire[at : at + step])
    assert [half.body for half in heads] == [b"hello", b"abc0123456789", b"hello"] and ends == [1, 2, 3]
    assert [half.size for half in heads] == [5, 13, 5]
