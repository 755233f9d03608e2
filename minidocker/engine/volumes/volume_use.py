"""Volumes that are mounted before they are used: the local driver's with a device, and those of plugins.

Source  Docker's reference of `docker volume create`; "Volume plugin" protocol: Mount and Unmount with an ID each use.
Rules   - the first user of a local volume mounts it, the last one lets go of it. Users are counted by name, in memory:
          at the daemon's start the containers that live are its users, and what is mounted for nobody is unmounted.
        - a plugin counts itself: each use has an ID. IDs are written into the container's directory before the plugin
          hears of them, so that the next daemon can give them back.
        - a plugin that does not answer an Unmount keeps nobody waiting: after a moment it goes on in the background.
"""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from minidocker.engine.containers.container import Container, MountPoint, Record
from minidocker.errors import InvalidArgument, KernelError, MinidockerError, Unavailable
from minidocker.linux.rooted_paths import open_beneath
from minidocker.oci import codec
from minidocker.storage import volume_mounts
from minidocker.storage.volumes import LOCAL

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

HELD_NAME = "mounted.json"  # in a container's directory: what plugins hold for it
_PATIENCE_SECONDS = 2.0


class Held(msgspec.Struct, frozen=True):
    """One use of a plugin's volume."""

    driver: str
    name: str
    mount_id: str
    destination: str = ""


