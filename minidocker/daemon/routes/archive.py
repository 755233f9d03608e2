"""A container's files: copy out and in, export, changes, commit.

Source  Docker Engine API 1.44: ContainerArchive, ContainerArchiveInfo, PutContainerArchive, ContainerExport,
        ContainerChanges, ImageCommit.
Rules   - archives are streamed both ways; neither memory nor a thread waits for a slow client.
        - a client that goes away ends the worker's task.
"""

import base64
from functools import partial

import msgspec
from aiohttp import web

from minidocker import typed
from minidocker.build import changes as configuration_changes
from minidocker.daemon import app as http
from minidocker.daemon import pipes
from minidocker.daemon.routes.containers import container_of
from minidocker.daemon.streams import while_connected
from minidocker.engine.images import commit as committing
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig
from minidocker.storage.copying import PathStat

STAT_HEADER = "X-Docker-Container-Path-Stat"
_ARCHIVE = "application/x-tar"


def _path_of(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path holds a NUL byte")
    return path


def _stat_header(stat: PathStat) -> str:
    return base64.b64encode(msgspec.json.encode(stat)).decode()


async def stat(request: web.Request) -> web.Response:
    """HEAD /containers/{name}/archive."""
    path = _path_of(request)
    async with request.app[http.ENGINE].copying.open(container_of(request), http.path_name(request)) as files:
        return web.Response(headers={STAT_HEADER: _stat_header(await files.stat(path))})


async def get(request: web.Request) -> web.StreamResponse:
    """GET /containers/{name}/archive: a file or directory as tar."""
    path = _path_of(request)

    async def send() -> web.StreamResponse:
        async with request.app[http.ENGINE].copying.open(container_of(request), http.path_name(request)) as files:
            headers = {"Content-Type": _ARCHIVE, STAT_HEADER: _stat_header(await files.stat(path))}
            return await pipes.answer(request, headers, lambda output: files.get(path, output))

    return await while_connected(request, send())


async def put(request: web.Request) -> web.Response:
    """PUT /containers/{name}/archive: the body, compressed or not, into a directory."""
    path = _path_of(request)
    keep_kind = http.query_flag(request, "noOverwriteDirNonDir")
    as_user = http.query_flag(request, "copyUIDGID")

    async def take() -> None:
        async with request.app[http.ENGINE].copying.open(container_of(request), http.path_name(request)) as files:
            await pipes.receive(
                request, lambda archive: files.put(path, archive, as_user=as_user, keep_kind=keep_kind)
            )

    await while_connected(request, take())
    return web.Response()


async def export(request: web.Request) -> web.StreamResponse:
    """GET /containers/{name}/export."""

    async def send() -> web.StreamResponse:
        async with request.app[http.ENGINE].copying.open(container_of(request), with_mounts=False) as files:
            return await pipes.answer(request, {"Content-Type": "application/octet-stream"}, files.export)

    return await while_connected(request, send())


async def changes(request: web.Request) -> web.Response:
    """GET /containers/{name}/changes."""
    found = await request.app[http.ENGINE].copying.changes(container_of(request))
    return http.json_response([{"Path": change.path, "Kind": change.kind} for change in found] or None)


async def commit(request: web.Request) -> web.Response:
    """POST /commit."""
    engine, query = request.app[http.ENGINE], request.query
    body = await http.read_json(request, object, default={})  # "null" comes too
    config = _config_of(body) if body else None
    container = engine.containers.get(query.get("container", ""))
    wanted = committing.Wanted(
        committing.reference_of(query.get("repo", ""), query.get("tag", ""), "commit to"),
        partial(configuration_changes.apply, changes=query.getall("changes", [])),
        query.get("comment", ""),
        query.get("author", ""),
    )
    pause = http.query_flag(request, "pause", default=True)
    image = await engine.committing.commit(container, wanted, config, pause=pause)
    return http.json_response({"Id": str(image.id)}, 201)


def _config_of(body: object) -> ExecutionConfig:
    """The body's configuration; a command may be one string, as in a container's."""
    if not isinstance(body, dict):
        raise InvalidArgument("invalid JSON: expected an object")
    body = typed.named(body, ("Cmd", "Entrypoint"))
    for name in ("Cmd", "Entrypoint"):
        if isinstance(body.get(name), str):
            body[name] = [body[name]]
    try:
        return typed.convert_loosely(body, ExecutionConfig)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None


def add_routes(app: web.Application) -> None:
    router = app.router
    router.add_head("/containers/{name:.+}/archive", stat)
    router.add_get("/containers/{name:.+}/archive", get, allow_head=False)
    router.add_put("/containers/{name:.+}/archive", put)
    router.add_get("/containers/{name:.+}/export", export, allow_head=False)
    router.add_get("/containers/{name:.+}/changes", changes, allow_head=False)
    router.add_post("/commit", commit)
