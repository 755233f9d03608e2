"""The routes, one module an API object; each has `add_routes(app)`."""

from aiohttp import web

from minidocker.daemon.routes import attach, containers, execs, images, networks, system

MODULES = (system, containers, attach, execs, images, networks)


def add_all(app: web.Application) -> None:
    """Add the routes of every API object."""
    for module in MODULES:
        module.add_routes(app)
