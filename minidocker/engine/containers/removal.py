"""Removing containers: one, or all that are stopped.

Source  Docker Engine API 1.44: ContainerDelete, ContainerPrune; texts recorded from dockerd.
Rules   - renaming the directory aside is the true point at which a container is gone: a crash before it leaves the
          container, a crash after it leaves files that the next daemon removes.
        - its new name says whether its anonymous volumes go with it, so the next daemon finishes that, too.
        - the name is free as soon as the removal begins.
"""

import asyncio
import contextlib
import logging
import os
import select
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minidocker.engine import clock
from minidocker.engine.containers import listing
from minidocker.engine.containers.container import CREATED, DEAD, RECORD_NAME, RESTARTING, Container, Record
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound
from minidocker.runtime.remains import Adopted
from minidocker.storage import records, trees

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

REMOVING, WITH_VOLUMES = ".removing", ".with-volumes"
_SWEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune answers: IDs, and bytes given back."""

    ids: list[str]
    bytes_freed: int


class Removal:
    """The ends of containers."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it. Raises Conflict: it runs and `force` is not given, or is being removed already."""
        state = container.state
        if container.record.removing:
            raise Conflict(f"removal of container {container.id} is already in progress")
        if state.running or state.status == RESTARTING:
            if not force:
                verb = "Unpause and then stop" if state.status == "paused" else "Stop"
                kind = "paused" if state.status == "paused" else "running" if state.running else "restarting"
                raise Conflict(
                    f"You cannot remove a {kind} container {container.id}. {verb} the container before attempting "
                    "removal or force remove"
                )
            keep, container.record.host.auto_remove = container.record.host.auto_remove, False
            try:
                await self._engine.running.end(container)
            finally:
                container.record.host.auto_remove = keep
        await self.discard(container, volumes=volumes)

    async def discard(self, container: Container, *, volumes: bool) -> None:
        """Remove a container that does not run, with its anonymous volumes if asked."""
        async with container.lock:
            if container.removed:
                return
            if container.state.running:
                raise Conflict(f"container {container.id} is running; stop it first")
            self._engine.supervision.cancel_restart(container)
            record = container.record
            record.removing = True
            self._engine.containers.free_name(container)
            try:
                async with self._engine.volumes.holding(record):
                    owned = self._engine.volumes.owned_by(record) if volumes else []
                    aside = await asyncio.to_thread(self._delete, container, owned)
                    await self._engine.volumes.take_away(owned)
            except BaseException as error:
                record.removing = False
                record.state.status = DEAD
                record.state.error = str(error)
                self._engine.containers.keep_name(container)
                raise
            self._engine.background.spawn(asyncio.to_thread(trees.remove, aside))
            self._engine.containers.drop(container)
            self._engine.execs.forget_container(container)
            self._engine.events.emit("container", "destroy", record.id, container.attributes())
            container.tell_removal()

    def _delete(self, container: Container, owned: list[str]) -> Path:
        """In a thread. Renaming the directory aside is the true point at which the container is gone.

        Returns the new place, whose files are removed later, by the next daemon at the latest.
        """
        self._engine.runtime.forget(container.id)
        aside = container.directory.with_name(f".{container.id}{WITH_VOLUMES if owned else ''}{REMOVING}")
        try:
            os.rename(container.directory, aside)
        except FileNotFoundError:
            pass
        return aside

    def sweep(self, one: Adopted) -> None:
        """A container that no record tells of: the leftover of a remove that a crash cut short."""
        runtime = self._engine.runtime
        try:
            if one.monitor_pidfd is not None:
                try:
                    runtime.kill_all(one.id)
                    poll = select.poll()
                    poll.register(one.monitor_pidfd, select.POLLIN)
                    poll.poll(_SWEEP_SECONDS * 1000)
                finally:
                    os.close(one.monitor_pidfd)
            runtime.forget(one.id)
        except MinidockerError as error:
            log.warning("leftover not removed", extra={"container": one.id, "reason": str(error)})

    def repair(self, directory: Path) -> None:
        """At start: finish the removals that a crash cut short. directory: of all containers."""
        for aside in list(directory.glob(f".*{REMOVING}")):
            try:
                if WITH_VOLUMES in aside.name:
                    with contextlib.suppress(NotFound):  # the record goes after the volumes
                        record = records.read(aside / RECORD_NAME, Record)
                        self._engine.volumes.take_away_at_start(self._engine.volumes.owned_by(record))
                trees.remove(aside)
            except (MinidockerError, OSError) as error:
                log.warning("leftover of a container not removed", extra={"path": str(aside), "reason": str(error)})

    async def prune(self, filters: dict[str, list[str]]) -> Pruned:
        """Remove all that are stopped. Filters: until, label, label!."""
        for name in filters:
            if name not in ("until", "label", "label!"):
                raise InvalidArgument(f"invalid filter '{name}'")
        if len(filters.get("until", [])) > 1:
            raise InvalidArgument("more than one until filter specified")
        until = clock.parse_moment(filters["until"][0]) if filters.get("until") else None
        removed, freed = [], 0
        for container in list(self._engine.containers.all()):
            if self._prunable(container, filters, until):
                size = await asyncio.to_thread(trees.size_bytes, container.directory / "upper")
                await self.discard(container, volumes=False)
                removed.append(container.id)
                freed += size
        self._engine.events.emit("container", "prune", "", {"reclaimed": str(freed)})
        return Pruned(removed, freed)

    @staticmethod
    def _prunable(container: Container, filters: dict[str, list[str]], until: int | None) -> bool:
        labels = container.record.config.labels or {}
        return (
            container.state.status in (CREATED, "exited", "dead")
            and (until is None or clock.nanoseconds_of(container.record.created) < until)
            and all(listing.has_label(labels, value) for value in filters.get("label", []))
            and not any(listing.has_label(labels, value) for value in filters.get("label!", []))
        )
