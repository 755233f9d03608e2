"""The volumes of an engine: create, list, remove, prune; who uses them.

Source  Docker Engine API 1.44: VolumeCreate, VolumeList, VolumeInspect, VolumeDelete, VolumePrune; texts recorded from
        dockerd.
Rules   - a volume is in use as long as a container that mounts it exists, be it stopped.
        - whoever makes or removes volumes holds `lock`: a volume never goes while a container is being made on it.
        - an anonymous volume has a label that says so, as dockerd's has; prune takes only those unless told `all`.
"""

import asyncio
import re
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from minidocker.engine import listing
from minidocker.engine.container import Container, Record
from minidocker.engine.removal import Pruned
from minidocker.errors import Conflict, InvalidArgument, NotFound, Unsupported
from minidocker.storage import trees
from minidocker.storage.volumes import Volume

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
DRIVER = "local"
_LIST_FILTERS = ("dangling", "driver", "label", "name")
_PRUNE_FILTERS = ("all", "label", "label!")
_LOCAL_OPTIONS = ("type", "o", "device", "size")
_TRUE, _FALSE = ("1", "true", "t"), ("0", "false", "f")
Filters = dict[str, list[str]]


class CreateRequest(msgspec.Struct, rename="pascal"):
    """The body of a volume create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: msgspec.Raw | None = None


class Volumes:
    """All volumes. Used from the loop's thread."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._store = engine.volume_store
        self.lock = asyncio.Lock()

    async def create(self, request: CreateRequest) -> Volume:
        """Make a volume, or return the one of that name.

        Raises  InvalidArgument: a bad name or option. NotFound: another driver. Unsupported: options of the driver.
        """
        self._check(request)
        async with self.lock:
            new = not request.name or not self._exists(request.name)
            volume = await asyncio.to_thread(self._store.create, request.name, labels=request.labels)
        if new:
            self._tell("create", volume.name)
        return volume

    @staticmethod
    def _check(request: CreateRequest) -> None:
        where = f"create {request.name[:300]}"
        if request.cluster_volume_spec is not None and bytes(request.cluster_volume_spec) not in (b"null", b"{}"):
            raise Unsupported(f"{where}: cluster volumes are not supported: this node is not part of a swarm")
        if request.driver not in ("", DRIVER):
            raise NotFound(
                f'{where}: error looking up volume plugin {request.driver}: plugin "{request.driver}" not found'
            )
        for key, value in (request.driver_opts or {}).items():
            if key not in _LOCAL_OPTIONS:
                raise InvalidArgument(f'{where}: invalid option: "{key}"')
            if value:
                raise Unsupported(f'{where}: the local driver takes no options here ("{key}"); bind-mount a directory')

    def _exists(self, name: str) -> bool:
        try:
            self._store.get(name)
        except NotFound:
            return False
        return True

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        return self._store.get(name)

    def users(self, name: str) -> list[Container]:
        """The containers, running or not, that mount a volume."""
        everyone = list(self._engine.containers.all())
        return [one for one in everyone if any(p.type == "volume" and p.name == name for p in one.record.mounts)]

    def select(self, filters: Filters) -> list[Volume]:
        """The volumes that pass all filters, by name. Raises InvalidArgument: an unknown filter or value."""
        _check_names(filters, _LIST_FILTERS)
        dangling = _flag(filters, "dangling")
        return [
            volume for volume in self._store.list()
            if (dangling is None or dangling == (not self.users(volume.name))) and _fits(volume, filters)
        ]  # fmt: skip

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and what is in it.

        force   one that is not there is fine.
        Raises  NotFound. Conflict: a container uses it.
        """
        async with self.lock:
            try:
                volume = self._store.get(name)
            except NotFound:
                if force:
                    return
                raise
            users = self.users(volume.name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(user.id for user in users)}]")
            await asyncio.to_thread(self._store.remove, volume.name)
        self._tell("destroy", volume.name)

    def holding(self, record: Record) -> AbstractAsyncContextManager[object]:
        """What to hold while a container that may have volumes is being made or removed."""
        return self.lock if any(point.type == "volume" for point in record.mounts) else nullcontext()

    def owned_by(self, record: Record) -> list[str]:
        """The anonymous volumes that go with a container: not those that another one mounts, too."""
        names = {point.name for point in record.mounts if point.owned}
        return sorted(name for name in names if not [user for user in self.users(name) if user.id != record.id])

    async def prune(self, filters: Filters, *, named_by_default: bool) -> Pruned:
        """Remove the volumes that no container uses: the anonymous ones, or all of them.

        named_by_default  named ones go, too, without the filter all=true (before API 1.42).
        """
        _check_names(filters, _PRUNE_FILTERS)
        chosen = _flag(filters, "all")
        everything = named_by_default if chosen is None else chosen
        gone, freed = [], 0
        async with self.lock:
            for volume in await asyncio.to_thread(self._store.list):
                if self.users(volume.name) or not (everything or volume.anonymous) or not _fits(volume, filters):
                    continue
                freed += await asyncio.to_thread(trees.size_bytes, self._store.path(volume.name))
                await asyncio.to_thread(self._store.remove, volume.name)
                gone.append(volume.name)
        for name in gone:
            self._tell("destroy", name)
        self._engine.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return Pruned(gone, freed)

    def _tell(self, action: str, name: str) -> None:
        self._engine.events.emit("volume", action, name, {"driver": DRIVER})

    def document(self, volume: Volume) -> dict[str, Any]:
        """A volume as the API shows it."""
        return {
            "CreatedAt": volume.created,
            "Driver": volume.driver,
            "Labels": labels_of(volume) or None,
            "Mountpoint": str(self._store.path(volume.name)),
            "Name": volume.name,
            "Options": volume.options or None,
            "Scope": "local",
        }

    async def documents_with_usage(self) -> list[dict[str, Any]]:
        """All volumes with UsageData: bytes, and how many containers mount each."""
        found = []
        for volume in await asyncio.to_thread(self._store.list):
            size = await asyncio.to_thread(trees.size_bytes, self._store.path(volume.name))
            usage = {"Size": size, "RefCount": len(self.users(volume.name))}
            found.append({**self.document(volume), "UsageData": usage})
        return found


def labels_of(volume: Volume) -> dict[str, str]:
    """The user's labels, and Docker's own of an anonymous volume."""
    return {**volume.labels, ANONYMOUS_LABEL: ""} if volume.anonymous else volume.labels


def _check_names(filters: Filters, known: Collection[str]) -> None:
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def _flag(filters: Filters, name: str) -> bool | None:
    """A boolean filter; None: not given."""
    values = {value.lower() for value in filters.get(name, [])}
    if not values:
        return None
    if values <= set(_TRUE):
        return True
    if values <= set(_FALSE):
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{' '.join(filters[name])}]'")


def _fits(volume: Volume, filters: Filters) -> bool:
    labels = labels_of(volume)
    names, drivers = filters.get("name", []), filters.get("driver", [])
    return (
        (not names or any(_matches(pattern, volume.name) for pattern in names))
        and (not drivers or volume.driver in drivers)
        and all(listing.has_label(labels, wanted) for wanted in filters.get("label", []))
        and not any(listing.has_label(labels, wanted) for wanted in filters.get("label!", []))
    )


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return pattern in name
