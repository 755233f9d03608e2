"""The routes, one module an API object; each has `add_routes(app)`."""

from importlib import import_module
from importlib.util import find_spec

from aiohttp import web

MODULES = ("system", "containers", "attach", "execs", "images", "networks", "volumes")


def add_all(app: web.Application) -> None:
    """Add the routes of every API object."""
    for name in MODULES:
        if find_spec(f"{__name__}.{name}") is not None:
            import_module(f"{__name__}.{name}").add_routes(app)
