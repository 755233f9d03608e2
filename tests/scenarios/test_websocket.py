"""Attach by websocket, by a websocket library and not by our own code."""

import socket

import docker
import pytest
import websocket

from .conftest import Daemon


def connect(
    daemon: Daemon, container: str, query: str, version: str = "1.44", **options: object
) -> websocket.WebSocket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(daemon.socket))
    sock.settimeout(20)
    url = f"ws://localhost/v{version}/containers/{container}/attach/ws?{query}"
    return websocket.create_connection(url, socket=sock, **options)


def everything(connection: websocket.WebSocket) -> bytes:
    found = b""
    while message := connection.recv():
        found += message
    return found


def test_both_streams_come_as_one_without_frames(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"])
    connection = connect(daemon, container.id, "stream=1&stdout=1&stderr=1")
    container.start()
    assert sorted(everything(connection).splitlines()) == [b"err", b"out"]
    logged = everything(connect(daemon, container.id, "logs=1&stdout=1&stderr=1"))
    assert sorted(logged.splitlines()) == [b"err", b"out"]


def test_stdin_goes_in_as_binary_and_as_text(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True)
    connection = connect(daemon, container.id, "stream=1&stdin=1&stdout=1")
    container.start()
    connection.send_binary(b"\x00\xffbytes\n")
    assert connection.recv() == b"\x00\xffbytes\n"
    connection.send("text\n")
    assert connection.recv() == b"text\n"
    container.kill()
    assert everything(connection) == b""


def test_detach_keys_and_a_close_leave_it_running(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "cat", stdin_open=True, tty=True, detach=True)
    connection = connect(daemon, container.id, "stream=1&stdin=1&stdout=1&detachKeys=ctrl-x")
    connection.send(b"abc\n")
    seen = b""
    while b"abc\r\nabc\r\n" not in seen:
        seen += connection.recv()
    connection.send(b"\x18")
    assert everything(connection) == b""
    connect(daemon, container.id, "stream=1&stdin=1&stdout=1", version="1.41").close()
    container.reload()
    assert container.status == "running"


def test_a_page_of_another_host_is_refused(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "cat", stdin_open=True, detach=True)
    with pytest.raises(websocket.WebSocketBadStatusException) as told:
        connect(daemon, container.id, "stream=1&stdin=1", origin="http://elsewhere.example")
    assert told.value.status_code == 403
    connect(daemon, container.id, "stream=1&stdin=1", origin="http://localhost:8888").close()


def test_what_is_no_websocket_is_refused(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    answer = client.api.get(client.api._url("/containers/{0}/attach/ws", container.id))
    assert (answer.status_code, answer.json()["message"]) == (400, "not websocket protocol")
    with pytest.raises(websocket.WebSocketBadStatusException) as told:
        connect(daemon, "nobody", "stream=1")
    assert told.value.status_code == 404
