"""Attach: whoever connects to a container's attach.sock gets its output, and may give it input.

Source  unix(7); Docker Engine API, "Attach to a container": frames of [stream, 0, 0, 0, length as uint32] and payload.
Rules   - one JSON line says what is wanted (`Wish`), one JSON line answers; then bytes, framed unless there is a
          terminal.
        - a half-close ends the client's stdin, never its output.
        - watchers get a newline when the log has grown, unless they have something unread; an "r" with the new file's
          descriptor at each rotation, so that a follower loses no line however fast files come and go; an "m" if it
          was too slow even for that (_HANDED_LOG_BYTES). Their end of file: the log is whole.
"""

import fcntl
import os
import socket
import struct
import termios

import msgspec

from minidocker import typed
from minidocker.errors import MinidockerError
from minidocker.runtime.loop import HANGUP, READ, WRITE, Loop
from minidocker.runtime.stdio import CHUNK_BYTES, CLIENT_BUFFER_BYTES, Stdio

_LINE_LIMIT_BYTES = 4096
_FRAME = struct.Struct(">BxxxI")
_BACKLOG = 128
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_HANDED_LOG_BYTES = 64 << 20  # of log that a slow watcher has not taken yet; its files may have lost their names
_HANDED_FILES = (8, 400)  # but never less nor more
_MESSAGE_BYTES = 512  # that the kernel counts for a message, halved as SO_SNDBUF wants it


class Wish(msgspec.Struct, frozen=True):
    """The first line of a client. `op`: "attach", "resize" or "watch"."""

    op: str
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    rows: int = 0
    columns: int = 0


