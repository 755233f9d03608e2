"""The client's tests: a server whose every byte is chosen."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # docker_oracle.py

from docker_oracle import dockerd, minidockerd

__all__ = ["dockerd", "minidockerd"]


class Script:
    """Serves connections one after another: each reads a request and gets the next scripted answer."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers: list[list[bytes]] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(self, *pieces: bytes) -> None:
        """Answer the next request with these bytes, written one by one; `b""` closes the connection."""
        self._answers.append(list(pieces))

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            while request := self._request(connection):
                self.requests.append(request)
                for piece in self._answers.pop(0):
                    if not piece:
                        return
                    connection.sendall(piece)

    def _request(self, connection: socket.socket) -> bytes:
        seen = b""
        while b"\r\n\r\n" not in seen:
            piece = connection.recv(65536)
            if not piece:
                return b""
            seen += piece
        head, _, body = seen.partition(b"\r\n\r\n")
        if b"Transfer-Encoding: chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += connection.recv(65536)
        else:
            size = int((head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) or 0)
            while len(body) < size:
                body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path / "s")
    yield made
    made.close()


@pytest.fixture
def plain() -> Callable[..., bytes]:
    """Build a plain answer."""

    def build(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    return build
