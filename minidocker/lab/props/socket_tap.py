"""A tap in front of a daemon's socket: passes every byte on, and writes down the requests and answers that it sees.

Source  RFC 9112 (where a message ends); Docker Engine API, "attach" (hijacking); unix(7).
Rules   - it listens on a UNIX socket that only root may open, in threads of the notebook's kernel: it ends with that.
        - bytes go on as they came. What is written down is read from them on the way, so any client can be watched.
        - after 101, or an answer that only the end of the connection ends, bytes are counted and not read.

    client ──tap.url──> one thread for each direction ──upstream──> daemon
                              └─ Exchange: request, answer, and after which request the answer ended
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from minidocker.lab.diagrams.requests import Request

KEPT_BYTES = 65536
_READ_BYTES = 65536
_SWITCHING, _NO_BODY = 101, (204, 304)


@dataclass(slots=True)
class Half:
    """A request or an answer as it went over the wire: first line, fields (lower-case names), and its body.

    size  bytes of the body so far, without what chunks add. body: the first of them, at most KEPT_BYTES.
    """

    line: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    size: int = 0


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    number       from 1.
    ended_after  how many had begun when the answer ended; None: it has not ended.
    began, answered, ended  when the request's head, the answer's head and its end were seen here, on their way, in
                            seconds since the epoch; None: not yet.
    """

    number: int
    request: Half
    answer: Half = field(default_factory=Half)
    ended_after: int | None = None
    began: float = field(default_factory=time.time)
    answered: float | None = None
    ended: float | None = None

    @property
    def method(self) -> str:
        """The request's first word."""
        return self.request.line.partition(" ")[0]

    @property
    def path(self) -> str:
        """What the request is about, with its query."""
        return self.request.line.split(" ")[1]

    @property
    def status(self) -> int:
        """Of the answer; 0: there is none yet."""
        return int(self.answer.line.split(" ")[1]) if self.answer.line else 0

    @property
    def hijacked(self) -> bool:
        """Whether the connection has become a pipe."""
        return self.status == _SWITCHING

    @property
    def note(self) -> str:
        """What the status does not say: when the answer ended, if others came in between."""
        if self.ended_after is None:
            return "the answer has not ended" if self.answer.line else ""
        return f"the answer ends after request {self.ended_after}" if self.ended_after > self.number else ""


class _Reader:
    """Cuts one direction of a connection into heads and bodies, as its bytes come."""

    def __init__(self, begun: Callable[[Half], int | None], ended: Callable[[], None]) -> None:
        """begun  told of each head; how long its body is: bytes, -1 chunked, None until the end of the connection."""
        self._begun, self._ended = begun, ended
        self._held = b""
        self._half = Half()
        self._left: int | None = 0  # of the body, or of its present chunk
        self._chunked = self._in_body = False

    def abandon(self) -> None:
        """What comes next is a head: the daemon did not agree to a hijack."""
        self._in_body = self._chunked = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._held += piece
        while self._held and self._step():
            pass

    def _step(self) -> bool:
        """One head, piece of a body or chunk's line; False: more bytes are needed."""
        if not self._in_body:
            return self._head()
        if self._chunked and self._left == 0:
            return self._chunk_line()
        taken = len(self._held) if self._left is None else min(self._left, len(self._held))
        self._take(taken)
        if self._left is not None:
            self._left -= taken
            if self._left == 0 and not self._chunked:
                self._end()
        return True

    def _head(self) -> bool:
        head, found, rest = self._held.partition(b"\r\n\r\n")
        if not found:
            return False
        self._held = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        self._half = Half(first, {name.lower(): value.strip() for name, _, value in pairs})
        length = self._begun(self._half)
        self._chunked, self._left, self._in_body = length == -1, 0 if length == -1 else length, True
        if self._left == 0 and not self._chunked:
            self._end()
        return True

    def _chunk_line(self) -> bool:
        line, found, rest = self._held.partition(b"\r\n")
        if not found:
            return False
        self._held = rest
        if not line:  # the end of the chunk before, or of the last one
            if self._last:
                self._end()
            return True
        if self._last:  # a trailer
            return True
        self._left = int(line.split(b";")[0], 16)
        self._last = self._left == 0
        return True

    _last = False

    def _take(self, count: int) -> None:
        piece, self._held = self._held[:count], self._held[count:]
        self._half.size += count
        self._half.body += piece[: max(0, KEPT_BYTES - len(self._half.body))]

    def _end(self) -> None:
        self._in_body = self._last = False
        self._ended()


