"""A container's files from outside: `cp` both ways, `export`, `diff`.

Source  Docker Engine API 1.44: ContainerArchive, ContainerArchiveInfo, PutContainerArchive, ContainerExport,
        ContainerChanges; texts recorded from dockerd.
Rules   - a running container is reached through its first process's root, pinned by a pidfd; any other by a mount of
          the worker's own. The container's lock is held for as long as such a mount lives, since a start would mount
          the same upper directory.
        - what the container's user wrote is never looked up here, only in the worker, within the container's root.
        - mount points that only the runtime made are no changes of the container's.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from minidocker.engine.containers import mounts
from minidocker.engine.containers.container import Container
from minidocker.errors import Conflict, NotFound
from minidocker.registry.client import in_thread
from minidocker.runtime import users
from minidocker.runtime.records import open_process
from minidocker.storage.copying import PathStat
from minidocker.storage.diff import ADDED, CHANGED, Change
from minidocker.storage.worker import Bind, Place, Running, Stopped, Worker

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

T = TypeVar("T")
Emit = Callable[[str], None]
ETC_FILES = ("hosts", "hostname", "resolv.conf")
_REASONS = ("not a directory", "too many levels of symbolic links")  # of the worker, beyond "no such file"
_USERS_LIMIT_BYTES = 1 << 20
MARK = "/.dockerenv"  # an empty file by which programs know that they are in a container
# What is made in a root that lacks it, so that something can be mounted there; and the mark.
PLACEHOLDERS = frozenset((MARK, "/proc", "/sys", "/dev", "/etc", *(f"/etc/{name}" for name in ETC_FILES)))


class Files:
    """The files of one container, for as long as `Copying.open` keeps them reachable."""

    def __init__(self, container: Container, called: str, worker: Worker, place: Place, emit: Emit) -> None:
        self._container = container
        self._called = called
        self._worker = worker
        self._place = place
        self._emit = emit

    async def stat(self, path: str) -> PathStat:
        """Raises NotFound."""
        return await self._found(path, in_thread(self._worker.path_stat, self._place, path))

    async def get(self, path: str, output_fd: int) -> None:
        """`path` and all below it as tar into a descriptor. Raises NotFound; KernelError: EPIPE, its reader is gone."""
        self._emit("archive-path")
        await self._found(path, in_thread(self._worker.archive_get, self._place, path, output_fd))

    async def put(self, path: str, archive_fd: int, *, as_user: bool = False, keep_kind: bool = False) -> None:
        """Extract an archive, compressed or not, into the directory `path`.

        as_user    everything is to belong to the container's own user (`docker cp -a`); else as the archive says.
        keep_kind  a directory and something else never replace each other.
        Raises     NotFound, InvalidArgument, Forbidden (read-only), Conflict (keep_kind), Breakout, KernelError.
        """
        owner = await self._owner() if as_user and self._container.record.config.user else None

        def work() -> None:
            self._worker.archive_put(self._place, path, archive_fd, owner=owner, keep_kind=keep_kind)

        await self._found(path, in_thread(work))
        self._emit("extract-to-dir")

    async def export(self, output_fd: int) -> None:
        """The container's own tree, without what is mounted in it, as tar into a descriptor."""
        self._emit("export")
        await in_thread(self._worker.export, self._place, output_fd)

    async def _owner(self) -> tuple[int, int]:
        def read(path: str) -> str:
            return self._worker.read_text(self._place, path, _USERS_LIMIT_BYTES)

        identity = await in_thread(users.resolve, self._container.record.config.user, (), read)
        return identity.uid, identity.gid

    async def _found(self, path: str, work: Awaitable[T]) -> T:
        try:
            return await work
        except NotFound as error:
            why = str(error).rpartition(": ")[2]
            more = f": {why}" if why in _REASONS else ""
            raise NotFound(f"Could not find the file {path} in container {self._called}{more}") from None


