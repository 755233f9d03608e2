"""Logs as messages to a syslog server that may be slow, away, or back again."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.runtime import syslog
from minidocker.runtime.loop import Loop
from minidocker.runtime.rotating_log import SyslogTarget
from minidocker.runtime.syslog import LogUnreachable, Syslog, message

NOON = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20Z


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(10)
        yield server


def target(server: socket.socket, **more: Any) -> SyslogTarget:
    return SyslogTarget(**{"network": "tcp", "address": "127.0.0.1", "port": server.getsockname()[1], "tag": "box",
                           "hostname": "host", **more})  # fmt: skip


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("", "<30>Nov 14 22:13:20 box[7]: hi\n"),
        ("rfc3164", "<30>Nov 14 22:13:20 host box[7]: hi\n"),
        ("rfc5424", "<30>1 2023-11-14T22:13:20Z host box 7 box - hi\n"),
        ("rfc5424micro", "<30>1 2023-11-14T22:13:20.123456Z host box 7 box - hi\n"),
    ],
)
def test_messages_are_laid_out_as_docker_does(layout: str, text: str) -> None:
    wanted = SyslogTarget("tcp", "127.0.0.1", 514, 3, layout, "box", "host")
    assert message(wanted, "stdout", b"hi", NOON, 7).decode() == text
    assert message(wanted, "stderr", b"hi", NOON, 7).startswith(b"<27>"), "stderr is an error"


def test_lines_go_out_whole_and_in_order_and_empty_ones_do_not() -> None:
    with listening() as server:
        log = Syslog(target(server), Loop())
        connection, _ = server.accept()
        log.write("stdout", b"one\n\ntw")
        log.write("stdout", b"o\nend")
        log.close()
        with connection, connection.makefile("rb") as file:
            assert [line.partition(b"]: ")[2] for line in file] == [b"one\n", b"two\n", b"end\n"]
        assert log.lost == 0


def test_a_dead_server_is_told_in_dockers_words() -> None:
    with listening() as server:
        port = server.getsockname()[1]
    with pytest.raises(LogUnreachable, match=rf"dial tcp 127\.0\.0\.1:{port}: connect: connection refused"):
        Syslog(SyslogTarget("tcp", "127.0.0.1", port), Loop())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_unix_socket_may_be_of_either_kind(kind: socket.SocketKind, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(10)
        if kind == socket.SOCK_STREAM:
            server.listen()
        log = Syslog(SyslogTarget("unix", str(tmp_path / "log"), tag="box"), Loop())
        log.write("stdout", b"hi\n")
        log.close()
        taking = server.accept()[0] if kind == socket.SOCK_STREAM else server
        assert taking.recv(100).endswith(b"]: hi\n")
        taking.close()


def test_a_datagram_goes_out_whoever_listens_and_the_next_one_too() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        log = Syslog(target(server, network="udp"), Loop())
        log.write("stdout", b"hi\n")
        assert server.recv(100).endswith(b"box[%d]: hi\n" % os.getpid())
        port = server.getsockname()[1]
    log.write("stdout", b"nobody\n")
    log.write("stdout", b"nobody\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        server.settimeout(10)
        log.write("stdout", b"back\n")
        assert server.recv(100).endswith(b"back\n")
    log.close()


def test_a_server_that_does_not_read_never_holds_the_container_up_and_learns_what_it_missed() -> None:
    with listening() as server:
        loop = Loop()
        log = Syslog(target(server, buffer_bytes=100_000), loop)
        connection, _ = server.accept()
        connection.settimeout(10)
        written = 0
        while not log.lost:  # far more than the kernel's buffers and ours hold
            log.write("stdout", b"%d " % written + b"x" * 8000 + b"\n")
            written += 1
        assert log._queued <= 100_000
        taken = b""
        while b"lines of this log were lost" not in taken:
            loop.turn(1)
            taken += connection.recv(1 << 20)
        log.close()
        connection.close()
    numbers = [int(line.partition(b"]: ")[2].split()[0]) for line in taken.splitlines()[:-1]]
    assert numbers == list(range(written - log.lost))
    assert taken.splitlines()[-1].endswith(b"%d lines of this log were lost while nobody took them" % log.lost)


def test_a_server_that_comes_back_gets_what_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "RETRY_SECONDS", 0.01)
    loop = Loop()
    with listening() as server:
        log = Syslog(target(server), loop)
        connection, _ = server.accept()
        port = server.getsockname()[1]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()  # a reset: the next write fails
    while log.connected:
        log.write("stdout", b"into the gap\n")
    log.write("stdout", b"while it was away\n")
    with listening(port) as server:
        while not log.connected or log._queue:
            loop.turn(20)
        connection, _ = server.accept()
        log.close()
        with connection, connection.makefile("rb") as file:
            assert file.read().endswith(b"]: while it was away\n")
    assert log.lost == 0


def test_the_end_waits_for_a_dead_server_a_bounded_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "CLOSE_SECONDS", 0.05)
    with listening() as server:
        log = Syslog(target(server, buffer_bytes=1 << 30), Loop())
        connection, _ = server.accept()
        for _ in range(2000):
            log.write("stdout", b"x" * 8000 + b"\n")
        assert log._queue
        log.close()
        connection.close()
    assert log.lost > 0 and not log.connected
