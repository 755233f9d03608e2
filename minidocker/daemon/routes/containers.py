"""Containers: all of the API that answers by ordinary HTTP. What hijacks the connection is in attach.py.

Source  Docker Engine API 1.24 to 1.44: Container*.
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from minidocker.daemon import app as http
from minidocker.daemon.streams import MULTIPLEXED_STREAM, RAW_STREAM, frame, while_connected
from minidocker.engine import clock, processes
from minidocker.engine.containers import attaching
from minidocker.engine.containers.config_reader import read_create
from minidocker.engine.containers.container import Container
from minidocker.engine.containers.listing import ListQuery
from minidocker.engine.containers.updating import read_update
from minidocker.engine.logs.log_records import LogQuery
from minidocker.errors import Conflict, InvalidArgument, NotFound, Unsupported

NO_CONTENT = 204


def container_of(request: web.Request) -> Container:
    """The container that the path names."""
    return request.app[http.ENGINE].containers.get(http.path_name(request))


async def create(request: web.Request) -> web.Response:
    """POST /containers/create."""
    body = await http.read_json(request, dict[str, Any])
    wanted = read_create(body)
    wanted.read_only_below = http.api_version(request) >= (1, 44)
    if len(wanted.endpoints) > 1 and http.api_version(request) < (1, 44):
        raise InvalidArgument(f"Container cannot be connected to network endpoints: {', '.join(wanted.endpoints)}")
    name, platform = request.query.get("name", ""), request.query.get("platform", "")
    created = await request.app[http.ENGINE].creating.create(wanted, name, platform)
    return http.json_response({"Id": created.id, "Warnings": created.warnings}, 201)


async def listed(request: web.Request) -> web.Response:
    """GET /containers/json."""
    engine = request.app[http.ENGINE]
    containers, linked = engine.containers, engine.links.names()
    query = ListQuery(http.query_flag(request, "all"), http.query_int(request, "limit") or 0, http.filters_of(request))
    with_size, version = http.query_flag(request, "size"), http.api_version(request)
    documents = []
    for container in containers.select(query):
        document = containers.summary(container, version, linked)
        if with_size:
            document["SizeRw"], document["SizeRootFs"] = await containers.sizes(container)
        documents.append(document)
    return http.json_response(documents)


async def inspect(request: web.Request) -> web.Response:
    """GET /containers/{name}/json."""
    containers, container = request.app[http.ENGINE].containers, container_of(request)
    document = containers.inspect(container, http.api_version(request))
    if http.query_flag(request, "size"):
        document["SizeRw"], document["SizeRootFs"] = await containers.sizes(container)
    return http.json_response(document)


async def start(request: web.Request) -> web.Response:
    """POST /containers/{name}/start."""
    if (await request.read()).strip() not in (b"", b"null", b"{}"):
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if request.query.get("checkpoint"):
        raise InvalidArgument("checkpoints are not supported")
    await asyncio.shield(request.app[http.ENGINE].running.start(container_of(request)))
    return web.Response(status=NO_CONTENT)


def _signal(request: web.Request) -> str:
    """The signal that a stop or restart is to send; before API 1.42 it is the container's own."""
    return request.query.get("signal", "") if http.api_version(request) >= (1, 42) else ""


async def stop(request: web.Request) -> web.Response:
    """POST /containers/{name}/stop."""
    seconds, signal = http.query_int(request, "t"), _signal(request)
    await request.app[http.ENGINE].running.stop(container_of(request), seconds, signal)
    return web.Response(status=NO_CONTENT)


async def restart(request: web.Request) -> web.Response:
    """POST /containers/{name}/restart."""
    seconds, signal = http.query_int(request, "t"), _signal(request)
    await request.app[http.ENGINE].running.restart(container_of(request), seconds, signal)
    return web.Response(status=NO_CONTENT)


async def kill(request: web.Request) -> web.Response:
    """POST /containers/{name}/kill."""
    name = http.path_name(request)
    try:
        await request.app[http.ENGINE].running.kill(container_of(request), request.query.get("signal", ""))
    except (Conflict, NotFound) as error:
        raise type(error)(f"Cannot kill container: {name}: {error}") from None
    return web.Response(status=NO_CONTENT)


async def pause(request: web.Request) -> web.Response:
    await request.app[http.ENGINE].running.pause(container_of(request))
    return web.Response(status=NO_CONTENT)


async def unpause(request: web.Request) -> web.Response:
    await request.app[http.ENGINE].running.unpause(container_of(request))
    return web.Response(status=NO_CONTENT)


async def rename(request: web.Request) -> web.Response:
    name = request.query.get("name", "")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await request.app[http.ENGINE].containers.rename(container_of(request), name)
    return web.Response(status=NO_CONTENT)


async def update(request: web.Request) -> web.Response:
    """POST /containers/{name}/update."""
    wish = read_update(await http.read_json(request, dict[str, Any]))
    warnings = await request.app[http.ENGINE].updating.update(container_of(request), wish)
    return http.json_response({"Warnings": warnings or None})


async def remove(request: web.Request) -> web.Response:
    """DELETE /containers/{name}."""
    if http.query_flag(request, "link"):
        await request.app[http.ENGINE].links.remove(http.path_name(request))
        return web.Response(status=NO_CONTENT)
    force, volumes = http.query_flag(request, "force"), http.query_flag(request, "v")
    await request.app[http.ENGINE].removal.remove(container_of(request), force=force, volumes=volumes)
    return web.Response(status=NO_CONTENT)


