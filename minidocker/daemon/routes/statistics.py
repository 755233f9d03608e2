"""Statistics: what a container uses, once or as a stream.

Source  Docker Engine API 1.24 to 1.44: ContainerStats.
Rules   - headers go out at once: `docker stats` opens one stream a container before it shows anything.
"""

import msgspec
from aiohttp import web

from minidocker.daemon import app as http
from minidocker.daemon.routes.containers import container_of
from minidocker.daemon.streams import while_connected
from minidocker.errors import InvalidArgument


async def stats(request: web.Request) -> web.StreamResponse:
    """GET /containers/{name}/stats: a JSON object a second; one with stream=0; one at once with one-shot=1."""
    container, sampler = container_of(request), request.app[http.ENGINE].sampler
    stream = http.query_flag(request, "stream", default=True)
    one_shot = http.query_flag(request, "one-shot") and http.api_version(request) >= (1, 41)
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    if not stream:
        work = sampler.once(container, one_shot=one_shot)
        return http.json_response(await while_connected(request, work))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    documents = sampler.stream(container)

    async def send() -> None:
        async for document in documents:
            await response.write(msgspec.json.encode(document) + b"\n")

    try:
        await response.prepare(request)
        await while_connected(request, send())
        await response.write_eof()
    finally:
        await documents.aclose()
    return response


def add_routes(app: web.Application) -> None:
    app.router.add_get("/containers/{name:.+}/stats", stats, allow_head=False)
