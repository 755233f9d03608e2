"""Volumes of plugins: what a VolumeDriver is asked.

Source  Docker's "Volume plugin" protocol (docs.docker.com/engine/extend/plugins_volume).
Rules   - what a plugin says is checked before it is used: a mount point is an absolute path.
        - its error is the text of `Err`, told to the user as it is.
"""

from typing import TypeVar

import msgspec

from minidocker.engine.plugins import VOLUME_DRIVER, Plugins
from minidocker.errors import InvalidArgument, MinidockerError, NotFound

T = TypeVar("T")
_NO_DATE = "0001-01-01T00:00:00Z"
_SCOPES = ("local", "global")


class Shown(msgspec.Struct, rename="pascal"):
    """A volume as its driver shows it."""

    name: str = ""
    mountpoint: str = ""
    created_at: str = _NO_DATE
    status: dict[str, object] | None = None


class _Nothing(msgspec.Struct):
    pass


class _Mountpoint(msgspec.Struct, rename="pascal"):
    mountpoint: str = ""


class _One(msgspec.Struct, rename="pascal"):
    volume: Shown | None = None


class _Many(msgspec.Struct, rename="pascal"):
    volumes: list[Shown] | None = None


class _Capability(msgspec.Struct, rename="pascal"):
    scope: str = "local"


class _Capabilities(msgspec.Struct, rename="pascal"):
    capabilities: _Capability | None = None


class VolumeDrivers:
    """The volume drivers that are plugins, each by its name.

    All raise NotFound: no such plugin; Unavailable: it does not answer; MinidockerError: it says why it does not.
    """

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._scopes: dict[str, str] = {}

    async def check(self, driver: str) -> None:
        """Raises NotFound, in Docker's words: there is no such volume driver."""
        try:
            await self._plugins.get(driver, VOLUME_DRIVER)
        except MinidockerError as error:
            kind = type(error) if isinstance(error, (NotFound, InvalidArgument)) else MinidockerError
            raise kind(f"error looking up volume plugin {driver}: {error}") from None

    async def create(self, driver: str, name: str, options: dict[str, str] | None) -> None:
        """Make a volume."""
        arguments = {"Name": name, "Opts": options or None}
        await self._ask(driver, "Create", arguments, _Nothing, long=True)

    async def remove(self, driver: str, name: str) -> None:
        """Remove a volume."""
        await self._ask(driver, "Remove", {"Name": name}, _Nothing)

    async def mount(self, driver: str, name: str, mount_id: str) -> str:
        """Make a volume ready for one user, and say where on this host it is."""
        found = await self._ask(driver, "Mount", {"Name": name, "ID": mount_id}, _Mountpoint, long=True)
        if not found.mountpoint.startswith("/") or "\0" in found.mountpoint:
            raise MinidockerError(
                f'plugin "{driver}" gives "{found.mountpoint[:200]}" as the mount point of volume {name}: it must be '
                "an absolute path"
            )
        return found.mountpoint

    async def unmount(self, driver: str, name: str, mount_id: str) -> None:
        """The user of that mount needs the volume no more."""
        await self._ask(driver, "Unmount", {"Name": name, "ID": mount_id}, _Nothing)

    async def get(self, driver: str, name: str, *, search: bool = False) -> Shown:
        """One volume. search: one of many drivers that are asked, so soon or never. Raises NotFound: it has none."""
        found = await self._ask(driver, "Get", {"Name": name}, _One, search=search)
        if found.volume is None:
            raise NotFound(f"get {name}: no such volume")
        return found.volume

    async def all(self, driver: str) -> list[Shown]:
        """All volumes of a driver."""
        found = await self._ask(driver, "List", {}, _Many, search=True)
        return [volume for volume in found.volumes or [] if volume.name]

    async def scope(self, driver: str) -> str:
        """ "local", or "global" for a driver whose volumes are the same on every machine."""
        if driver not in self._scopes:
            try:
                found = await self._ask(driver, "Capabilities", {}, _Capabilities, search=True)
            except MinidockerError:  # an old plugin does not know the question
                return "local"
            word = found.capabilities.scope.lower() if found.capabilities else "local"
            self._scopes[driver] = word if word in _SCOPES else "local"
        return self._scopes[driver]

    async def _ask(
        self, driver: str, method: str, arguments: object, reply: type[T], *, long: bool = False, search: bool = False
    ) -> T:
        limits = self._plugins.limits
        seconds = limits.search if search else limits.long if long else limits.short
        method = f"{VOLUME_DRIVER}.{method}"
        return await self._plugins.call(
            driver, VOLUME_DRIVER, method, arguments, reply, seconds=seconds, patient=not search
        )
