"""The volumes of an engine: create, list, remove, prune; who uses them.

Source  Docker Engine API 1.44: VolumeCreate, VolumeList, VolumeInspect, VolumeDelete, VolumePrune; texts recorded from
        dockerd.
Rules   - a volume is in use as long as a container that mounts it exists, be it stopped.
        - whoever makes or removes a volume holds the lock of its name: it never goes while a container is being made on
          it, and a plugin that hangs holds nobody up but those who want this very volume.
        - an anonymous volume has a label that says so, as dockerd's has; prune takes only those unless told `all`, and
          only what is in our own directory.
        - a volume that a plugin has made without us is found, too: names are one for all drivers.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from minidocker.engine.containers import mounts
from minidocker.engine.containers.config import VolumeOptions
from minidocker.engine.containers.container import Container, MountPoint, Record
from minidocker.engine.containers.removal import Pruned
from minidocker.engine.volumes import volume_filters
from minidocker.engine.volumes.volume_drivers import Shown, VolumeDrivers
from minidocker.engine.volumes.volume_filters import Filters, labels_of
from minidocker.engine.volumes.volume_search import Found, VolumeSearch
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound, Unavailable, Unsupported
from minidocker.storage import trees, volume_mounts
from minidocker.storage.volumes import LOCAL, Volume, already, check_name

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)



class CreateRequest(msgspec.Struct, rename="pascal"):
    """The body of a volume create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A volume that shall be there. driver "": the one that has it, else "local". anonymous: its name was made up."""

    name: str
    driver: str = ""
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    anonymous: bool = False


class Volumes:
    """All volumes. Used from the loop's thread."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._store = engine.volume_store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unfinished: list[str] = []
        self.drivers = VolumeDrivers(engine.plugins)
        self._search = VolumeSearch(engine.volume_store, engine.plugins, self.drivers)

    # -- make --

    async def create(self, request: CreateRequest) -> Found:
        """Make a volume, or return the one of that name.

        Raises  InvalidArgument: a bad name or option. NotFound: no such driver. Conflict: another driver has the name.
        """
        if request.cluster_volume_spec is not None and bytes(request.cluster_volume_spec) not in (b"null", b"{}"):
            where = f"create {request.name[:300]}"
            raise Unsupported(f"{where}: cluster volumes are not supported: this node is not part of a swarm")
        anonymous = not request.name
        name = request.name or secrets.token_hex(32)
        wish = Wish(name, request.driver, request.driver_opts, request.labels, anonymous)
        async with self._holding([name]):
            volume, new = await self.ensure(wish)
        if new:
            self.tell_created(volume)
        return volume, None

    async def ensure(self, wish: Wish) -> tuple[Volume, bool]:
        """The volume, and whether it is new. For who holds its name."""
        name = check_name(wish.name)
        there = self._search.recorded(name)
        if there is None and not wish.anonymous:
            there = await self._adopted(name)
        if there is not None:
            if wish.driver and wish.driver != there.driver:
                raise Conflict(already(name, there.driver))
            return there, False
        if wish.driver not in ("", LOCAL):
            await self._ask_driver(wish)
        try:
            volume = await asyncio.to_thread(self._made, wish)
        except BaseException:
            if wish.driver not in ("", LOCAL):
                await self.drivers.remove(wish.driver, name)
            raise
        return volume, True

    def _made(self, wish: Wish) -> Volume:
        driver = wish.driver or LOCAL
        labels, options = wish.labels, wish.options
        return self._store.create(wish.name, anonymous=wish.anonymous, labels=labels, options=options, driver=driver)

    async def materialise(self, record: Record) -> list[Volume]:
        """Make the volumes that a container's mounts name, fill in where they are, and return those that are new.

        For who holds their names. On failure none is left.
        """
        options = mounts.volume_options(record.host)
        made: list[Volume] = []
        try:
            for point in record.mounts:
                if point.type == "volume":
                    volume, new = await self.ensure(_wish(point, options.get(point.destination)))
                    made += [volume] if new else []
                    point.driver, point.name = volume.driver, volume.name
                    point.to_mount = not volume.local or volume_mounts.wanted(volume.options)
                    point.source = str(self._store.path(volume.name)) if volume.local else ""
        except BaseException:
            await self.take_away([volume.name for volume in made], told=False)
            raise
        return made

    async def _ask_driver(self, wish: Wish) -> None:
        try:
            await self.drivers.check(wish.driver)
            await self.drivers.create(wish.driver, wish.name, wish.options)
        except MinidockerError as error:
            kind = type(error) if isinstance(error, (NotFound, InvalidArgument)) else MinidockerError
            raise kind(f"create {wish.name}: {error}") from None

    async def _adopted(self, name: str) -> Volume | None:
        """A volume that a plugin has made without us, now with a record."""
        found = await self._search.one(name)
        if found is None:
            return None
        return await asyncio.to_thread(lambda: self._store.create(name, driver=found[0].driver))

    def tell_created(self, volume: Volume) -> None:
        """Emit the event of a new volume."""
        self._engine.events.emit("volume", "create", volume.name, {"driver": volume.driver})

    # -- look --

    async def get(self, name: str) -> Found:
        """Raises NotFound. Unavailable: its plugin does not answer."""
        volume = self._search.recorded(name)
        if volume is None:
            found = await self._search.one(name)
            if found is None:
                raise NotFound(f"get {name[:300]}: no such volume")
            return found
        if volume.local:
            return volume, None
        try:
            return volume, await self.drivers.get(volume.driver, name)
        except (Unavailable, NotFound, InvalidArgument):
            raise
        except MinidockerError as error:
            raise NotFound(f"get {name}: {error}") from None

    def users(self, name: str) -> list[Container]:
        """The containers, running or not, that mount a volume."""
        everyone = list(self._engine.containers.all())
        return [one for one in everyone if any(p.type == "volume" and p.name == name for p in one.record.mounts)]

    async def select(self, filters: Filters) -> tuple[list[Found], list[str]]:
        """The volumes that pass all filters, by name, and warnings of drivers that do not answer.

        Raises  InvalidArgument: an unknown filter or value.
        """
        volume_filters.check(filters, volume_filters.OF_LISTS)
        dangling = volume_filters.flag(filters, "dangling")
        everything, warnings = await self._search.everything()
        chosen = [found for found in everything if volume_filters.fits(found[0], filters)]
        if dangling is not None:
            chosen = [found for found in chosen if dangling == (not self.users(found[0].name))]
        return chosen, warnings

    # -- remove --

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and what is in it.

        force   one that is not there is fine, and a plugin's is forgotten even if the plugin does not remove it.
        Raises  NotFound. Conflict: a container uses it. MinidockerError: the plugin's reason.
        """
        async with self._holding([name]):
            try:
                volume = self._search.recorded(name) or (await self.get(name))[0]
            except NotFound:
                if force:
                    return
                raise
            users = self.users(volume.name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(user.id for user in users)}]")
            await self._remove(volume, force=force)
        self._engine.events.emit("volume", "destroy", volume.name, {"driver": volume.driver})

    async def _remove(self, volume: Volume, *, force: bool = False) -> None:
        if not volume.local:
            try:
                await self.drivers.remove(volume.driver, volume.name)
            except MinidockerError as error:
                if not force:
                    raise MinidockerError(f"remove {volume.name}: {error}") from None
        if self._search.recorded(volume.name) is not None:
            await asyncio.to_thread(self._store.remove, volume.name)

    async def take_away(self, names: Iterable[str], *, told: bool = True) -> None:
        """Remove volumes that go with their container. For who holds their names; a plugin's failure is logged.

        told  with an event each.
        """
        for name in names:
            volume = self._search.recorded(name)
            if volume is None:
                continue
            try:
                await self._remove(volume)
            except (MinidockerError, OSError) as error:
                log.warning("volume not removed", extra={"volume": name, "reason": str(error)})
                continue
            if told:
                self._engine.events.emit("volume", "destroy", name, {"driver": volume.driver})

    def take_away_at_start(self, names: Iterable[str]) -> None:
        """`take_away` before the loop runs; those of plugins go by `finish`."""
        for name in names:
            volume = self._search.recorded(name)
            if volume is not None and volume.local:
                self._store.remove(name)
            elif volume is not None:
                self._unfinished.append(name)

    async def finish(self) -> None:
        """After the daemon's start, in the background: what plugins were not asked at it."""
        names, self._unfinished = self._unfinished, []
        async with self._holding(names):
            await self.take_away(names)

    def holding(self, record: Record) -> AbstractAsyncContextManager[object]:
        """What to hold while a container that may have volumes is being made or removed."""
        names = {point.name for point in record.mounts if point.type == "volume" and point.name}
        return self._holding(names) if names else nullcontext()

    @asynccontextmanager
    async def _holding(self, names: Iterable[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):  # in one order, so that nobody waits in a circle
                lock = self._locks.setdefault(name, asyncio.Lock())
                await stack.enter_async_context(lock)
            yield

    def owned_by(self, record: Record) -> list[str]:
        """The anonymous volumes that go with a container: not those that another one mounts, too."""
        names = {point.name for point in record.mounts if point.owned}
        return sorted(name for name in names if not [user for user in self.users(name) if user.id != record.id])

    async def prune(self, filters: Filters, *, named_by_default: bool) -> Pruned:
        """Remove the volumes that no container uses: the anonymous ones, or all that are only in our directory.

        named_by_default  named ones go, too, without the filter all=true (before API 1.42).
        """
        volume_filters.check(filters, volume_filters.OF_PRUNE)
        chosen = volume_filters.flag(filters, "all")
        everything = named_by_default if chosen is None else chosen
        gone, freed = [], 0
        for volume in await asyncio.to_thread(self._store.list):
            if not (_prunable(volume) and (everything or volume.anonymous) and volume_filters.fits(volume, filters)):
                continue
            async with self._holding([volume.name]):
                if self.users(volume.name) or self._search.recorded(volume.name) != volume:
                    continue
                freed += await asyncio.to_thread(trees.size_bytes, self._store.path(volume.name))
                await asyncio.to_thread(self._store.remove, volume.name)
            gone.append(volume.name)
            self._engine.events.emit("volume", "destroy", volume.name, {"driver": volume.driver})
        self._engine.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return Pruned(gone, freed)

    # -- show --

    async def document(self, found: Found) -> dict[str, Any]:
        """A volume as the API shows it."""
        volume, shown = found
        document = {
            "CreatedAt": volume.created if volume.local else (shown or Shown()).created_at,
            "Driver": volume.driver,
            "Labels": labels_of(volume) or None,
            "Mountpoint": str(self._store.path(volume.name)) if volume.local else (shown or Shown()).mountpoint,
            "Name": volume.name,
            "Options": volume.options or None,
            "Scope": LOCAL if volume.local else await self.drivers.scope(volume.driver),
        }
        return document | ({"Status": shown.status} if shown is not None and shown.status else {})

    async def documents_with_usage(self) -> list[dict[str, Any]]:
        """The volumes in our directory with UsageData: bytes, and how many containers mount each."""
        found = []
        for volume in await asyncio.to_thread(self._store.list):
            if not _prunable(volume):
                continue
            size = await asyncio.to_thread(trees.size_bytes, self._store.path(volume.name))
            usage = {"Size": size, "RefCount": len(self.users(volume.name))}
            found.append({**await self.document((volume, None)), "UsageData": usage})
        return found


def _wish(point: MountPoint, options: VolumeOptions | None) -> Wish:
    driver = options.driver_config.options if options is not None and options.driver_config is not None else None
    return Wish(point.name, point.driver, driver, options.labels if options is not None else None, point.owned)


def _prunable(volume: Volume) -> bool:
    """Whether its content takes space in our directory, and nowhere else."""
    return volume.local and not volume.options
