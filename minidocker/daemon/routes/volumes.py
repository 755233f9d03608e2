"""Volumes: list, create, inspect, remove, prune.

Source  Docker Engine API 1.24 to 1.44: VolumeList, VolumeCreate, VolumeInspect, VolumeDelete, VolumePrune.
"""

from aiohttp import web

from minidocker.daemon import app as http
from minidocker.engine.volumes.volumes import CreateRequest, Volumes
from minidocker.errors import InvalidArgument, Unavailable

_ANONYMOUS_ONLY_SINCE = _UPDATE_SINCE = (1, 42)


def _volumes(request: web.Request) -> Volumes:
    return request.app[http.ENGINE].volumes


async def listed(request: web.Request) -> web.Response:
    """GET /volumes."""
    volumes = _volumes(request)
    chosen, warnings = await volumes.select(http.filters_of(request))
    documents = [await volumes.document(found) for found in chosen]
    return http.json_response({"Volumes": documents, "Warnings": warnings or None})


async def create(request: web.Request) -> web.Response:
    """POST /volumes/create."""
    volumes = _volumes(request)
    found = await volumes.create(await http.read_json(request, CreateRequest))
    return http.json_response(await volumes.document(found), 201)


async def inspect(request: web.Request) -> web.Response:
    """GET /volumes/{name}."""
    volumes = _volumes(request)
    return http.json_response(await volumes.document(await volumes.get(http.path_name(request))))


async def update(request: web.Request) -> web.Response:
    """PUT /volumes/{name}: only volumes of a cluster can be changed."""
    if http.api_version(request) < _UPDATE_SINCE:
        raise web.HTTPNotFound
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(request: web.Request) -> web.Response:
    """DELETE /volumes/{name}."""
    await _volumes(request).remove(http.path_name(request), force=http.query_flag(request, "force"))
    return web.Response(status=204)


async def prune(request: web.Request) -> web.Response:
    """POST /volumes/prune."""
    filters = http.filters_of(request)
    old = http.api_version(request) < _ANONYMOUS_ONLY_SINCE
    if old and "all" in filters:
        raise InvalidArgument("invalid filter 'all'")
    pruned = await _volumes(request).prune(filters, named_by_default=old)
    return http.json_response({"VolumesDeleted": list(pruned.ids), "SpaceReclaimed": pruned.bytes_freed})


def add_routes(app: web.Application) -> None:
    app.router.add_get("/volumes", listed, allow_head=False)
    app.router.add_post("/volumes/create", create)
    app.router.add_post("/volumes/prune", prune)
    app.router.add_get("/volumes/{name}", inspect, allow_head=False)
    app.router.add_put("/volumes/{name}", update)
    app.router.add_delete("/volumes/{name}", remove)
