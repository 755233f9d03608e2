"""Networks: list, inspect, create, remove, prune; connect and disconnect of containers.

Source  Docker Engine API 1.44: NetworkList, NetworkInspect, NetworkCreate, NetworkDelete, NetworkConnect,
        NetworkDisconnect, NetworkPrune.
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from minidocker.daemon import app as http
from minidocker.engine.containers.config_reader import read_endpoint
from minidocker.engine.networks import network_request, network_views
from minidocker.engine.networks.network import Network
from minidocker.engine.values import truth
from minidocker.errors import InvalidArgument, NotFound


class ConnectBody(msgspec.Struct, rename="pascal"):
    """Which container, and how; Force: also one that is gone."""

    container: str | None = None
    endpoint_config: dict[str, Any] | None = None
    force: bool | None = None


def _document(request: web.Request, network: Network, *, members: bool) -> dict[str, Any]:
    engine = request.app[http.ENGINE]
    bridge = engine.networks.bridge(network.name) if network.builtin and network.driver == "bridge" else None
    return network_views.document(network, bridge, engine.networks.members(network) if members else ())


async def list_networks(request: web.Request) -> web.Response:
    """GET /networks: all; who is attached is told to clients before 1.28 only."""
    chosen = request.app[http.ENGINE].networks.select(http.filters_of(request))
    members = http.api_version(request) < (1, 28)
    return http.json_response([_document(request, network, members=members) for network in chosen])


async def inspect(request: web.Request) -> web.Response:
    """GET /networks/{name}: one, with who is attached."""
    name, verbose = http.path_name(request), request.query.get("verbose", "")
    try:
        truth(verbose or "false")
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid value for verbose: {verbose}: {error}") from None
    if request.query.get("scope", "local") not in ("", "local"):
        raise NotFound(f"network {name} not found")
    network = request.app[http.ENGINE].networks.get(name)
    return http.json_response(_document(request, network, members=True))


async def create(request: web.Request) -> web.Response:
    """POST /networks/create."""
    body = network_request.parse(await http.read_json(request, dict[str, Any]))
    network = await asyncio.shield(request.app[http.ENGINE].networks.create(body))
    return http.json_response({"Id": network.id, "Warning": ""}, 201)


async def remove(request: web.Request) -> web.Response:
    """DELETE /networks/{name}."""
    await asyncio.shield(request.app[http.ENGINE].networks.remove(http.path_name(request)))
    return web.Response(status=204)


async def _body(request: web.Request) -> tuple[ConnectBody, str]:
    body = await http.read_json(request, ConnectBody)
    if not body.container:
        raise InvalidArgument('invalid name or ID supplied: ""')
    return body, body.container


async def connect(request: web.Request) -> web.Response:
    """POST /networks/{name}/connect."""
    (body, container), name = await _body(request), http.path_name(request)
    wanted = None if body.endpoint_config is None else read_endpoint(body.endpoint_config, name)
    await asyncio.shield(request.app[http.ENGINE].connecting.connect(name, container, wanted))
    return web.Response()


async def disconnect(request: web.Request) -> web.Response:
    """POST /networks/{name}/disconnect."""
    (body, container), name = await _body(request), http.path_name(request)
    work = request.app[http.ENGINE].connecting.disconnect(name, container, force=bool(body.force))
    await asyncio.shield(work)
    return web.Response()


async def prune(request: web.Request) -> web.Response:
    """POST /networks/prune: those that nobody is in."""
    removed = await asyncio.shield(request.app[http.ENGINE].networks.prune(http.filters_of(request)))
    return http.json_response({"NetworksDeleted": removed or None})


def add_routes(app: web.Application) -> None:
    for path in ("/networks", "/networks/"):
        app.router.add_get(path, list_networks, allow_head=False)
    app.router.add_post("/networks/create", create)
    app.router.add_post("/networks/prune", prune)
    app.router.add_get("/networks/{name}", inspect, allow_head=False)
    app.router.add_delete("/networks/{name}", remove)
    app.router.add_post("/networks/{name}/connect", connect)
    app.router.add_post("/networks/{name}/disconnect", disconnect)
