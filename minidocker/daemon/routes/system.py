"""System: ping, version, info, events.

Source  Docker Engine API 1.44: SystemPing, SystemVersion, SystemInfo, SystemEvents.
"""

import msgspec
from aiohttp import web

from minidocker.daemon import app as http
from minidocker.daemon.streams import while_connected
from minidocker.engine import clock, system
from minidocker.engine.events import check_filters
from minidocker.errors import Unavailable

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
BUILDER_VERSION = "1"  # the classic builder, not BuildKit


async def ping(request: web.Request) -> web.Response:
    """GET and HEAD /_ping: is anybody there, and what does it speak?"""
    headers = {**_NO_CACHE, "Builder-Version": BUILDER_VERSION, "Swarm": "inactive"}
    text = "" if request.method == "HEAD" else "OK"
    return web.Response(text=text, headers=headers, content_type="text/plain", charset="utf-8")


async def version(request: web.Request) -> web.Response:
    return http.json_response(
        system.version(http.version_text(http.API_VERSION), http.version_text(http.MIN_API_VERSION))
    )


async def info(request: web.Request) -> web.Response:
    return http.json_response(system.info(request.app[http.ENGINE], http.api_version(request)))


async def events(request: web.Request) -> web.StreamResponse:
    """GET /events: one JSON object a chunk, headers at once."""
    filters = http.filters_of(request)
    check_filters(filters)
    since = clock.parse_bound(request.query.get("since", ""))
    until = clock.parse_bound(request.query.get("until", ""))
    stream = request.app[http.ENGINE].events.listen(filters, since, until)
    first = anext(stream, None)  # subscribes before the headers tell the client that it may act
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()

    async def send() -> None:
        event = await first
        while event is not None:
            await response.write(msgspec.json.encode(event) + b"\n")
            event = await anext(stream, None)

    try:
        await response.prepare(request)
        await while_connected(request, send())
        await response.write_eof()
    finally:
        await stream.aclose()
    return response


async def no_swarm(request: web.Request) -> web.Response:
    """Any cluster call: this daemon is never part of one."""
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again."
    )


async def swarm_leave(request: web.Request) -> web.Response:
    raise Unavailable("This node is not part of a swarm")


def add_routes(app: web.Application) -> None:
    app.router.add_get("/_ping", ping)
    app.router.add_get("/version", version)
    app.router.add_get("/info", info)
    app.router.add_get("/events", events)
    app.router.add_post("/swarm/leave", swarm_leave)
    for path in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"):
        app.router.add_get(path, no_swarm)