class Copying:
    """The files of an engine's containers."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    @asynccontextmanager
    async def open(
        self, container: Container, called: str = "", *, with_mounts: bool = True
    ) -> AsyncIterator[Files]:
        """Reach a container's files.

        called       what its user calls it: the name in failures.
        with_mounts  False: its own tree alone (export).
        Raises       Conflict: it is being removed. InvalidArgument: the source of one of its mounts is gone.
        """
        pinned = await self._pinned(container)
        if pinned is None:
            async with container.lock:
                if container.removed or container.record.removing:
                    raise Conflict(f"container {container.id} is marked for removal")
                pinned = await self._pinned(container)  # it may have been started while we waited
                if pinned is None:
                    use, record = self._engine.volume_use, container.record
                    async with use.held(record, container.directory) if with_mounts else nullcontext():
                        place = await asyncio.to_thread(self._mounted, container, with_mounts=with_mounts)
                        yield self._files(container, called, place)
                    return
        try:
            yield self._files(container, called, pinned)
        finally:
            os.close(pinned.pidfd)

    def _files(self, container: Container, called: str, place: Place) -> Files:
        def emit(action: str) -> None:
            self._engine.events.emit("container", action, container.id, container.attributes())

        return Files(container, called or container.name, self._engine.worker, place, emit)

    async def _pinned(self, container: Container) -> Running | None:
        return await asyncio.to_thread(self._pin, container.id) if container.state.running else None

    def _pin(self, id: str) -> Running | None:
        """The first process of a running container; None if it has just ended."""
        try:
            state = self._engine.runtime.state(id)
        except NotFound:
            return None
        pidfd = open_process(state.pid, state.start_time)
        return None if pidfd is None else Running(state.pid, pidfd)

    def _mounted(self, container: Container, *, with_mounts: bool) -> Stopped:
        record, directory = container.record, container.directory
        return Stopped(
            str(self._engine.layers_directory),
            record.lowerdir,
            str(directory / "upper"),
            str(directory / "work"),
            self._binds(container) if with_mounts else (),
            record.host.readonly_rootfs,
        )

    def _binds(self, container: Container) -> tuple[Bind, ...]:
        """Volumes, bind mounts and, once it has run, the generated files in /etc."""
        record = container.record
        mounts.prepare_sources(record.mounts)
        binds = []
        for point in record.mounts:
            if point.type in ("volume", "bind"):
                beneath = point.source if point.subpath else ""
                binds.append(Bind(point.path, point.destination, not point.writable, beneath))
        taken = {bind.destination for bind in binds}
        for name in ETC_FILES:
            if f"/etc/{name}" not in taken and (container.directory / name).is_file():
                binds.append(Bind(str(container.directory / name), f"/etc/{name}"))
        return tuple(binds)

    async def changes(self, container: Container) -> list[Change]:
        """What differs from the image, by path."""
        lowers = await asyncio.to_thread(self._lowers, container)
        found = await in_thread(self._engine.worker.changes, container.directory / "upper", lowers)
        return without_placeholders(found)

    def _lowers(self, container: Container) -> list[Path]:
        directory = self._engine.layers_directory
        return [(directory / name).resolve() for name in container.record.lowerdir.split(":")]


def without_placeholders(changes: Sequence[Change]) -> list[Change]:
    """The changes without empty mount points of the runtime, and without directories that changed only by them; pure.

    >>> without_placeholders([Change(0, "/etc"), Change(1, "/etc/hosts"), Change(1, "/x")])
    [Change(kind=1, path='/x')]
    """
    kinds = {path: (CHANGED, ADDED) if path == MARK else (ADDED,) for path in PLACEHOLDERS}  # an image may have one
    added = {change.path for change in changes if change.kind in kinds.get(change.path, ())}
    left = [change for change in changes if change.path not in added or _has_more(change.path, changes, added)]
    for directory in ("/dev", "/etc"):
        only_them = any(path.startswith(f"{directory}/") for path in added)
        others = any(change.path.startswith(f"{directory}/") for change in left)
        if only_them and not others:
            left = [change for change in left if not (change.kind == CHANGED and change.path == directory)]
    return left


def _has_more(path: str, changes: Sequence[Change], added: set[str]) -> bool:
    """Whether a made directory holds anything that the runtime did not make."""
    return any(change.path.startswith(f"{path}/") and change.path not in added for change in changes)
