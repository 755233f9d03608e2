"""Hijacked connections and Docker's frames: where HTTP ends and stdio begins.

Source  Docker Engine API, "attach": stream format; recorded traffic of the docker CLI and docker-py.
Rules   - a client that asks for an upgrade gets 101 and may send at once; one that does not gets a bare 200 and the
          same bytes until the connection closes.
        - the first frame goes out only after the client has picked the head up: docker-py reads the socket beneath
          its buffered reader and loses what came with the head.
        - a frame is [stream, 0, 0, 0, length as uint32 big-endian] + payload; a terminal's output has no frames.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from minidocker.daemon.connection import Connection
from minidocker.errors import InvalidArgument

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
STDOUT, STDERR = 1, 2
HEAD_WAIT_SECONDS = 0.02
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
READ_BYTES = 65536
T = TypeVar("T")


def frame(stream: int, payload: bytes) -> bytes:
    """One frame of Docker's multiplexed stream."""
    return struct.pack(">BxxxI", stream, len(payload)) + payload


class Deframer:
    """Takes Docker's frames off a byte stream that arrives in pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The whole frames (stream, payload) that are there after `data`."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            stream, length = struct.unpack_from(">BxxxI", self._buffer)
            if len(self._buffer) < 8 + length:
                break
            frames.append((stream, self._buffer[8 : 8 + length]))
            self._buffer = self._buffer[8 + length :]
        return frames


def parse_detach_keys(text: str) -> bytes:
    """The byte sequence of `ctrl-p,ctrl-q` and the like.

    Raises  InvalidArgument: a key that is neither one character nor ctrl- with a letter or one of @[\\]^_.
    """
    keys = bytearray()
    for key in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif (
            key.lower().startswith("ctrl-") and len(key) == 6 and key[5].upper() in "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_"
        ):
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"invalid detach keys ({text}) provided: Unknown character: '{key}'")
    return bytes(keys)


class DetachScanner:
    """Finds the detach keys in typed bytes; a part of the sequence is held back until it is decided."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and True when the whole sequence was typed (the rest is dropped)."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                out.append(byte)
        return bytes(out), False


class Hijacked(web.StreamResponse):
    """What a handler returns after it has spoken on the connection itself: aiohttp has nothing left to send."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def connection_of(request: web.BaseRequest) -> Connection:
    """The Connection that `request` came by. ConnectionResetError when it is closed already."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    return cast(Connection, transport.get_protocol())


def hijack(request: web.Request, content_type: str) -> Connection:
    """Answer with the head of a raw stream and take the connection over. The request's body must have been read."""
    connection = connection_of(request)
    if hdrs.UPGRADE in request.headers:
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
    connection.take()
    connection.write(head.encode() + b"\r\n")
    return connection


async def head_taken(connection: Connection) -> None:
    """Return when the client has read all that was written so far, or after HEAD_WAIT_SECONDS."""
    sock = connection.transport.get_extra_info("socket")
    deadline = asyncio.get_running_loop().time() + HEAD_WAIT_SECONDS
    while sock is not None and sock.fileno() >= 0 and asyncio.get_running_loop().time() < deadline:
        # For a UNIX socket the kernel counts what the peer has not read; no event tells of it, so this looks again.
        unread = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        if unread == 0:
            await asyncio.sleep(0.001)  # the client's buffered read has returned; let it get to its raw one
            return
        await asyncio.sleep(0.001)


async def while_connected(request: web.Request, work: Awaitable[T]) -> T:
    """`work`'s result; it is cancelled, and ConnectionResetError raised, when the client goes away first."""
    gone = asyncio.ensure_future(connection_of(request).gone.wait())
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise ConnectionResetError("the client is gone")
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


class Pump:
    """Joins a hijacked connection with a monitor's attach socket until one of them ends.

    monitor   connected, not blocking, the attach handshake done; closed at the end.
    convert   None: bytes go through as they are; else a function from the monitor's bytes to the client's.
    detach    the detach keys, looked for in what the client sends; None: never.
    """

    def __init__(
        self,
        connection: Connection,
        monitor: socket.socket,
        *,
        stdin: bool,
        detach: bytes | None = None,
        convert: Any = None,
    ) -> None:
        self._connection = connection
        self._monitor = monitor
        self._stdin = stdin
        self._scanner = DetachScanner(detach) if detach else None
        self._convert = convert

    async def run(self) -> bool:
        """Move bytes until the container's output ends, the client is gone or detaches. True when it detached."""
        output = asyncio.ensure_future(self._output())
        typed = asyncio.ensure_future(self._input())
        gone = asyncio.ensure_future(self._connection.gone.wait())
        try:
            while True:
                waiting = {t for t in (output, typed, gone) if not t.done()}
                if output.done() or gone.done() or (typed.done() and not typed.cancelled() and typed.result()):
                    break
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return typed.done() and not typed.cancelled() and typed.exception() is None and typed.result()
        finally:
            for task in (output, typed, gone):
                task.cancel()
            await asyncio.gather(output, typed, gone, return_exceptions=True)
            self._monitor.close()

    async def _output(self) -> None:
        loop = asyncio.get_running_loop()
        await head_taken(self._connection)
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(self._monitor, READ_BYTES):
                self._connection.write(self._convert(data) if self._convert else data)
                await self._connection.drain()

    async def _input(self) -> bool:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, OSError):
            while data := await self._connection.read():
                passed, detached = self._scanner.feed(data) if self._scanner else (data, False)
                if self._stdin and passed:
                    await loop.sock_sendall(self._monitor, passed)
                if detached:
                    return True
            if self._stdin:
                self._monitor.shutdown(socket.SHUT_WR)
        return False


def untty(data: bytes) -> bytes:
    """A terminal's bytes as frames of stdout (an exec made with a terminal and started without one)."""
    return frame(STDOUT, data)


def detty() -> Any:
    """A converter from frames to plain bytes (an exec made without a terminal and started with one)."""
    deframer = Deframer()
    return lambda data: b"".join(payload for _, payload in deframer.feed(data))


__all__ = [
    "MULTIPLEXED_STREAM",
    "RAW_STREAM",
    "STDERR",
    "STDOUT",
    "Connection",
    "Deframer",
    "DetachScanner",
    "Hijacked",
    "Pump",
    "connection_of",
    "detty",
    "frame",
    "head_taken",
    "hijack",
    "parse_detach_keys",
    "untty",
    "while_connected",
]
