"""Execs: create, inspect, resize. The start is in attach.py.

Source  Docker Engine API 1.44: ContainerExec, ExecInspect, ExecResize.
"""

from typing import Any

from aiohttp import web

from minidocker.daemon import app as http
from minidocker.daemon.routes.containers import container_of, window_size
from minidocker.daemon.streams import parse_detach_keys
from minidocker.engine.containers.execs import read_config


async def create(request: web.Request) -> web.Response:
    """POST /containers/{name}/exec."""
    engine = request.app[http.ENGINE]
    config = read_config(await http.read_json(request, dict[str, Any]))
    container = container_of(request)
    parse_detach_keys(config.detach_keys)
    return http.json_response({"Id": engine.execs.create(container, config).id}, 201)


async def inspect(request: web.Request) -> web.Response:
    """GET /exec/{id}/json."""
    execs = request.app[http.ENGINE].execs
    execution = execs.get(request.match_info["id"])
    return http.json_response(execs.inspect(execution, http.api_version(request)))


async def resize(request: web.Request) -> web.Response:
    """POST /exec/{id}/resize."""
    execs = request.app[http.ENGINE].execs
    size = window_size(request)
    await execs.resize(execs.get(request.match_info["id"]), *size)
    return web.Response(status=200)


def add_routes(app: web.Application) -> None:
    app.router.add_post("/containers/{name:.+}/exec", create)
    app.router.add_get("/exec/{id}/json", inspect, allow_head=False)
    app.router.add_post("/exec/{id}/resize", resize)
