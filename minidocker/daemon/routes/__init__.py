"""The routes, one module an API object; each has `add_routes(app)`."""

from aiohttp import web

from minidocker.daemon.routes import (
    absent,
    archive,
    attach,
    build,
    containers,
    execs,
    images,
    networks,
    plugins,
    statistics,
    system,
    volumes,
    websocket,
)

MODULES = (system, containers, statistics, archive, attach, websocket, execs, images, build, networks, volumes, plugins,
           absent)  # fmt: skip


def add_all(app: web.Application) -> None:
    """Add the routes of every API object."""
    for module in MODULES:
        module.add_routes(app)
