"""The wires of a sandboxed kernel: it has a network of its own, and Jupyter speaks TCP with it all the same.

Source  Jupyter's "Messaging in Jupyter" (connection files, transports "tcp" and "ipc"); network_namespaces(7), unix(7).
Rules   - a UNIX socket is found by its path, whatever network one is in: so the kernel listens at such, and the guard
          outside carries the bytes from the ports that Jupyter has chosen.
        - a socket belongs to the network that it was made in: the kernel makes one that listens inside, the guard,
          which has been handed it, answers from outside.
"""

import asyncio
import contextlib
import errno
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from minidocker.linux import process
from minidocker.runtime.sync import Channel

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
PORTS_TIMEOUT_SECONDS = 10.0  # after a restart the guard before us may need a moment to let go of the ports
KERNEL_TIMEOUT_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.02
CHUNK_BYTES = 1 << 16

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def listen(connection: Mapping[str, Any]) -> dict[int, socket.socket]:
    """Take the ports of a connection file: number of the wire -> listening socket; none if Jupyter uses files itself.

    Raises  OSError: a port is taken by somebody else.
    """
    if connection["transport"] != "tcp":
        return {}
    return {number: _listen_at(connection["ip"], connection[f"{name}_port"]) for number, name in enumerate(CHANNELS, 1)}


def _listen_at(address: str, port: int) -> socket.socket:
    deadline = time.monotonic() + PORTS_TIMEOUT_SECONDS
    while True:
        try:
            return socket.create_server((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(LOOK_AGAIN_SECONDS)


def through_files(connection: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The connection file for the kernel itself: UNIX sockets in `place`, named wire-1 to wire-5."""
    if connection["transport"] != "tcp":
        return dict(connection)
    ports = {f"{name}_port": number for number, name in enumerate(CHANNELS, 1)}
    return {**connection, "transport": "ipc", "ip": str(place / "wire"), **ports}


async def serve(
    wires: Mapping[socket.socket, str],
    inner: socket.socket | None,
    outside: tuple[str, int],
    front: Channel,
    kernel: int,
    watched: tuple[int, ...],
) -> None:
    """Carry bytes until the kernel has ended, or one of `watched` (pidfds).

    wires    listening socket outside -> path of the kernel's socket
    inner    a socket that listens inside, for `outside`, an address out here
    front    whose "interrupt" is passed on to the kernel as SIGINT
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for pidfd in (kernel, *watched):
        loop.add_reader(pidfd, over.set)
    loop.add_reader(front.fileno(), _pass_on, front, kernel, over)
    servers = [await asyncio.start_server(_carrier(_to_file(path)), sock=listener) for listener, path in wires.items()]
    if inner is not None:
        servers.append(await asyncio.start_server(_carrier(_to_port(outside)), sock=inner))
    await over.wait()
    for server in servers:
        server.close()


def _pass_on(front: Channel, kernel: int, over: asyncio.Event) -> None:
    message, _ = front.receive()
    if message is None:
        over.set()
    elif message.kind == "interrupt":
        with contextlib.suppress(OSError):
            process.pidfd_send(kernel, signal.SIGINT)


def _to_file(path: str) -> Connect:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = time.monotonic() + KERNEL_TIMEOUT_SECONDS
        while True:  # Jupyter knocks before the kernel is up
            try:
                return await asyncio.open_unix_connection(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    return connect


def _to_port(address: tuple[str, int]) -> Connect:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*address)

    return connect


def _carrier(connect: Connect) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await connect()
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        except (OSError, asyncio.CancelledError):  # cancelled: the kernel has ended
            writer.close()

    return carry


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()