class _Wire:
    """One connection of a client, and the tap's own to the daemon behind it."""

    def __init__(self, tap: "SocketTap", client: socket.socket) -> None:
        self._tap, self._client = tap, client
        self._daemon = socket.socket(socket.AF_UNIX)
        self._daemon.connect(tap.upstream)
        self._asked: deque[Exchange] = deque()  # not answered yet
        self._now: Exchange | None = None  # the one whose answer comes
        self._requests, answers = _Reader(self._request, lambda: None), _Reader(self._answer, self._answered)
        for source, target, reader in ((client, self._daemon, self._requests), (self._daemon, client, answers)):
            threading.Thread(target=self._pass_on, args=(source, target, reader), name="tap", daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, reader: _Reader) -> None:
        with contextlib.suppress(OSError):  # either side may go as it likes
            while piece := source.recv(_READ_BYTES):
                reader.feed(piece)
                target.sendall(piece)
        if source is self._daemon:
            self._answered()  # before the client learns that it has ended
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)  # a half-close is the end of a command's input
        if source is self._daemon:
            self.close()

    def _request(self, half: Half) -> int | None:
        exchange = self._tap.begin(half)
        self._asked.append(exchange)
        # After an upgrade and its body nothing is a request any more, if the daemon agrees.
        return None if "upgrade" in half.fields and not _length(half, 0) else _length(half, 0)

    def _answer(self, half: Half) -> int | None:
        status = int(half.line.split(" ")[1])
        if not self._asked or (100 <= status < 200 and status != _SWITCHING):
            return 0
        self._now = self._asked.popleft()
        self._now.answer, self._now.answered = half, time.time()
        self._tap.changed()
        if "upgrade" in self._now.request.fields and status != _SWITCHING:
            self._requests.abandon()
        if self._now.method == "HEAD" or status in _NO_BODY:
            return 0
        return None if status == _SWITCHING else _length(half, None)

    def _answered(self) -> None:
        if self._now is not None and self._now.ended_after is None:
            self._tap.end(self._now)

    def close(self) -> None:
        """Let go of both."""
        for each in (self._client, self._daemon):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _length(half: Half, otherwise: int | None) -> int | None:
    if "chunked" in half.fields.get("transfer-encoding", ""):
        return -1
    return int(half.fields["content-length"]) if "content-length" in half.fields else otherwise


class SocketTap:
    """A socket before a daemon's. `url` is what clients use, `exchanges` what it has seen; `close()` it.

    listener  called, in the tap's threads, whenever something was written down.
    """

    def __init__(self, upstream: str, path: Path) -> None:
        """upstream  the daemon: "unix:///its/socket". path: where the tap listens; it must not exist yet."""
        self.upstream, self.path = upstream.removeprefix("unix://"), path
        self.exchanges: list[Exchange] = []
        self.listener: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._wires: list[_Wire] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        path.chmod(0o600)  # before listen: who may connect here is root on this machine
        self._door.listen(64)
        threading.Thread(target=self._serve, name="tap", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens, as `minidocker -H` and `connect` take it."""
        return f"unix://{self.path}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = self._door.accept()
                try:
                    self._wires.append(_Wire(self, client))
                except OSError:  # the daemon is not there
                    client.close()

    def begin(self, request: Half) -> Exchange:
        """Called by a wire's thread: a request was seen."""
        with self._lock:
            exchange = Exchange(len(self.exchanges) + 1, request)
            self.exchanges.append(exchange)
        self.changed()
        return exchange

    def end(self, exchange: Exchange) -> None:
        """Called by a wire's thread: all of the answer was seen."""
        with self._lock:
            exchange.ended_after, exchange.ended = len(self.exchanges), time.time()
        self.changed()

    def changed(self) -> None:
        """Tell the listener; if it fails, bytes pass all the same."""
        with contextlib.suppress(Exception):
            self.listener()

    def take(self) -> list[Exchange]:
        """What was seen since the last time, in order; the numbers begin again at 1."""
        with self._lock:
            taken, self.exchanges = self.exchanges, []
        return taken

    def close(self) -> None:
        """Stop listening, and end what is connected."""
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._door.close()
        for wire in self._wires:
            wire.close()
        self.path.unlink(missing_ok=True)


def as_requests(
    exchanges: list[Exchange], sender: str = "client", receiver: str = "daemon", *, queries: bool = True
) -> list[Request]:
    """The exchanges as a sequence chart takes them. queries: with what stands behind the `?` of a path."""
    return [
        Request(
            sender, receiver, one.method, one.path if queries else one.path.partition("?")[0], one.status,
            one.request.size, one.answer.size, one.note, one.began, one.answered, one.ended,
        )
        for one in exchanges
    ]  # fmt: skip
