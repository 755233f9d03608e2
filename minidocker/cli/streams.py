"""A container's streams on this terminal: the pump between descriptors 0 to 2 and a hijacked connection.

Source  Docker Engine API, "attach"; poll(2).
Rules   - hot path: one thread, one poll; `terminal` is imported only with -t.
        - stdin is read only when its last piece was taken: a command that waits for us to read would wait for ever.
        - the end of stdin is a half-close, never the end of the stream.
"""

import posix
from _socket import MSG_DONTWAIT

from minidocker.cli.session import write_all
from minidocker.client.frames import Demultiplexer
from minidocker.client.response import Connection
from minidocker.client.transport import half_close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minidocker.cli.terminal import DetachKeys

_PIECE_BYTES = 65536


class Detached(Exception):
    """The user typed the detach keys."""


class Pump:
    """Moves bytes until the daemon ends the stream.

    raw         the container has a terminal: no frames.
    stdin       True to send descriptor 0.
    keys        the detach keys to look for in stdin, or None.
    """

    def __init__(self, connection: Connection, *, raw: bool, stdin: bool, keys: "DetachKeys | None" = None) -> None:
        self._connection = connection
        self._frames = None if raw else Demultiplexer()
        self._stdin = stdin
        self._keys = keys
        self._pending = b""

    def run(self) -> None:
        """Pump until the stream ends. Raises Detached."""
        if self._connection.buffer:
            self._output(self._connection.buffer)
            self._connection.buffer = b""
        if not self._stdin:
            while piece := self._receive():
                self._output(piece)
            return
        self._both_ways()

    def _both_ways(self) -> None:
        from select import POLLHUP, POLLIN, POLLOUT, poll

        poller = poll()
        fd = self._connection.sock.fileno()
        poller.register(0, POLLIN)
        poller.register(fd, POLLIN)
        while True:
            for ready, events in poller.poll():
                if ready == 0:
                    poller.unregister(0)
                    if self._input():
                        poller.register(fd, POLLIN | POLLOUT)
                    else:
                        self._end_input()
                elif events & (POLLIN | POLLHUP):
                    piece = self._receive()
                    if not piece:
                        return
                    self._output(piece)
                elif events & POLLOUT and self._send():
                    poller.register(fd, POLLIN)
                    poller.register(0, POLLIN)

    def _input(self) -> bool:
        """Take a piece of stdin; False at its end."""
        try:
            piece = posix.read(0, _PIECE_BYTES)
        except OSError:     # a terminal that has gone
            piece = b""
        if piece and self._keys is not None:
            kept, detached = self._keys.feed(piece)
            if detached:
                raise Detached
            self._pending = kept
            return True
        self._pending = piece
        return bool(piece)

    def _send(self) -> bool:
        """Give the connection what it takes; True when all of it is gone."""
        if self._pending:
            try:
                sent = self._send_some(self._pending)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                sent = len(self._pending)       # the command has ended; its output may still be coming
            self._pending = self._pending[sent:]
        return not self._pending

    def _send_some(self, payload: bytes) -> int:
        try:
            return self._connection.sock.send(payload, MSG_DONTWAIT)
        except ValueError:      # a TLS socket takes no flags
            return self._connection.sock.send(payload[:4096])

    def _end_input(self) -> None:
        try:
            half_close(self._connection)
        except OSError:
            pass

    def _receive(self) -> bytes:
        try:
            piece = self._connection.sock.recv(_PIECE_BYTES)
        except ConnectionResetError:
            return b""
        pending = getattr(self._connection.sock, "pending", None)
        while pending is not None and pending():
            piece += self._connection.sock.recv(_PIECE_BYTES)
        return piece

    def _output(self, piece: bytes) -> None:
        if self._frames is None:
            write_all(1, piece)
            return
        for stream, payload in self._frames.feed(piece):
            write_all(1 if stream == 1 else 2, payload)
