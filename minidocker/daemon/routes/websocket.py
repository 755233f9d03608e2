"""Attach by websocket: a container's stdio in messages, for clients that cannot take a connection over.

Source  Docker Engine API 1.24 to 1.44: ContainerAttachWebsocket; RFC 6455.
Rules   - output goes out as binary messages without frames: stdout and stderr are one stream, as in dockerd.
        - a browser lets any page open a websocket to this host and says whose page it is; only this host's are let in.
        - before API 1.42 all of stdin, stdout and stderr are attached, whatever the query says.
"""

import asyncio
import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp import WSMsgType, hdrs, web

from minidocker.daemon import app as http
from minidocker.daemon import streams
from minidocker.daemon.routes.containers import container_of
from minidocker.daemon.streams import READ_BYTES, Deframer, DetachScanner
from minidocker.engine.containers import attaching
from minidocker.engine.containers.container import Container
from minidocker.engine.logs.log_records import LogQuery
from minidocker.errors import Conflict, Forbidden, InvalidArgument

_MESSAGE_LIMIT = 1 << 20
_STREAMS = ("stdin", "stdout", "stderr")


def check_origin(request: web.Request) -> None:
    """Raises Forbidden: a page of another host asks."""
    origin = request.headers.get(hdrs.ORIGIN, "")
    if not origin:
        return  # no browser
    name = urlsplit(origin).hostname or ""
    own = urlsplit(f"//{request.headers.get(hdrs.HOST, '')}").hostname
    if name in ("localhost", own):
        return
    try:
        if ipaddress.ip_address(name).is_loopback:
            return
    except ValueError:
        pass
    raise Forbidden(f"a websocket for a page of {origin[:200]} is refused")


def _wish(request: web.Request) -> dict[str, bool]:
    if http.api_version(request) < (1, 42):
        return dict.fromkeys(_STREAMS, True)
    return {name: http.query_flag(request, name) for name in _STREAMS}


async def attach(request: web.Request) -> web.StreamResponse:
    """GET /containers/{name}/attach/ws."""
    engine, container, wish = request.app[http.ENGINE], container_of(request), _wish(request)
    check_origin(request)
    response = web.WebSocketResponse(max_msg_size=_MESSAGE_LIMIT)
    if not response.can_prepare(request):
        raise InvalidArgument("not websocket protocol")
    if container.state.status == "paused":
        raise Conflict(f"Container {container.name} is paused, unpause the container before attach.")
    if container.state.status == "restarting":
        raise Conflict(f"Container {container.name} is restarting, wait until the container is running")
    config = container.record.config
    keys = streams.parse_detach_keys(request.query.get("detachKeys", ""))
    wish["stdin"] = wish["stdin"] and config.open_stdin
    joined = engine.running.attach(container, **wish) if http.query_flag(request, "stream") else None
    try:
        streams.connection_of(request).pass_through()
        await response.prepare(request)
        engine.events.emit("container", "attach", container.id, container.attributes())
        if http.query_flag(request, "logs") and container.log_path is not None:
            await _send_log(response, container, LogQuery(stdout=wish["stdout"], stderr=wish["stderr"]))
        monitor = await streams.while_connected(request, joined) if joined is not None else None
        if monitor is not None:
            scanner = DetachScanner(keys) if config.tty and wish["stdin"] else None
            if await _Pump(response, monitor, stdin=wish["stdin"], scanner=scanner, framed=not config.tty).run():
                engine.events.emit("container", "detach", container.id, container.attributes())
        await response.close()
    finally:
        if joined is not None:
            joined.cancel()
    return response


async def _send_log(response: web.WebSocketResponse, container: Container, query: LogQuery) -> None:
    assert container.log_path is not None
    async for batch in attaching.read_log(container.log_path, query, None):
        await response.send_bytes(b"".join(payload for _, payload in batch))


class _Pump:
    """Joins a websocket with a monitor's attach socket until one of them ends."""

    def __init__(
        self,
        response: web.WebSocketResponse,
        monitor: socket.socket,
        *,
        stdin: bool,
        scanner: DetachScanner | None,
        framed: bool,
    ) -> None:
        self._response = response
        self._monitor = monitor
        self._stdin = stdin
        self._scanner = scanner
        self._deframer = Deframer() if framed else None

    async def run(self) -> bool:
        """Move bytes. True when the detach keys were typed."""
        output, typed = asyncio.ensure_future(self._output()), asyncio.ensure_future(self._input())
        try:
            await asyncio.wait({output, typed}, return_when=asyncio.FIRST_COMPLETED)
            return typed.done() and typed.exception() is None and typed.result()
        finally:
            for task in (output, typed):
                task.cancel()
            await asyncio.gather(output, typed, return_exceptions=True)
            with contextlib.suppress(OSError):
                self._monitor.shutdown(socket.SHUT_WR)
            self._monitor.close()

    async def _output(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(self._monitor, READ_BYTES):
                if self._deframer is not None:
                    data = b"".join(payload for _, payload in self._deframer.feed(data))
                if data:
                    await self._response.send_bytes(data)

    async def _input(self) -> bool:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            async for message in self._response:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                data = message.data.encode() if message.type == WSMsgType.TEXT else message.data
                passed, detached = self._scanner.feed(data) if self._scanner else (data, False)
                if self._stdin and passed:
                    await loop.sock_sendall(self._monitor, passed)
                if detached:
                    return True
        return False


def add_routes(app: web.Application) -> None:
    app.router.add_get("/containers/{name:.+}/attach/ws", attach, allow_head=False)