async def nameless(request: web.Request) -> web.Response:
    """DELETE /containers/."""
    raise InvalidArgument('invalid name or ID supplied: ""')


async def prune(request: web.Request) -> web.Response:
    pruned = await request.app[http.ENGINE].removal.prune(http.filters_of(request))
    return http.json_response({"ContainersDeleted": pruned.ids or None, "SpaceReclaimed": pruned.bytes_freed})


async def wait(request: web.Request) -> web.StreamResponse:
    """POST /containers/{name}/wait: headers at once, the body at the exit. `docker run` waits before it starts."""
    container = container_of(request)
    future = request.app[http.ENGINE].running.wait(container, request.query.get("condition", ""))
    # Why the last start failed concerns only who asks afterwards: who waited for it gets the answer of the start.
    failure = container.state.error if future.done() else ""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        code = await while_connected(request, future)
    finally:
        future.cancel()
    error: dict[str, Any] = {} if http.api_version(request) >= (1, 42) else {"Error": None}
    if failure:
        error = {"Error": {"Message": failure}}
    await response.write(msgspec.json.encode({"StatusCode": code, **error}) + b"\n")
    await response.write_eof()
    return response


async def top(request: web.Request) -> web.Response:
    """GET /containers/{name}/top."""
    engine, container = request.app[http.ENGINE], container_of(request)
    if not container.state.running:
        raise Conflict(f"Container {container.id} is not running")
    pids = await asyncio.to_thread(engine.runtime.pids, container.id)
    shown = await asyncio.to_thread(processes.top, pids, request.query.get("ps_args", "-ef"))
    engine.events.emit("container", "top", container.id, container.attributes())
    return http.json_response(shown)


async def resize(request: web.Request) -> web.Response:
    """POST /containers/{name}/resize."""
    rows, columns = window_size(request)
    engine, container = request.app[http.ENGINE], container_of(request)
    if not container.state.running:
        raise Conflict(f"Container {container.id} is not running")
    await attaching.resize(lambda: engine.runtime.open_attach(container.id), rows, columns)
    attributes = container.attributes(height=str(rows), width=str(columns))
    engine.events.emit("container", "resize", container.id, attributes)
    return web.Response(status=200)


def window_size(request: web.Request) -> tuple[int, int]:
    """Rows and columns of the query."""
    found = []
    for key in ("h", "w"):
        text = request.query.get(key, "")
        if not text.isdecimal() or int(text) > 65535:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
        found.append(int(text))
    return found[0], found[1]


def log_query(request: web.Request) -> LogQuery:
    """What a logs request asks for. Raises InvalidArgument: neither stream, a bad tail or time."""
    stdout, stderr = http.query_flag(request, "stdout"), http.query_flag(request, "stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "all")
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        timestamps=http.query_flag(request, "timestamps"),
        # Docker takes anything but a number, and negative ones, for "all".
        tail=int(tail) if tail.isdecimal() else None,
        since=clock.parse_bound(request.query.get("since", "")),
        until=clock.parse_bound(request.query.get("until", "")),
        follow=http.query_flag(request, "follow"),
        details=http.query_flag(request, "details"),
    )


async def logs(request: web.Request) -> web.StreamResponse:
    """GET /containers/{name}/logs: chunked, headers at once; frames unless there is a terminal."""
    engine, query, container = request.app[http.ENGINE], log_query(request), container_of(request)
    path = container.log_path
    if path is None:
        raise Unsupported("configured logging driver does not support reading")
    if not query.follow:
        await container.say_first_words()
    tty = container.record.config.tty
    multiplexed = not tty and http.api_version(request) >= (1, 42)
    response = web.StreamResponse(headers={"Content-Type": MULTIPLEXED_STREAM if multiplexed else RAW_STREAM})
    response.enable_chunked_encoding()
    opener = (lambda: engine.runtime.open_attach(container.id)) if container.state.running else None
    entries = attaching.read_log(path, query, opener)

    async def send() -> None:
        async for batch in entries:
            await response.write(b"".join(payload if tty else frame(stream, payload) for stream, payload in batch))

    try:
        await response.prepare(request)
        await while_connected(request, send())
        await response.write_eof()
    finally:
        await entries.aclose()
    return response


def add_routes(app: web.Application) -> None:
    router = app.router
    router.add_get("/containers/json", listed, allow_head=False)
    router.add_post("/containers/create", create)
    router.add_post("/containers/prune", prune)
    router.add_get("/containers/{name:.+}/json", inspect, allow_head=False)
    router.add_get("/containers/{name:.+}/top", top, allow_head=False)
    router.add_get("/containers/{name:.+}/logs", logs, allow_head=False)
    router.add_delete("/containers/", nameless)
    router.add_delete("/containers/{name:[^/]+(?:/[^/]+)?}", remove)
    for verb, handler in (
        ("start", start),
        ("stop", stop),
        ("restart", restart),
        ("kill", kill),
        ("pause", pause),
        ("unpause", unpause),
        ("rename", rename),
        ("update", update),
        ("wait", wait),
        ("resize", resize),
    ):
        router.add_post(f"/containers/{{name:.+}}/{verb}", handler)
