"""A container's standard streams in its monitor: from pipes or a pty to the log and to whoever is attached.

Source  pipe(7), pty(7); Docker's attach: OpenStdin, StdinOnce, Tty.
Rules   - everything read is logged before anyone else gets it.
        - an attached client that does not read is buffered up to a bound; then the container's stream waits (as with
          Docker). The log and the other clients lose nothing.
        - stdin is closed for the container when the attach that had it ends, if it was asked for once (StdinOnce).
"""

import errno
import os
from functools import partial
from typing import Protocol

import msgspec

from minidocker.linux import terminal
from minidocker.runtime.logdrivers import open_log
from minidocker.runtime.loop import READ, WRITE, Loop
from minidocker.runtime.rotating_log import LogTarget

CHUNK_BYTES = 64 << 10
CLIENT_BUFFER_BYTES = 256 << 10
_STDIN_BUFFER_BYTES = 64 << 10
_STREAM_NAMES = {1: "stdout", 2: "stderr"}


class Streams(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stdio is made of. Rows and columns 0: the terminal's size is not known yet."""

    terminal: bool = False
    rows: int = 0
    columns: int = 0
    open_stdin: bool = False
    stdin_once: bool = False
    log: LogTarget | None = None


class Audience(Protocol):
    """Who gets the output besides the log."""

    def deliver(self, stream: int, chunk: bytes) -> None: ...

    def full(self, stream: int) -> bool: ...

    def logged(self) -> None: ...

    def rotated(self, path: str) -> None: ...

    def stdin_drained(self) -> None: ...


class Stdio:
    """Both sides of the three streams. `child_ends` are the container's, closed here after the fork."""

    def __init__(self, loop: Loop, streams: Streams) -> None:
        self.streams = streams
        self.audience: Audience | None = None
        self._loop = loop
        self._log = open_log(streams.log, self._log_rotated, loop) if streams.log else None
        self._outputs: dict[int, int] = {}  # descriptor -> stream number
        self._master = -1
        self._size = (streams.rows, streams.columns)
        self._stdin = -1
        self._stdin_buffer = bytearray()
        self._stdin_ending = False
        self.child_ends = () if streams.terminal else self._make_pipes()

    @property
    def ended(self) -> bool:
        """True once every output has come to its end."""
        return not self._outputs

    def _log_rotated(self, path: str) -> None:
        if self.audience is not None:
            self.audience.rotated(path)

    def _make_pipes(self) -> tuple[int, int, int]:
        if self.streams.open_stdin:
            stdin, self._stdin = os.pipe()
            os.set_blocking(self._stdin, False)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ends = [stdin]
        for stream in _STREAM_NAMES:
            output, end = os.pipe()
            self._outputs[output] = stream
            ends.append(end)
        return ends[0], ends[1], ends[2]

    def forked(self) -> None:
        """The container has its ends: close ours of them and begin to listen."""
        for fd in self.child_ends:
            os.close(fd)
        self.child_ends = ()
        self.balance()

    def take_console(self, master: int) -> None:
        """The container has made its pty and sent us the master."""
        self._master = master
        self._outputs[master] = 1
        if all(self._size):
            terminal.set_window_size(master, *self._size)
        if self.streams.open_stdin:
            self._stdin = os.dup(master)
            os.set_blocking(self._stdin, False)
        self.balance()
        self._flush_stdin(0)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; remembered if there is none yet."""
        self._size = (rows, columns)
        if self._master >= 0:
            terminal.set_window_size(self._master, rows, columns)

    def balance(self) -> None:
        """Listen to the outputs whose readers have room, and only to those."""
        for fd, stream in self._outputs.items():
            full = self.audience is not None and self.audience.full(stream)
            if full:
                self._loop.forget(fd)
            else:
                self._loop.watch(fd, READ, partial(self._readable, fd))

    def _readable(self, fd: int, _events: int) -> None:
        self._take(fd)

    def _take(self, fd: int) -> bool:
        """Read once and pass it on. Returns False if there was nothing."""
        stream = self._outputs[fd]
        try:
            chunk = os.read(fd, CHUNK_BYTES)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            chunk = b""  # EIO: the last slave of the pty was closed
        if not chunk:
            self._loop.forget(fd)
            os.close(fd)
            del self._outputs[fd]
            self._master = -1 if fd == self._master else self._master
            return False
        if self._log is not None:
            self._log.write(_STREAM_NAMES[stream], chunk)
        if self.audience is not None:
            self.audience.deliver(stream, chunk)
            self.audience.logged()
            if self.audience.full(stream):
                self._loop.forget(fd)
        return True

    def drain(self) -> None:
        """Take all that is in the pipes now, whoever may have room for it; for the time after the container's end."""
        for fd in list(self._outputs):
            os.set_blocking(fd, False)
            while self._take(fd):
                pass

    def finish(self) -> None:
        """The end: close what is left, and the log with it."""
        for fd in self._outputs:
            self._loop.forget(fd)
            os.close(fd)
        self._outputs.clear()
        if self._log is not None:
            self._log.close()
            self._log = None

    @property
    def stdin_has_room(self) -> bool:
        """True if more of stdin may be taken from a client."""
        return len(self._stdin_buffer) < _STDIN_BUFFER_BYTES

    def feed(self, chunk: bytes) -> None:
        """Bytes for the container's stdin; dropped if it has none, or has closed it."""
        if self.streams.open_stdin and not self._stdin_ending:
            self._stdin_buffer += chunk
            self._flush_stdin(0)

    def client_stdin_ended(self) -> None:
        """A client that had stdin has ended it, or is gone."""
        if self.streams.stdin_once and not self.streams.terminal:
            self._stdin_ending = True
            self._flush_stdin(0)

    def _flush_stdin(self, _events: int) -> None:
        if self._stdin < 0:
            return
        try:
            while self._stdin_buffer:
                written = os.write(self._stdin, self._stdin_buffer[:CHUNK_BYTES])
                del self._stdin_buffer[:written]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE, EIO: nobody will ever read it
            self._stdin_buffer.clear()
            self._stdin_ending = True
        self._loop.watch(self._stdin, WRITE if self._stdin_buffer else 0, self._flush_stdin)
        if self._stdin_ending and not self._stdin_buffer:
            self._loop.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        if self.audience is not None:
            self.audience.stdin_drained()
