"""The routes, one module an API object; each has `add_routes(app)`."""

from importlib import import_module

from aiohttp import web

MODULES = ("system", "containers", "attach", "execs", "images", "networks", "volumes")


def add_all(app: web.Application) -> None:
    """Add the routes of every API object."""
    for name in MODULES:
        import_module(f"{__name__}.{name}").add_routes(app)
