"""The log of a container as messages to a syslog server.

Source  RFC 3164 (BSD syslog), RFC 5424; Docker's syslog logging driver and the formats that it writes.
Rules   - the server is reached at the start, or the container does not start; afterwards it may come and go.
        - a container never waits for the server: messages wait, up to a bound; what does not fit is counted, and the
          server is told how much is missing.
        - over TCP a message ends with a newline; what a server that breaks off has not read is lost with it, as the
          protocol has no answers. A message that was cut is sent again.
"""

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from minidocker.errors import MinidockerError
from minidocker.runtime.loop import WRITE, Loop
from minidocker.runtime.rotating_log import SyslogTarget, split

CONNECT_SECONDS = 10.0
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 2.0  # how long the end of the container may wait for the server to take the rest
_SEVERITY = {"stdout": 6, "stderr": 3}  # informational, error
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class LogUnreachable(MinidockerError):
    """The server of a log does not answer; the text is worded as Docker's."""


def message(target: SyslogTarget, stream: str, line: bytes, now_ns: int, pid: int) -> bytes:
    """One message, with a newline at its end."""
    priority = target.facility << 3 | _SEVERITY[stream]
    host, tag = target.hostname, target.tag
    now = time.localtime(now_ns // 10**9)
    if target.layout.startswith("rfc5424"):
        fraction = f".{now_ns % 10**9 // 1000:06}" if target.layout == "rfc5424micro" else ""
        offset = time.strftime("%z", now)
        zone = "Z" if now.tm_gmtoff == 0 else f"{offset[:3]}:{offset[3:]}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", now) + fraction + zone
        head = f"<{priority}>1 {stamp} {host} {tag} {pid} {tag} - "
    else:
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        place = f"{host} " if target.layout == "rfc3164" else ""
        head = f"<{priority}>{stamp} {place}{tag}[{pid}]: "
    return head.encode() + line + b"\n"


def open_socket(target: SyslogTarget, *, blocking: bool) -> socket.socket:
    """A socket that is connected, or (not blocking) on the way.

    Raises  OSError. A UNIX socket may be a stream or for datagrams.
    """
    if target.network == "unix":
        return _open_unix(target.address, blocking=blocking)
    kind = socket.SOCK_STREAM if target.network == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if ":" in target.address else socket.AF_INET, kind)
    return _connected(sock, (target.address, target.port), blocking=blocking)


def _open_unix(path: str, *, blocking: bool) -> socket.socket:
    try:
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path, blocking=blocking)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), path, blocking=blocking)


def _connected(sock: socket.socket, address: tuple[str, int] | str, *, blocking: bool) -> socket.socket:
    try:
        sock.settimeout(CONNECT_SECONDS if blocking else 0)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS) or (code and blocking):
            raise OSError(code, os.strerror(code))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Syslog:
    """The open log.

    loop    the monitor's; tests may look at `connected`.
    Raises  LogUnreachable: nobody answers there.
    """

    def __init__(self, target: SyslogTarget, loop: Loop, clock: Callable[[], int] = time.time_ns) -> None:
        self._target, self._loop, self._clock = target, loop, clock
        self._pending: dict[str, bytes] = {}
        self._queue: deque[bytes] = deque()
        self._queued = 0  # bytes
        self._sent = 0  # bytes of the first message
        self._missing = 0  # messages that were dropped since the server was last told
        self.lost = 0
        try:
            self._socket: socket.socket | None = open_socket(target, blocking=True)
        except OSError as error:
            reason = "i/o timeout" if isinstance(error, TimeoutError) else os.strerror(error.errno or 0).lower()
            where = target.address if target.network == "unix" else _with_port(target.address, target.port)
            raise LogUnreachable(f"dial {target.network} {where}: connect: {reason}") from None

    @property
    def connected(self) -> bool:
        """False while the server is away."""
        return self._socket is not None

    def write(self, stream: str, chunk: bytes) -> None:
        """See `Log`."""
        entries, self._pending[stream] = split(self._pending.get(stream, b"") + chunk)
        self._add(stream, entries)

    def close(self) -> None:
        """See `Log`; the server has CLOSE_SECONDS to take what waits."""
        for stream, rest in self._pending.items():
            self._add(stream, [rest])
        end = time.monotonic() + CLOSE_SECONDS
        while self._queue and self._socket is not None and (left := end - time.monotonic()) > 0:
            select.select([], [self._socket], [], left)
            self._flush(0)
        self.lost += len(self._queue)
        self._disconnect(retry=False)

    def _add(self, stream: str, entries: list[bytes]) -> None:
        now = self._clock()
        for entry in entries:
            line = entry.removesuffix(b"\n")
            if line:  # an empty line is no message, as in Docker
                self._enqueue(message(self._target, stream, line, now, os.getpid()))
        self._flush(0)

    def _enqueue(self, content: bytes) -> None:
        if self._queued + len(content) > self._target.buffer_bytes:
            self.lost += 1
            self._missing += 1
            return
        self._queue.append(content)
        self._queued += len(content)

    def _flush(self, _events: int) -> None:
        """Send what the server takes now."""
        while self._socket is not None and self._queue:
            content = self._queue[0]
            try:
                self._sent += self._socket.send(content[self._sent :], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ECONNREFUSED and self._target.network == "udp":
                    continue  # told of an earlier datagram; this one was not sent yet
                self._disconnect(retry=True)
                return
            if self._sent == len(content):
                self._queue.popleft()
                self._queued -= len(content)
                self._sent = 0
            if not self._queue and self._missing:
                words = f"{self._missing} lines of this log were lost while nobody took them"
                self._missing = 0
                self._enqueue(message(self._target, "stderr", words.encode(), self._clock(), os.getpid()))
        if self._socket is not None:
            self._loop.watch(self._socket.fileno(), WRITE if self._queue else 0, self._flush)

    def _disconnect(self, *, retry: bool) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
        self._socket, self._sent = None, 0
        self._loop.alarm(self, RETRY_SECONDS if retry else None, self._connect)

    def _connect(self) -> None:
        try:
            self._socket = open_socket(self._target, blocking=False)
        except OSError:
            self._disconnect(retry=True)
            return
        self._loop.watch(self._socket.fileno(), WRITE, self._flush)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