class Client:
    """One connection."""

    def __init__(self, server: "AttachServer", connection: socket.socket) -> None:
        self.server = server
        self.socket = connection
        self.wish: Wish | None = None
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._reading = True
        self._missed = False
        self.update()

    def wants(self, stream: int) -> bool:
        """True if this client gets that stream; a terminal has only stdout."""
        return (
            self.wish is not None
            and self.wish.op == "attach"
            and (self.wish.stdout if stream == 1 else self.wish.stderr)
        )

    @property
    def full(self) -> bool:
        """True if it has so much to read that the container must wait."""
        return len(self._outgoing) >= CLIENT_BUFFER_BYTES

    def update(self) -> None:
        """Ask the loop for what can be done now."""
        has_stdin = self.wish is None or self.wish.stdin
        may_read = self._reading and (not has_stdin or self.server.stdio.stdin_has_room)
        events = (READ if may_read else 0) | (WRITE if self._outgoing else 0)
        self.server.loop.watch(self.socket.fileno(), events, self._ready)

    def send(self, content: bytes) -> None:
        """Send, now or when there is room."""
        self._outgoing += content
        self._flush()

    def nudge(self) -> None:
        """A byte for a watcher, unless it has not read the last one."""
        unread = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        if not any(unread):
            self._tell(b"\n")

    def hand(self, log_fd: int) -> None:
        """The log goes on in another file: give it to a watcher."""
        self._tell(b"r", log_fd)

    def _tell(self, word: bytes, *fds: int) -> None:
        try:
            socket.send_fds(self.socket, [b"m" if self._missed else word], fds, _NOW)
            self._missed = False
        except BlockingIOError:
            self._missed = self._missed or bool(fds)
        except OSError:
            self.server.drop(self)

    def finish(self) -> None:
        """Leave what is unread to the socket's own buffer, which outlives us, and close."""
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * (len(self._outgoing) + CHUNK_BYTES))
        self._flush()
        if self.socket.fileno() >= 0:
            self.server.drop(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.socket.fileno() >= 0 and events & (READ | HANGUP):
            self._read()
        if self.socket.fileno() >= 0:
            self.update()

    def _flush(self) -> None:
        full = self.full
        try:
            while self._outgoing:
                del self._outgoing[: self.socket.send(self._outgoing[:CHUNK_BYTES], socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            self.server.drop(self)
            return
        self.update()
        if full and not self.full:
            self.server.stdio.balance()

    def _read(self) -> None:
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.server.drop(self)
            return
        if not chunk:
            self._end_of_input()
        elif self.wish is None:
            self._incoming += chunk
            self._take_wish()
        elif self.wish.stdin:
            self.server.stdio.feed(chunk)

    def _end_of_input(self) -> None:
        self._reading = False
        if self.wish is None or self.wish.op == "resize":
            self.server.drop(self)
            return
        if self.wish.stdin:
            self.server.stdio.client_stdin_ended()
            self.wish = msgspec.structs.replace(self.wish, stdin=False)

    def _take_wish(self) -> None:
        line, newline, rest = self._incoming.partition(b"\n")
        if not newline and len(line) <= _LINE_LIMIT_BYTES:
            return
        try:
            self.wish = _decoder.decode(line)
            self.send(_encoder.encode(self.server.grant(self, self.wish)) + b"\n")
        except (msgspec.MsgspecError, MinidockerError) as error:
            self.send(_encoder.encode({"ok": False, "error": str(error)}) + b"\n")
            self.server.drop(self)
            return
        if rest and self.wish.stdin:
            self.server.stdio.feed(bytes(rest))


class AttachServer:
    """The socket and all its clients: the audience of a container's output."""

    def __init__(self, loop: Loop, stdio: Stdio, directory: str) -> None:
        self.loop = loop
        self.stdio = stdio
        self._clients: list[Client] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with opened(directory) as parent:  # a socket's address has room for 108 bytes only
            self._listener.bind(f"/proc/self/fd/{parent}/attach.sock")
        self._listener.listen(_BACKLOG)
        loop.watch(self._listener.fileno(), READ, self._accept)
        stdio.audience = self

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._clients.append(Client(self, connection))

    def grant(self, client: Client, wish: Wish) -> dict[str, bool]:
        """Do what a client wants, and answer it."""
        if wish.op == "resize":
            self.stdio.resize(wish.rows, wish.columns)
        elif wish.op not in ("attach", "watch"):
            return {"ok": False}
        elif wish.op == "watch":
            log = self.stdio.streams.log
            files = _HANDED_LOG_BYTES // max(1, (log.max_bytes if log is not None else None) or _HANDED_LOG_BYTES)
            files = min(max(files, _HANDED_FILES[0]), _HANDED_FILES[1])
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, files * _MESSAGE_BYTES)
        return {"ok": True, "tty": self.stdio.streams.terminal}

    def deliver(self, stream: int, chunk: bytes) -> None:
        """Output for all who want it."""
        head = b"" if self.stdio.streams.terminal else _FRAME.pack(stream, len(chunk))
        for client in list(self._clients):
            if client.wants(stream):
                client.send(head + chunk)

    def full(self, stream: int) -> bool:
        """True if one who wants this stream does not keep up."""
        return any(client.full and client.wants(stream) for client in self._clients)

    def logged(self) -> None:
        """Wake the watchers."""
        for client in list(self._clients):
            if client.wish is not None and client.wish.op == "watch":
                client.nudge()

    def rotated(self, path: str) -> None:
        """Hand the log's new file to the watchers."""
        watchers = [client for client in self._clients if client.wish is not None and client.wish.op == "watch"]
        if watchers:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            for client in watchers:
                client.hand(fd)
            os.close(fd)

    def stdin_drained(self) -> None:
        """There may be room for input again."""
        for client in self._clients:
            if client.wish is not None and client.wish.stdin:
                client.update()

    def drop(self, client: Client) -> None:
        """Forget a client; the container's stdin may end with it."""
        if client not in self._clients:
            return
        self._clients.remove(client)
        self.loop.forget(client.socket.fileno())
        client.socket.close()
        if client.wish is not None and client.wish.stdin:
            self.stdio.client_stdin_ended()
        self.stdio.balance()

    def finish(self) -> None:
        """The container's output has ended: let all clients see it."""
        self.loop.forget(self._listener.fileno())
        self._accept(0)  # who connected in the last moment gets an end of file, not silence
        self._listener.close()
        for client in list(self._clients):
            client.finish()


class opened:
    """A directory's descriptor for the length of a `with` block."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)


_SO_SNDBUFFORCE = 32
_decoder = typed.decoder(Wish)
_encoder = msgspec.json.Encoder()
