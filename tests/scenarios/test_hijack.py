"""The raw side of attach and exec start: what stands on the wire, byte by byte."""

import json
import socket
import struct
from collections.abc import Iterator

import pytest

from .conftest import Daemon


class Wire:
    """A plain UNIX socket that speaks HTTP by hand."""

    def __init__(self, daemon: Daemon) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(daemon.socket))
        self.buffer = b""

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def head(self) -> str:
        while b"\r\n\r\n" not in self.buffer:
            more = self.sock.recv(4096)
            assert more, self.buffer
            self.buffer += more
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode()

    def body(self, head: str) -> bytes:
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        while len(self.buffer) < length:
            self.buffer += self.sock.recv(4096)
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body

    def rest(self) -> bytes:
        while more := self.sock.recv(65536):
            self.buffer += more
        return self.buffer


def frames(content: bytes) -> list[tuple[int, bytes]]:
    found = []
    while content:
        stream, length = struct.unpack_from(">BxxxI", content)
        found.append((stream, content[8 : 8 + length]))
        content = content[8 + length :]
    return found


def post(path: str, body: object | None = None, upgrade: bool = False) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: docker", f"Content-Length: {len(content)}"]
    if body is not None:
        lines.append("Content-Type: application/json")
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    made = Wire(daemon)
    yield made
    made.sock.close()


@pytest.fixture
def cat(daemon: Daemon) -> str:
    """A running container and an exec of `cat` in it."""
    client = daemon.client()
    container = client.containers.run("busybox", "sleep 100", detach=True)
    made = client.api.exec_create(container.id, "cat", stdin=True)
    return str(made["Id"])


def test_stdin_that_comes_with_the_head_is_not_lost(wire: Wire, cat: str) -> None:
    wire.send(post(f"/v1.41/exec/{cat}/start", {"Detach": False, "Tty": False}, upgrade=True) + b"in one segment\n")
    assert wire.head().startswith("HTTP/1.1 101 UPGRADED")
    wire.sock.shutdown(socket.SHUT_WR)
    assert frames(wire.rest()) == [(1, b"in one segment\n")]


@pytest.mark.parametrize("called", ["plain", "/plain", "%2Fplain"])
def test_stdin_that_comes_with_the_head_of_an_attach_is_not_lost(wire: Wire, daemon: Daemon, called: str) -> None:
    container = daemon.client().containers.create("busybox", "cat", stdin_open=True, name="plain")
    wire.send(post(f"/containers/{called}/attach?stream=1&stdin=1&stdout=1", upgrade=True) + b"early\n")
    assert wire.head().startswith("HTTP/1.1 101 UPGRADED")
    container.start()
    while len(wire.buffer) < len(b"early\n") + 8:
        more = wire.sock.recv(4096)
        assert more
        wire.buffer += more
    assert frames(wire.buffer) == [(1, b"early\n")]


def test_a_half_close_ends_stdin_only(wire: Wire, daemon: Daemon) -> None:
    client = daemon.client()
    container = client.containers.run("busybox", "sleep 100", detach=True)
    made = client.api.exec_create(container.id, ["sh", "-c", "cat; sleep 0.3; echo after"], stdin=True)
    wire.send(post(f"/exec/{made['Id']}/start", {}, upgrade=True))
    wire.head()
    wire.send(b"before\n")
    wire.sock.shutdown(socket.SHUT_WR)
    assert b"".join(payload for _, payload in frames(wire.rest())) == b"before\nafter\n"


def test_without_upgrade_the_answer_is_a_plain_200(wire: Wire, cat: str) -> None:
    wire.send(post(f"/v1.41/exec/{cat}/start", {}))
    assert wire.head() == "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream"
    wire.send(b"x\n")
    wire.sock.shutdown(socket.SHUT_WR)
    assert frames(wire.rest()) == [(1, b"x\n")]


def test_the_content_type_tells_frames_from_1_42(wire: Wire, cat: str) -> None:
    wire.send(post(f"/v1.44/exec/{cat}/start", {}, upgrade=True))
    assert "Content-Type: application/vnd.docker.multiplexed-stream" in wire.head()


