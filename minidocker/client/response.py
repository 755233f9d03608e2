"""An answer of the daemon, read from its connection: head, plain or chunked body, streamed objects, hijacked rest.

Source  RFC 9112 (HTTP/1.1 messages, chunked coding).
Rules   - hot path, as transport.py.
        - a body is read once; the connection is idle again only when all of it has been read.
"""

from _socket import MSG_DONTWAIT, MSG_PEEK, socket

from minidocker.client.documents import loads, scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from minidocker.client.transport import Transport

_READ_BYTES = 65536
_MAX_HEAD_BYTES = 1 << 20


class Connection:
    """One socket to the daemon and the bytes of it that were read too far."""

    __slots__ = ("buffer", "sock")

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self.buffer = b""

    def fill(self) -> bytes:
        """Read once; the new bytes, b"" at the end of the stream."""
        return self.sock.recv(_READ_BYTES)

    def alive(self) -> bool:
        """False if the daemon has closed this idle connection, or sent what nobody asked for."""
        try:
            self.sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except (OSError, ValueError):       # ValueError: a TLS socket takes no flags; open another one
            return False
        return False

    def close(self) -> None:
        self.sock.close()


class Response:
    """One answer: `status`, `headers` (lower-case names), and a body that is read once."""

    __slots__ = ("_connection", "_left", "_transport", "headers", "status")

    def __init__(self, transport: "Transport", connection: Connection, method: str) -> None:
        head = _read_head(connection)
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ConnectionError(f"{transport.url} does not speak HTTP: {lines[0][:60]!r}")
        self.status = int(words[1])
        self.headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self._transport = transport
        self._connection: Connection | None = connection
        # Bytes left of the body (of the current chunk, when chunked); -1 is "until the end of the connection".
        self._left = -1
        if method == "HEAD" or self.status in (204, 304):
            self._left = 0
            self._finish()
        elif "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
            if self._left == 0:
                self._finish()

    def chunks(self) -> "Iterator[bytes]":
        """The body, piece by piece as it arrives."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._coded_chunks()
            return
        while (connection := self._connection) is not None:
            piece = connection.buffer or connection.fill()
            connection.buffer = b""
            if not piece:
                self.close()
                if self._left > 0:
                    raise ConnectionError(f"{self._transport.url}: the answer ended {self._left} bytes early")
                return
            if self._left >= 0:
                connection.buffer, piece = piece[self._left:], piece[: self._left]
                self._left -= len(piece)
                if self._left == 0:
                    self._finish()
            yield piece

    def _coded_chunks(self) -> "Iterator[bytes]":
        while (connection := self._connection) is not None:
            size = int(self._line(connection).split(b";")[0], 16)
            left = size
            while left:
                if not connection.buffer:
                    connection.buffer = connection.fill()
                    if not connection.buffer:
                        self.close()
                        raise ConnectionError(f"{self._transport.url}: the answer was cut off")
                piece = connection.buffer[:left]
                connection.buffer = connection.buffer[left:]
                left -= len(piece)
                if not left:
                    self._line(connection)
                yield piece
            if size == 0:
                while self._line(connection):       # trailers
                    pass
                self._finish()

    def _line(self, connection: Connection) -> bytes:
        while (end := connection.buffer.find(b"\r\n")) < 0:
            piece = connection.fill()
            if not piece:
                self.close()
                raise ConnectionError(f"{self._transport.url}: the answer was cut off")
            connection.buffer += piece
        line = connection.buffer[:end]
        connection.buffer = connection.buffer[end + 2:]
        return line

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def json(self) -> object:
        """The whole body as one JSON value."""
        return loads(self.read())

    def objects(self) -> "Iterator[object]":
        """A stream of JSON values, each as soon as it is whole (progress, events, statistics)."""
        text, held = "", b""
        for piece in self.chunks():
            held += piece
            try:
                text += held.decode()
                held = b""
            except UnicodeDecodeError as error:     # a character was cut by the chunk's end
                text += held[: error.start].decode()
                held = held[error.start:]
            position = 0
            while True:
                value, end = scan(text, position)
                if end < 0:
                    break
                yield value
                position = end
            text = text[position:]
        if text.strip():
            raise ValueError(f"{self._transport.url}: not JSON: {text[:60]!r}")

    def take_connection(self) -> Connection:
        """The raw connection of a hijacked answer (its `buffer` holds bytes that came with the head)."""
        assert self._connection is not None, "the answer has no connection left"
        connection, self._connection = self._connection, None
        return connection

    def fileno(self) -> int:
        """The descriptor under an answer that is not read yet (to wait on)."""
        assert self._connection is not None
        return self._connection.sock.fileno()

    def close(self) -> None:
        """Drop the rest of the answer, and with it the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.headers.get("connection", "").lower() == "close" or connection.buffer:
            connection.close()
        else:
            self._transport.idle.append(connection)


def _read_head(connection: Connection) -> bytes:
    while (end := connection.buffer.find(b"\r\n\r\n")) < 0:
        piece = connection.fill()
        if not piece:
            raise ConnectionError("the daemon closed the connection without an answer")
        connection.buffer += piece
        if len(connection.buffer) > _MAX_HEAD_BYTES:
            raise ConnectionError("the daemon's answer has an endless head")
    head = connection.buffer[:end]
    connection.buffer = connection.buffer[end + 4:]
    return head
