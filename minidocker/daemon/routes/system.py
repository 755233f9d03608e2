"""System: ping, version, info, disk usage, events.

Source  Docker Engine API 1.44: SystemPing, SystemVersion, SystemInfo, SystemDataUsage, SystemEvents.
"""

import msgspec
from aiohttp import web

from minidocker.daemon import app as http
from minidocker.daemon.streams import while_connected
from minidocker.engine import clock, system
from minidocker.engine import disk_usage as disk_usages
from minidocker.errors import InvalidArgument

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
BUILDER_VERSION = "1"  # the classic builder, not BuildKit


async def ping(request: web.Request) -> web.Response:
    """GET and HEAD /_ping: is anybody there, and what does it speak?"""
    headers = {**_NO_CACHE, "Builder-Version": BUILDER_VERSION, "Swarm": "inactive"}
    text = "" if request.method == "HEAD" else "OK"
    return web.Response(text=text, headers=headers, content_type="text/plain", charset="utf-8")


async def options(request: web.Request) -> web.Response:
    """OPTIONS of any path: what a browser asks before it calls another origin."""
    return web.Response()


async def version(request: web.Request) -> web.Response:
    return http.json_response(
        system.version(http.version_text(http.API_VERSION), http.version_text(http.MIN_API_VERSION))
    )


async def info(request: web.Request) -> web.Response:
    return http.json_response(system.info(request.app[http.ENGINE], http.api_version(request)))


def _bound(text: str) -> int | None:
    """A bound of events in nanoseconds; None: not given. Zero is the beginning of time, not "no bound"."""
    return 0 if text == "0" else clock.parse_bound(text)


async def events(request: web.Request) -> web.StreamResponse:
    """GET /events: one JSON object a chunk, headers at once."""
    filters = http.filters_of(request)
    since, until = (_bound(request.query.get(name, "")) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise InvalidArgument(
            f"`since` time ({request.query['since']}) cannot be after `until` time ({request.query['until']})"
        )
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


async def disk_usage(request: web.Request) -> web.Response:
    """GET /system/df. Which kinds to look at can be chosen from API 1.42 on."""
    version = http.api_version(request)
    kinds = request.query.getall("type", []) if version >= (1, 42) else []
    return http.json_response(await disk_usages.usage(request.app[http.ENGINE], kinds, version))


def add_routes(app: web.Application) -> None:
    app.router.add_get("/_ping", ping)
    app.router.add_options("/{anything:.*}", options)
    app.router.add_get("/version", version, allow_head=False)
    app.router.add_get("/info", info, allow_head=False)
    app.router.add_get("/events", events, allow_head=False)
    app.router.add_get("/system/df", disk_usage, allow_head=False)
