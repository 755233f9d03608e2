"""A container's live streams, as attach and exec give them: one hijacked connection.

Source  Docker Engine API, "attach".
Rules   - input and output move together: who only wrote would wait for ever for a command that waits for its reader.
        - the end of the input is a half-close: the command sees end of file, its output goes on.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from types import TracebackType

from minidocker.client.frames import Demultiplexer
from minidocker.client.response import Connection
from minidocker.client.transport import half_close

_PIECE_BYTES = 65536


class Attached:
    """Iterate for output (bytes), `send` input, `end_input` when there is no more of it."""

    def __init__(self, connection: Connection, *, raw: bool) -> None:
        self._connection = connection
        self._raw = raw
        self._frames = Demultiplexer()

    def fileno(self) -> int:
        """The descriptor, to wait on."""
        return self._connection.sock.fileno()

    def send(self, payload: bytes) -> None:
        """Write to the command's stdin."""
        self._connection.sock.sendall(payload)

    def end_input(self) -> None:
        """The command's stdin ends."""
        half_close(self._connection)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(1 stdout | 2 stderr, bytes), until the command ends; with a terminal everything is stdout."""
        while piece := self._receive():
            yield from self._split(piece)

    def __iter__(self) -> Iterator[bytes]:
        for _, payload in self.frames():
            yield payload

    def exchange(self, stdin: bytes | None) -> Iterator[bytes]:
        """Send `stdin` and its end while reading all output, of both streams."""
        for _, payload in self.exchange_frames(stdin):
            yield payload

    def exchange_frames(self, stdin: bytes | None) -> Iterator[tuple[int, bytes]]:
        """As `exchange`, with the stream's number."""
        if not stdin:
            if stdin is not None:
                self.end_input()
            yield from self.frames()
            return
        view = memoryview(stdin)
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN | select.POLLOUT)
        while view:
            for _, events in poll.poll():
                if events & (select.POLLIN | select.POLLHUP):
                    piece = self._receive()
                    if not piece:
                        return
                    yield from self._split(piece)
                elif events & select.POLLOUT:
                    # one page fits when poll says so; more could block while the command waits for us to read
                    view = view[self._connection.sock.send(view[:4096]) :]
        self.end_input()
        yield from self.frames()

    def _receive(self) -> bytes:
        piece, self._connection.buffer = self._connection.buffer, b""
        return piece or self._connection.sock.recv(_PIECE_BYTES)

    def _split(self, piece: bytes) -> list[tuple[int, bytes]]:
        return [(1, piece)] if self._raw else self._frames.feed(piece)

    def close(self) -> None:
        """Let go; the command runs on."""
        self._connection.close()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
