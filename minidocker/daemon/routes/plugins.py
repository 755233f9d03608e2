"""Plugins: which there are. They are programs beside the daemon; those that are installed from a registry are refused.

Source  Docker Engine API 1.44: PluginList, PluginInspect and the calls that manage plugins; Docker's "Plugin API".
Rules   - dockerd lists only what it has installed itself; here every plugin that there is a file of is shown, enabled
          once it answers.
        - whoever wants to manage one is told how a plugin comes and goes.
"""

import hashlib
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from minidocker.daemon import app as http
from minidocker.engine.plugins import Plugin, Plugins
from minidocker.errors import InvalidArgument, NotFound, Unsupported

_CAPABILITIES = {"VolumeDriver": "docker.volumedriver/1.0", "authz": "docker.authz/1.0"}
_FILTERS = ("capability", "enabled")
_NOT_MANAGED = "plugins from a registry are not supported: start the plugin's program, with its socket in {directory}"
_VERBS = ("enable", "disable", "upgrade", "push", "set")


def _plugins(request: web.Request) -> Plugins:
    return request.app[http.ENGINE].plugins


def document(plugin: Plugin) -> dict[str, Any]:
    """A plugin as the API shows it; most of the fields are those of installed ones, and empty."""
    address = plugin.address
    kinds = plugin.implements or ()
    types = [_CAPABILITIES.get(kind, f"docker.{kind.lower()}/1.0") for kind in kinds]
    return {
        "Id": hashlib.sha256(address.name.encode()).hexdigest(),
        "Name": address.name,
        "Enabled": plugin.implements is not None,
        "Settings": {"Mounts": [], "Env": [], "Args": [], "Devices": []},
        "PluginReference": "",
        "Config": {
            "DockerVersion": "",
            "Description": f"{', '.join(kinds) or 'does not answer'} at {address.url or 'an unreadable spec file'}",
            "Documentation": "https://docs.docker.com/engine/extend/plugin_api/",
            "Interface": {"Types": types, "Socket": urlsplit(address.url).path, "ProtocolScheme": ""},
            "Entrypoint": [],
            "WorkDir": "",
            "User": {},
            "Network": {"Type": ""},
            "Linux": {"Capabilities": [], "AllowAllDevices": False, "Devices": []},
            "PropagatedMount": "",
            "IpcHost": False,
            "PidHost": False,
            "Mounts": [],
            "Env": [],
            "Args": {"Name": "", "Description": "", "Settable": [], "Value": []},
        },
    }


async def listed(request: web.Request) -> web.Response:
    """GET /plugins."""
    filters = http.filters_of(request)
    for name in filters:
        if name not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    enabled = {value.lower() in ("1", "true", "t") for value in filters.get("enabled", [])}
    wanted = {value.lower() for value in filters.get("capability", [])}
    chosen = []
    for plugin in await _plugins(request).all():
        kinds = {kind.lower() for kind in plugin.implements or ()}
        if (not enabled or (plugin.implements is not None) in enabled) and wanted <= kinds:
            chosen.append(document(plugin))
    return http.json_response(chosen)


async def _find(request: web.Request) -> Plugin:
    name = http.path_name(request)
    for plugin in await _plugins(request).all():
        if name in (plugin.address.name, document(plugin)["Id"]):
            return plugin
    raise NotFound(f'plugin "{name}" not found')


async def inspect(request: web.Request) -> web.Response:
    """GET /plugins/{name}/json."""
    return http.json_response(document(await _find(request)))


async def not_managed(request: web.Request) -> web.Response:
    """Install and create: nothing is fetched."""
    raise Unsupported(_NOT_MANAGED.format(directory=_plugins(request).directories.sockets))


async def not_ours(request: web.Request) -> web.Response:
    """Enable, disable, remove and the rest, of one that is there."""
    plugin = await _find(request)
    raise Unsupported(
        f"plugin {plugin.address.name} is not managed by the daemon: it is enabled while its program runs, and gone "
        "with the file that tells of it"
    )


def add_routes(app: web.Application) -> None:
    router = app.router
    router.add_get("/plugins", listed, allow_head=False)
    router.add_get("/plugins/privileges", not_managed, allow_head=False)
    for path in ("/plugins/pull", "/plugins/create"):
        router.add_post(path, not_managed)
    router.add_get("/plugins/{name:.+}/json", inspect, allow_head=False)
    router.add_delete("/plugins/{name:.+}", not_ours)
    for verb in _VERBS:
        router.add_post(f"/plugins/{{name:.+}}/{verb}", not_ours)
