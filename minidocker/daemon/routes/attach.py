"""Attach and exec start: the calls that turn a connection into a process's stdio.

Source  Docker Engine API 1.44: ContainerAttach, ExecStart; notes on real clients in streams.py.
Rules   - all that can be refused is refused before the connection is taken over: the client reads an ordinary error.
        - the head goes out first, so that `docker run` may start the container; output follows when it comes.
        - an exec's ExitCode is final before its stream closes.
"""

import asyncio

from aiohttp import web

from minidocker import typed
from minidocker.daemon import app as http
from minidocker.daemon import streams
from minidocker.daemon.routes.containers import container_of
from minidocker.daemon.streams import MULTIPLEXED_STREAM, RAW_STREAM, Connection, Hijacked, Pump, frame
from minidocker.engine.containers import attaching
from minidocker.engine.containers.container import Container
from minidocker.engine.containers.execs import Exec, check_runs, failure_text
from minidocker.engine.logs.log_records import LogQuery
from minidocker.errors import Conflict, InvalidArgument, MinidockerError


def content_type(request: web.Request, *, tty: bool) -> str:
    """From API 1.42 the type tells whether there are frames; before it, clients ask."""
    return MULTIPLEXED_STREAM if not tty and http.api_version(request) >= (1, 42) else RAW_STREAM


async def attach(request: web.Request) -> web.StreamResponse:
    """POST /containers/{name}/attach. A failure is told in plain text, as by Docker: it had taken the connection."""
    try:
        return await _attach(request)
    except MinidockerError as error:
        return web.Response(body=f"{error}\r\n".encode(), status=http.status_of(error), content_type=RAW_STREAM)


async def _attach(request: web.Request) -> web.StreamResponse:
    engine, container = request.app[http.ENGINE], container_of(request)
    await request.read()
    config = container.record.config
    keys = streams.parse_detach_keys(request.query.get("detachKeys", ""))
    flags = {name: http.query_flag(request, name) for name in ("stdin", "stdout", "stderr", "stream", "logs")}
    if container.state.status == "paused":
        raise Conflict(f"Container {container.name} is paused, unpause the container before attach.")
    if container.state.status == "restarting":
        raise Conflict(f"Container {container.name} is restarting, wait until the container is running")
    query = LogQuery(stdout=flags["stdout"], stderr=flags["stderr"]) if flags["logs"] else None
    stdin = flags["stdin"] and config.open_stdin
    joined = None
    if flags["stream"]:
        joined = engine.running.attach(container, stdin=stdin, stdout=flags["stdout"], stderr=flags["stderr"])
    connection = streams.hijack(request, content_type(request, tty=config.tty))
    engine.events.emit("container", "attach", container.id, container.attributes())
    try:
        if query is not None and container.log_path is not None:
            await _send_log(connection, container, query)
        monitor = await streams.while_connected(request, joined) if joined is not None else None
        if monitor is not None:
            pump = Pump(connection, monitor, stdin=stdin, detach=keys if config.tty and stdin else None)
            if await pump.run():
                engine.events.emit("container", "detach", container.id, container.attributes())
    except ConnectionError:
        pass
    finally:
        if joined is not None:
            joined.cancel()
        connection.close()
    return Hijacked()


async def _send_log(connection: Connection, container: Container, query: LogQuery) -> None:
    assert container.log_path is not None
    await streams.head_taken(connection)
    async for batch in attaching.read_log(container.log_path, query, None):
        for stream, payload in batch:
            connection.write(payload if container.record.config.tty else frame(stream, payload))
        await connection.drain()


async def exec_start(request: web.Request) -> web.StreamResponse:
    """POST /exec/{id}/start."""
    engine = request.app[http.ENGINE]
    raw = await http.read_json(request, object, default={})  # "null" comes too
    body = typed.named(raw, ("Detach", "Tty", "ConsoleSize")) if isinstance(raw, dict) else {}
    execution = engine.execs.get(request.match_info["id"])
    detach, tty = body.get("Detach") is True, body.get("Tty") is True
    size = _size(body.get("ConsoleSize"))
    keys = streams.parse_detach_keys(execution.config.detach_keys)
    check_runs(execution.container)
    if detach:
        await engine.execs.start(execution, attach=False, size=size)
        return web.Response(status=200)
    connection = streams.hijack(request, content_type(request, tty=tty))
    try:
        await _run_exec(request, connection, execution, tty=tty, keys=keys, size=size)
    except ConnectionError:
        pass
    finally:
        connection.close()
    return Hijacked()


def _size(value: object) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and 0 <= n < 65536 for n in value):
        return value[0], value[1]
    if value is not None:
        raise InvalidArgument("invalid ConsoleSize: expected [height, width]")
    return None


async def _run_exec(
    request: web.Request,
    connection: Connection,
    execution: Exec,
    *,
    tty: bool,
    keys: bytes,
    size: tuple[int, int] | None,
) -> None:
    engine, config = request.app[http.ENGINE], execution.config
    try:
        monitor = await engine.execs.start(execution, attach=True, size=size)
    except MinidockerError as error:
        text = f"{failure_text(error)}\r\n".encode()
        await streams.head_taken(connection)
        connection.write(text if tty else frame(streams.STDOUT, text))
        return
    assert monitor is not None
    convert = None if tty == config.tty else streams.detty() if tty else streams.untty
    pump = Pump(
        connection, monitor, stdin=config.attach_stdin, detach=keys if config.tty and config.attach_stdin else None,
        convert=convert,
    )  # fmt: skip
    if await pump.run():
        container = execution.container
        engine.events.emit("container", "exec_detach", container.id, container.attributes(execID=execution.id))
    elif not connection.gone.is_set():
        gone = asyncio.ensure_future(connection.gone.wait())
        finished = asyncio.ensure_future(execution.finished.wait())
        await asyncio.wait({gone, finished}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        finished.cancel()


def add_routes(app: web.Application) -> None:
    app.router.add_post("/containers/{name:.+}/attach", attach)
    app.router.add_post("/exec/{id}/start", exec_start)