def test_an_ordinary_error_keeps_the_connection_usable(wire: Wire, daemon: Daemon) -> None:
    wire.send(
        post("/v1.41/containers/nope/attach?stream=1", upgrade=True) + b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
    )
    head = wire.head()
    assert head.startswith("HTTP/1.1 404")
    assert "application/vnd.docker.raw-stream" in head  # Docker had taken the connection
    assert wire.body(head) == b"No such container: nope\r\n"
    head = wire.head()
    assert head.startswith("HTTP/1.1 200")
    assert wire.body(head) == b"OK"


def test_versions_outside_of_what_is_spoken_are_refused(wire: Wire) -> None:
    for version, word in (("1.99", "too new"), ("1.11", "too old")):
        wire.send(f"GET /v{version}/info HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        head = wire.head()
        assert head.startswith("HTTP/1.1 400")
        assert word in json.loads(wire.body(head))["message"]


def test_common_headers_and_the_unknown_page(wire: Wire) -> None:
    wire.send(b"GET /v1.41/nowhere HTTP/1.1\r\nHost: docker\r\n\r\n")
    head = wire.head()
    assert head.startswith("HTTP/1.1 404")
    assert {"Api-Version: 1.44", "Ostype: linux", "Docker-Experimental: false"} <= set(head.splitlines())
    assert json.loads(wire.body(head)) == {"message": "page not found"}


def test_ping_tells_the_builder(wire: Wire) -> None:
    wire.send(b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
    head = wire.head()
    assert "Builder-Version: 1" in head and "Api-Version: 1.44" in head
    wire.send(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
    head = wire.head()
    assert wire.body(head) == b"OK"


def test_wait_sends_its_headers_before_the_exit(wire: Wire, daemon: Daemon) -> None:
    container = daemon.client().containers.create("busybox", ["sh", "-c", "exit 6"])
    wire.send(post(f"/v1.41/containers/{container.id}/wait?condition=next-exit"))
    assert wire.head().startswith("HTTP/1.1 200")
    container.start()
    while b"StatusCode" not in wire.buffer:
        wire.buffer += wire.sock.recv(4096)
    assert b'"StatusCode":6' in wire.buffer


def test_no_content_has_no_body(wire: Wire, daemon: Daemon) -> None:
    container = daemon.client().containers.create("busybox", "sleep 100")
    for status in ("204", "304"):
        wire.send(post(f"/containers/{container.id}/start"))
        head = wire.head()
        assert head.startswith(f"HTTP/1.1 {status}")
        assert "content-length" not in head.lower() and "transfer-encoding" not in head.lower()
    assert not wire.buffer


def test_a_body_of_another_content_type_is_refused(wire: Wire) -> None:
    wire.send(b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}")
    head = wire.head()
    assert head.startswith("HTTP/1.1 400")
    assert json.loads(wire.body(head))["message"] == "Content-Type specified (text/plain) must be 'application/json'"


def test_chunked_request_bodies_are_read(wire: Wire) -> None:
    body = b'{"Image":"busybox","Cmd":["true"]}'
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:5], body[5:])) + b"0\r\n\r\n"
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    wire.send(head + chunks[:20])
    wire.send(chunks[20:])
    assert wire.head().startswith("HTTP/1.1 201")


def test_the_exec_framing_follows_the_start_body(wire: Wire, daemon: Daemon) -> None:
    client = daemon.client()
    container = client.containers.run("busybox", "sleep 100", detach=True)
    made = client.api.exec_create(container.id, ["sh", "-c", "tty; echo x"], tty=True)
    wire.send(post(f"/v1.41/exec/{made['Id']}/start", {"Tty": False}, upgrade=True))
    wire.head()
    assert b"".join(payload for _, payload in frames(wire.rest())) == b"/dev/pts/0\r\nx\r\n"


def test_a_size_that_is_asked_for_while_an_exec_starts_is_set_when_it_runs(wire: Wire, daemon: Daemon) -> None:
    client, asking = daemon.client(), Wire(daemon)
    container = client.containers.run("busybox", "sleep 100", detach=True)
    script = "until stty size 2>/dev/null | grep -q '43 121'; do :; done"
    made = client.api.exec_create(container.id, ["sh", "-c", script], tty=True)
    asking.send(post(f"/v1.44/exec/{made['Id']}/resize?h=43&w=121"))
    wire.send(post(f"/v1.41/exec/{made['Id']}/start", {"Tty": True}, upgrade=True))
    assert asking.head().startswith("HTTP/1.1 200")
    wire.head()
    assert wire.rest() == b""
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 0
    asking.sock.close()
