"""Networks: list, inspect, and what is refused about them.

Source  Docker Engine API 1.44: NetworkList, NetworkInspect, NetworkCreate, NetworkDelete, NetworkConnect, NetworkPrune.
"""

import msgspec
from aiohttp import web

from minidocker.daemon import app as http
from minidocker.engine.networks import Networks
from minidocker.errors import InvalidArgument, NotFound


class CreateBody(msgspec.Struct, rename="pascal"):
    name: str = ""


class ConnectBody(msgspec.Struct, rename="pascal"):
    container: str = ""


def _networks(request: web.Request) -> Networks:
    return request.app[http.ENGINE].networks


async def list_networks(request: web.Request) -> web.Response:
    """GET /networks: all, without who is attached."""
    networks = _networks(request)
    chosen = networks.select(http.filters_of(request))
    return http.json_response([networks.document(network, containers=False) for network in chosen])


async def inspect(request: web.Request) -> web.Response:
    """GET /networks/{name}: one, with who is attached."""
    networks, name = _networks(request), http.path_name(request)
    if request.query.get("scope", "local") not in ("", "local"):
        raise NotFound(f"network {name} not found")
    return http.json_response(networks.document(networks.get(name), containers=True))


async def create(request: web.Request) -> web.Response:
    """POST /networks/create."""
    body = await http.read_json(request, CreateBody)
    if not body.name:
        raise InvalidArgument("network name cannot be empty")
    network = _networks(request).create(body.name)
    return http.json_response({"Id": network.id, "Warning": ""}, 201)


async def remove(request: web.Request) -> web.Response:
    """DELETE /networks/{name}."""
    _networks(request).remove(http.path_name(request))
    return web.Response(status=204)


async def connect(request: web.Request) -> web.Response:
    """POST /networks/{name}/connect and disconnect."""
    body = await http.read_json(request, ConnectBody)
    _networks(request).connect(http.path_name(request), body.container)
    return web.Response()


async def prune(request: web.Request) -> web.Response:
    """POST /networks/prune: built-in networks are never unused."""
    return http.json_response({"NetworksDeleted": None})


def add_routes(app: web.Application) -> None:
    app.router.add_get("/networks", list_networks)
    app.router.add_post("/networks/create", create)
    app.router.add_post("/networks/prune", prune)
    app.router.add_get("/networks/{name}", inspect)
    app.router.add_delete("/networks/{name}", remove)
    app.router.add_post("/networks/{name}/connect", connect)
    app.router.add_post("/networks/{name}/disconnect", connect)
