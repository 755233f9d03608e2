"""One client connection: a thin protocol in front of aiohttp's own.

Source  RFC 9112 (where a message ends); Docker Engine API, "attach" (hijacking); notes on real clients in streams.py.
Rules   - it knows where a request begins and ends and nothing else of HTTP: aiohttp parses, this only looks.
        - `/v1.41/x` becomes `/x` with the header `Api-Version: 1.41`, so that routes exist once.
        - after the body of a request that may be hijacked (attach, exec start) all bytes are held: they are stdin, or,
          if the handler answers by ordinary HTTP, the next request. aiohttp alone would take stdin for one and fail.
        - after `take()` bytes go to the stream's queue, and the end of the client's sending is only the end of stdin.
"""

import asyncio
import re
from collections import deque
from typing import cast

HEAD_LIMIT = 65536
HELD_LIMIT = 262144
_VERSION = re.compile(rb"^([A-Z]+) /v(\d{1,4}\.\d{1,4})(/[^ ]*) ")
_HIJACK = re.compile(rb"^POST (?:/v[\d.]+)?/(?:containers/[^ ?]+/attach|exec/[^/ ]+/start)[? ]")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,19})[ \t]*\r?$", re.I | re.M)
_CHUNKED = re.compile(rb"^transfer-encoding:[^\n]*chunked[ \t]*\r?$", re.I | re.M)
_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}(?=[ \t]*(?:;|\Z))")
_HEAD_END = re.compile(rb"\n\r?\n")  # a bare newline is aiohttp's to refuse, not ours to wait after


class Body:
    """Counts the bytes of one request body. `done` once all were seen; malformed framing is aiohttp's to refuse."""

    def __init__(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self._chunked = _CHUNKED.search(head) is not None
        self._left = 0 if self._chunked or length is None else int(length[1])
        self._line = b""
        self._trailer = False
        self.done = not self._chunked and self._left == 0

    def take(self, data: bytes) -> int:
        """How many bytes at the beginning of `data` belong to this body."""
        if not self._chunked:
            count = min(self._left, len(data))
            self._left -= count
            self.done = self._left == 0
            return count
        position = 0
        while position < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            end = data.find(b"\n", position) + 1
            if end == 0:
                self._line += data[position:]
                return len(data)
            self._size_line((self._line + data[position:end]).strip())
            self._line, position = b"", end
        return position

    def _size_line(self, line: bytes) -> None:
        if self._trailer:
            self.done = not line
            return
        digits = _SIZE.match(line)
        if digits is None:
            self.done = True  # aiohttp answers 400 and closes
            return
        size = int(digits[0], 16)
        self._trailer = size == 0
        self._left = size + 2 if size else 0  # a chunk ends in CRLF


class Connection(asyncio.Protocol):
    """The front protocol. `request.transport.get_protocol()` is the Connection of a request (`of(request)`)."""

    def __init__(self, http: asyncio.Protocol) -> None:
        self._http = http
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._body: Body | None = None
        self._holding = False
        self._taken = False
        self._passing = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._paused = False
        self._eof = False
        self._wake = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = asyncio.Event()

    # -- what asyncio calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._http.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._eof = True
        self.gone.set()
        self._wake.set()
        self._writable.set()
        self._http.connection_lost(error)

    def eof_received(self) -> bool | None:
        self._eof = True
        self._wake.set()
        if self._taken or self._holding:
            return True  # a half-close is the end of stdin only
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._writable.clear()
        if not self._taken:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        self._writable.set()
        if not self._taken:
            self._http.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._passing:
            self._http.data_received(data)
            return
        while data and not (self._holding or self._taken):
            data = self._feed_body(data) if self._body is not None else self._feed_head(data)
        if data:
            self._hold(data)

    # -- requests --

    def _feed_head(self, data: bytes) -> bytes:
        before = len(self._head)
        self._head += data
        end = _HEAD_END.search(self._head, max(0, before - 2))
        if end is None:
            if len(self._head) > HEAD_LIMIT:
                head, self._head = self._head, b""
                self._http.data_received(head)  # aiohttp refuses it
            return b""
        head, rest = self._head[: end.end()], self._head[end.end() :]
        self._head = b""
        body = Body(head)
        hijack = _HIJACK.match(head) is not None
        self._http.data_received(_VERSION.sub(rb"\1 \3 ", head, count=1).replace(b"\r\n", _version_line(head), 1))
        if not body.done:
            self._body, self._may_hijack = body, hijack
        else:
            self._holding = hijack
        return rest

    def _feed_body(self, data: bytes) -> bytes:
        assert self._body is not None
        count = self._body.take(data)
        if self._body.done:
            self._body = None
            self._holding = self._may_hijack
        self._http.data_received(data[:count])
        return data[count:]

    _may_hijack = False

    def _hold(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued += len(data)
        self._wake.set()
        if self._queued > HELD_LIMIT and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    # -- what a handler calls --

    def release(self) -> None:
        """The handler has answered. If it did so by ordinary HTTP, held bytes are the next request."""
        if self._taken:
            return
        self._may_hijack = False  # it may have answered before all of the body was here
        if not self._holding:
            return
        self._holding = False
        held = b"".join(self._queue)
        self._queue.clear()
        self._queued = 0
        self._resume()
        if held:
            self.data_received(held)

    def take(self) -> None:
        """From now on the connection is a raw two-way pipe: `read`, `write`, `drain`, `close`."""
        self._taken = True
        self._writable.set()

    def pass_through(self) -> None:
        """From now on bytes are no requests: aiohttp gets them as they are (it is about to speak websocket)."""
        self._passing = True

    async def read(self) -> bytes:
        """The next bytes from the client; b"" at its half-close or when it is gone."""
        while not self._queue:
            if self._eof:
                return b""
            self._wake.clear()
            await self._wake.wait()
        data = self._queue.popleft()
        self._queued -= len(data)
        self._resume()
        return data

    def _resume(self) -> None:
        if self._paused and self._queued <= HELD_LIMIT // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written; ConnectionResetError once it is gone."""
        await self._writable.wait()
        if self.gone.is_set():
            raise ConnectionResetError("the client is gone")

    def close(self) -> None:
        """Send what is left, then close."""
        if self._transport is not None:
            self._transport.close()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport


def _version_line(head: bytes) -> bytes:
    match = _VERSION.match(head)
    return b"\r\n" if match is None else b"\r\nApi-Version: " + match[2] + b"\r\n"
