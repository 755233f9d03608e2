"""Pipes between a request and the worker that reads or writes its archive: bounded memory, no thread that waits.

Source  pipe(7), fcntl(2) F_SETPIPE_SZ.
Rules   - only this end is non-blocking: the flag belongs to an end, not to the pipe.
        - a client that stops reading stops the worker, and nobody else.
        - whoever is done with a pipe closes its end: the other side sees the end of the file, or EPIPE.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from minidocker.daemon.streams import Hijacked, connection_of
from minidocker.registry.client import outlast

PIPE_BYTES = 1 << 20


def _pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # pipe-user-pages-soft was reached: the usual 64 KiB do as well
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


async def _ready(add: Callable[..., object], remove: Callable[[int], object], fd: int) -> None:
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not waiting.done():
            waiting.set_result(None)

    add(fd, tell)
    try:
        await waiting
    finally:
        remove(fd)


async def pieces(read_end: int) -> AsyncIterator[bytes]:
    """What comes out of a pipe, until all its writers have closed it."""
    loop = asyncio.get_running_loop()
    os.set_blocking(read_end, False)
    while True:
        try:
            piece = os.read(read_end, PIPE_BYTES)
        except BlockingIOError:
            await _ready(loop.add_reader, loop.remove_reader, read_end)
            continue
        if not piece:
            return
        yield piece


async def write_all(write_end: int, content: bytes) -> None:
    """Put `content` into a pipe. Raises BrokenPipeError: nobody reads it any more."""
    loop = asyncio.get_running_loop()
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(write_end, view) :]
        except BlockingIOError:
            await _ready(loop.add_writer, loop.remove_writer, write_end)


async def answer(
    request: web.Request, headers: dict[str, str], work: Callable[[int], Awaitable[object]]
) -> web.StreamResponse:
    """Send what `work` writes into the descriptor that it is given, as a chunked body.

    The head waits for the first bytes, so that a failure before them has a status; one after them cuts the connection,
    which the client sees as a body without its end.
    """
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    read_end, write_end = _pipe()

    async def produce() -> None:
        try:
            await work(write_end)
        finally:
            os.close(write_end)

    producing = asyncio.ensure_future(produce())
    try:
        async for piece in pieces(read_end):
            if not response.prepared:
                await response.prepare(request)
            await response.write(piece)
        await producing
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
    except (OSError, RuntimeError):
        if not response.prepared:
            raise
        connection_of(request).transport.abort()
        return Hijacked()
    finally:
        os.close(read_end)  # the worker gets EPIPE, if it still writes
        await outlast(producing)
    return response


async def receive(request: web.Request, work: Callable[[int], Awaitable[object]]) -> None:
    """Give the request's body to `work`, by a descriptor that it reads from; returns when `work` is done with it."""
    read_end, write_end = _pipe()
    os.set_blocking(write_end, False)

    async def feed() -> None:
        try:
            async for piece in request.content.iter_any():
                await write_all(write_end, piece)
        except BrokenPipeError:
            pass  # it has read all that it wants
        finally:
            os.close(write_end)

    feeding = asyncio.ensure_future(feed())
    working = asyncio.ensure_future(work(read_end))
    try:
        await asyncio.shield(working)
    finally:
        feeding.cancel()  # what is still in the pipe is read first, then comes its end
        await outlast(working)
        os.close(read_end)
        await asyncio.gather(feeding, return_exceptions=True)
