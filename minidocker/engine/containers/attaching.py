"""The engine's side of a monitor's attach socket, and following a log.

Source  the attach protocol of runtime/monitor: one line of JSON asks, one line answers, then bytes.
Rules   - sockets are non-blocking and belong to the caller once returned.
        - a follower asks for the watch connection first and reads the log second, so nothing falls between.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from minidocker import typed
from minidocker.engine.logs.log_records import Entry, LogQuery
from minidocker.engine.logs.logs import LogReader
from minidocker.errors import Conflict, MinidockerError, NotFound, Unavailable

ANSWER_LIMIT = 4096
BATCH = 256
NEWS_FILES = 64


class _Answer(msgspec.Struct):
    ok: bool = False
    tty: bool = False
    error: str = ""


async def _ask(open_socket: Callable[[], socket.socket], request: dict[str, object]) -> socket.socket:
    """Connect, send one request, check the answer. The socket is returned ready for bytes."""
    loop = asyncio.get_running_loop()
    try:
        sock = await asyncio.to_thread(open_socket)
    except (OSError, NotFound) as error:
        raise Conflict(f"the process is gone: {error}") from error
    try:
        sock.setblocking(False)
        await loop.sock_sendall(sock, msgspec.json.encode(request) + b"\n")
        answer = await _line(sock)
        if not answer.ok:
            raise MinidockerError(answer.error or "the monitor refused the request")
    except BaseException as error:
        sock.close()
        if isinstance(error, ConnectionError):
            raise Conflict("the process is gone") from error
        raise
    return sock


async def _line(sock: socket.socket) -> _Answer:
    """The answer line, read byte by byte so that none of the stream behind it is taken."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        byte = await loop.sock_recv(sock, 1)
        if not byte or len(line) > ANSWER_LIMIT:
            raise Unavailable("the container's monitor did not answer")
        line += byte
    return typed.decode(line, _Answer)


async def open_stream(
    open_socket: Callable[[], socket.socket], *, stdin: bool, stdout: bool, stderr: bool
) -> socket.socket:
    """A two-way stream with a process: frames (raw bytes with a terminal) come, stdin goes."""
    return await _ask(open_socket, wish_of(stdin=stdin, stdout=stdout, stderr=stderr))


@dataclass(slots=True)
class AttachWaiter:
    """One who attached to a container that does not run yet. The future's None: it will never run."""

    wish: dict[str, object]
    future: "asyncio.Future[socket.socket | None]"


def wish_of(*, stdin: bool, stdout: bool, stderr: bool) -> dict[str, object]:
    """What an attach asks the monitor."""
    return {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr}


def connect_waiters(open_socket: Callable[[], socket.socket], waiters: list[AttachWaiter]) -> None:
    """In a starting thread, after the monitor listens and before the command runs: join all who wait.

    So they get the output from its first byte.
    """
    for waiter in list(waiters):
        if waiter.future.done():
            continue
        sock = open_socket()
        try:
            sock.sendall(msgspec.json.encode(waiter.wish) + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                byte = sock.recv(1)
                if not byte:
                    raise Unavailable("the container's monitor did not answer")
                line += byte
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        waiter.future.get_loop().call_soon_threadsafe(deliver, waiters, waiter, sock)


def deliver(waiters: list[AttachWaiter], waiter: AttachWaiter, sock: socket.socket | None) -> None:
    """On the loop: hand a waiter its stream."""
    if waiter in waiters:
        waiters.remove(waiter)
    if not waiter.future.done():
        waiter.future.set_result(sock)
    elif sock is not None:
        sock.close()


async def resize(open_socket: Callable[[], socket.socket], rows: int, columns: int) -> None:
    """Set the size of a process's terminal."""
    (await _ask(open_socket, {"op": "resize", "rows": rows, "columns": columns})).close()


@dataclass(slots=True)
class News:
    """What a watch connection told: the files that the log goes on in (None: some were missed here), and its end."""

    files: list[int | None] = field(default_factory=list)
    ended: bool = False


class Watch:
    """A connection on which the monitor tells of each log write and rotation. Close it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def news(self) -> News:
        """What has come, without waiting; no more than NEWS_FILES at once. The files are the caller's."""
        found = News()
        while not found.ended and len(found.files) < NEWS_FILES:
            try:
                words, files, _, _ = socket.recv_fds(self._socket, 4096, 8, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            except ConnectionError:
                words, files = b"", []
            found.files += [None] if b"m" in words else []
            found.files += files
            found.ended = not words
        return found

    async def wait(self) -> None:
        """Return when there is news."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._socket, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(self._socket)

    def close(self) -> None:
        for fd in self.news().files:
            if fd is not None:
                os.close(fd)
        self._socket.close()


async def watch(open_socket: Callable[[], socket.socket]) -> Watch | None:
    """Watch a process's log; None: it is gone, nothing will be written."""
    try:
        return Watch(await _ask(open_socket, {"op": "watch"}))
    except (Conflict, Unavailable):
        return None


async def _batches(entries: Iterator[Entry]) -> AsyncGenerator[list[Entry], None]:
    while batch := await asyncio.to_thread(lambda: list(islice(entries, BATCH))):
        yield batch


async def read_log(
    path: Path, query: LogQuery, open_socket: Callable[[], socket.socket] | None
) -> AsyncGenerator[list[Entry], None]:
    """The log's entries in batches: those that are there, then new ones until the output ends.

    open_socket  connects to the attach socket of a running container; None: nothing new will come.
    """
    watching = await watch(open_socket) if query.follow and open_socket is not None else None
    reader = LogReader(path, query)
    news = News()
    try:
        await asyncio.to_thread(reader.__enter__)
        if watching is not None:
            news = watching.news()
            reader.hand(news.files)
        async for batch in _batches(reader.present()):
            yield batch
        while watching is not None and not reader.finished:
            if not news.ended:
                await watching.wait()
                news = watching.news()
                reader.hand(news.files)
            async for batch in _batches(reader.more()):
                yield batch
            if news.ended:
                return
    finally:
        reader.__exit__()
        if watching is not None:
            watching.close()