class VolumeUse:
    """Who uses which mounted volume. Used from the loop's thread."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._store = engine.volume_store
        self._users: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._left: list[Held] = []

    async def take(self, record: Record, directory: Path, *, why: bool = True) -> None:
        """Mount all that a container needs, and fill in where it is.

        directory  the container's.
        why        the error says which mount it was about, as at a start.
        Raises     MinidockerError: one cannot be mounted; then none is.
        """
        points = [point for point in record.mounts if point.type == "volume" and point.to_mount]
        if not points:
            return
        try:
            self._begin_remote(points, directory)
            for number, point in enumerate(points, 1):
                try:
                    await self._take_one(record, point, why=why)
                except BaseException as error:
                    for other in points[number if isinstance(error, Unavailable) else number - 1 :]:
                        other.mount_id = ""  # the plugin holds nothing by these
                    raise
        except BaseException:
            await self.give_back(record, directory)
            raise

    def _begin_remote(self, points: list[MountPoint], directory: Path) -> None:
        remote = [point for point in points if point.driver != LOCAL]
        for point in remote:
            point.mount_id = secrets.token_hex(32)
        if remote:
            held = [Held(point.driver, point.name, point.mount_id, point.destination) for point in remote]
            (directory / HELD_NAME).write_bytes(codec.encode(held))

    async def _take_one(self, record: Record, point: MountPoint, *, why: bool) -> None:
        try:
            if point.driver == LOCAL:
                await self._mount_local(_user(record, point), point.name)
            else:
                async with self._lock(point.name):
                    mount = self._engine.volumes.drivers.mount
                    point.source = await mount(point.driver, point.name, point.mount_id)
        except MinidockerError as error:
            prefix = f"error while mounting volume '{point.source}': " if why else ""
            kind = Unavailable if isinstance(error, Unavailable) else MinidockerError
            raise kind(f"{prefix}{error}") from error

    async def _mount_local(self, user: str, name: str) -> None:
        async with self._lock(name):
            users = self._users.setdefault(name, set())
            if not users:
                options = self._store.get(name).options
                await asyncio.to_thread(volume_mounts.mount, self._store.path(name), options)
            users.add(user)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def give_back(self, record: Record, directory: Path) -> None:
        """A container needs its volumes no more. Failures are logged: its end has happened."""
        held, remote = [], False
        for point in record.mounts:
            if point.type != "volume" or not point.to_mount:
                continue
            if point.driver == LOCAL:
                await self._unmount_local(_user(record, point), point.name)
                continue
            remote = True
            if point.mount_id:
                held.append(Held(point.driver, point.name, point.mount_id))
                point.mount_id = ""
        if held:
            await self._give_back_remote(held, directory / HELD_NAME)
        elif remote:
            (directory / HELD_NAME).unlink(missing_ok=True)

    async def _unmount_local(self, user: str, name: str) -> None:
        async with self._lock(name):
            users = self._users.get(name, set())
            if user not in users:
                return
            users.discard(user)
            if users:
                return
            del self._users[name]
            try:
                await asyncio.to_thread(volume_mounts.unmount, self._store.path(name))
            except MinidockerError as error:
                log.warning("volume not unmounted", extra={"volume": name, "reason": str(error)})

    async def _give_back_remote(self, held: list[Held], marker: Path | None) -> None:
        async def work() -> None:
            await asyncio.gather(*map(self._unmount_remote, held))
            if marker is not None:
                with contextlib.suppress(OSError):
                    if codec.decode(marker.read_bytes(), list[Held], "mounts held")[0].mount_id == held[0].mount_id:
                        marker.unlink(missing_ok=True)  # not that of a start that came meanwhile

        await asyncio.wait({self._engine.background.spawn(work())}, timeout=_PATIENCE_SECONDS)

    async def _unmount_remote(self, one: Held) -> None:
        async with self._lock(one.name):  # in the order of the calls, also if this one is slow
            try:
                await self._engine.volumes.drivers.unmount(one.driver, one.name, one.mount_id)
            except MinidockerError as error:
                log.warning("volume not unmounted", extra={"volume": one.name, "reason": str(error)})

    @asynccontextmanager
    async def held(self, record: Record, directory: Path, *, why: bool = True) -> AsyncIterator[None]:
        """The volumes of a container that does not run are mounted meanwhile. For who holds its lock."""
        await self.take(record, directory, why=why)
        try:
            yield
        finally:
            await self.give_back(record, directory)

    # -- the daemon's start --

    def adopt(self, container: Container) -> None:
        """A container was found alive: it uses its volumes."""
        held = {one.destination: one for one in held_in(container.directory)}
        for point in container.record.mounts:
            if point.type == "volume" and point.to_mount and point.driver == LOCAL:
                self._users.setdefault(point.name, set()).add(_user(container.record, point))
            elif point.destination in held:
                point.mount_id = held[point.destination].mount_id

    def settle(self, directory: Path) -> None:
        """A container's directory was found and it does not run: plugins shall give back what they hold for it."""
        self._left += held_in(directory)
        (directory / HELD_NAME).unlink(missing_ok=True)

    def sweep(self) -> None:
        """In a thread, once all living containers were found: unmount what is mounted for nobody."""
        for name in volume_mounts.mounted(self._store.directory) - set(self._users):
            log.warning("volume was left mounted", extra={"volume": name})
            try:
                volume_mounts.unmount(self._store.path(name))
            except MinidockerError as error:
                log.warning("volume not unmounted", extra={"volume": name, "reason": str(error)})

    async def finish(self) -> None:
        """After the start, in the background: ask the plugins to give back what nobody uses."""
        left, self._left = self._left, []
        if left:
            await self._give_back_remote(left, None)


def held_in(directory: Path) -> list[Held]:
    """What plugins hold for the container of that directory."""
    try:
        return codec.decode((directory / HELD_NAME).read_bytes(), list[Held], "mounts held")
    except (OSError, MinidockerError):
        return []


def _user(record: Record, point: MountPoint) -> str:
    return f"{record.id} {point.destination}"


def check_subpaths(points: list[MountPoint]) -> None:
    """At start, once volumes are mounted: the parts of volumes that are wanted are there, and inside.

    Only for a good error: pid 1 opens them again, by the same rule.
    Raises  InvalidArgument.
    """
    for point in points:
        if not point.subpath:
            continue
        try:
            os.close(open_beneath(point.source, point.subpath, os.O_PATH))
        except KernelError as error:
            reason = "it leads out of the volume" if error.errno == errno.EXDEV else (error.strerror or "").lower()
            raise InvalidArgument(f"cannot access path {point.path}: {reason}") from None
