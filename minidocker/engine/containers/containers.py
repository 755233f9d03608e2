"""The containers of an engine: find, list, rename. They come by creating.py and go by removal.py.

Source  Docker Engine API 1.44, Container*; texts recorded from dockerd.
Rules   - a name is reserved in memory before anything is made, and freed with the container.
        - a directory without a record is the leftover of a create, and goes at the next start.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidocker.engine import names
from minidocker.engine.containers import listing, views
from minidocker.engine.containers.container import RECORD_NAME, Container, Record
from minidocker.engine.networks import attachments
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound
from minidocker.storage import records, trees
from minidocker.storage.volumes import LOCAL

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

INTENT_NAME = "creating.json"  # says which volumes a create that a crash cut short has made for itself alone


class Containers:
    """All containers, by ID and by name. Used from the loop's thread."""

    def __init__(self, engine: "Engine", directory: Path) -> None:
        self._engine = engine
        self.directory = directory
        self._by_id: dict[str, Container] = {}
        self._ids: dict[str, str] = {}

    def load(self) -> None:
        """At start: read the records. A directory without one is the leftover of a create that did not finish."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished: list[Path] = []
        for entry in list(os.scandir(self.directory)):
            if not entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):  # those are removal.py's
                continue
            try:
                record = records.read(Path(entry.path) / RECORD_NAME, Record)
            except NotFound:
                unfinished.append(Path(entry.path))
                continue
            except InvalidArgument as error:  # no crash does that: its files may be all that someone has
                log.error("container is damaged and left out", extra={"path": entry.path, "reason": str(error)})
                continue
            container = Container(record, Path(entry.path))
            self._engine.health.load(container)
            self._by_id[record.id] = container
            self._ids[record.name] = record.id
        for directory in unfinished:  # only now: others may have the same volumes
            self._undo_create(directory)

    def _undo_create(self, directory: Path) -> None:
        log.warning("leftover of a create removed", extra={"path": str(directory)})
        with contextlib.suppress(NotFound, InvalidArgument):
            unfinished = records.read(directory / INTENT_NAME, Record)
            self._engine.volumes.take_away_at_start(self._engine.volumes.owned_by(unfinished))
        self._engine.volume_use.settle(directory)
        trees.remove(directory)

    # -- find --

    def all(self) -> Collection[Container]:
        return self._by_id.values()

    def get(self, text: str) -> Container:
        """The container of a name, an ID, the beginning of one, or a link ("container/alias").

        Raises  NotFound. InvalidArgument: several begin like that, or it is empty.
        """
        if not text:
            raise InvalidArgument('invalid name or ID supplied: ""')
        plain = text.removeprefix("/")
        id = plain if plain in self._by_id else self._ids.get(plain)
        if id is not None and id in self._by_id:
            return self._by_id[id]
        if "/" in plain and (linked := self._engine.links.target(plain)) in self._by_id and linked is not None:
            return self._by_id[linked]
        found = [id for id in self._by_id if plain and id.startswith(plain)]
        if len(found) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {text}")
        if not found:
            raise NotFound(f"No such container: {text}")
        return self._by_id[found[0]]

    def using_image(self, image_id: str) -> list[Container]:
        """The containers made from an image."""
        return [c for c in self._by_id.values() if c.record.image_id == image_id]

    def network_name(self, text: str) -> str:
        """The name of the network that a text of a request means; the text itself, if there is none."""
        name = attachments.MODE_NAMES.get(text, text)
        if name == attachments.DEFAULT and self._engine.network is None:
            return "none"  # `--bridge none`
        try:
            return self._engine.networks.get(name).name
        except NotFound:
            return name

    # -- names and places --

    def random_name(self) -> str:
        """A name that none has."""
        return names.random_name(self._ids)

    def reserve(self, name: str, id: str) -> None:
        """Take a name for a container that is about to be made. Raises Conflict: it is in use."""
        if name in self._ids:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._ids[name]}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._ids[name] = id

    def add(self, container: Container) -> None:
        """It is made: from now on it is found."""
        self._by_id[container.id] = container

    # -- list --

    def select(self, query: listing.ListQuery) -> list[Container]:
        """See `listing.select`. Networks may be named by their IDs."""
        filters = dict(query.filters or {})
        if "network" in filters:
            filters["network"] = [self.network_name(text) for text in filters["network"]]
        query = dataclasses.replace(query, filters=filters)
        return listing.select(self._by_id.values(), query, self.get, self._engine.descendants)

    async def sizes(self, container: Container) -> tuple[int, int]:
        """(bytes in the writable layer, bytes in all)."""
        changed = await asyncio.to_thread(trees.size_bytes, container.directory / "upper")
        return changed, changed + await asyncio.to_thread(self._engine.layers_bytes, container.record.image_id)

    def inspect(self, container: Container, version: views.Version) -> dict[str, Any]:
        """The inspect document."""
        return views.inspect(
            container,
            version=version,
            layers_directory=str(self._engine.layers_directory),
            network_id=self._engine.networks.id_of,
            links=self._engine.links.shown(container.record),
        )

    def summary(
        self, container: Container, version: views.Version, linked: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """One entry of the list. linked: `Links.names`, the same for all entries."""
        record = container.record
        network_id = self._engine.networks.id_of
        health = container.health.words if container.health is not None else ""
        image = self._shown_image(record)
        document = views.summary(record, image=image, network_id=network_id, version=version, health=health)
        document["Names"] += linked.get(record.id, [])
        return document

    def _shown_image(self, record: Record) -> str:
        """The image's name as it was given; its ID once the name means another image or none."""
        try:
            still = str(self._engine.image_store.find(record.image).id) == record.image_id
        except MinidockerError:
            still = False
        return record.image if still else record.image_id

    # -- change --

    async def rename(self, container: Container, name: str) -> None:
        """Give it another name. Raises InvalidArgument: a bad name, the same name. Conflict: in use."""
        try:
            wanted = names.check_name("/" + name.removeprefix("/"))
        except InvalidArgument as error:
            raise InvalidArgument(f"Error when allocating new name: {error}") from None
        async with container.lock:
            old = container.record.name
            if wanted == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            if wanted in self._ids:
                raise Conflict(
                    f'Error when allocating new name: Conflict. The container name "/{wanted}" is already in use by '
                    f'container "{self._ids[wanted]}". You have to remove (or rename) that container to be able to '
                    "reuse that name."
                )
            self._ids[wanted] = container.id
            container.record.name = wanted
            try:
                await container.save()
            except BaseException:
                container.record.name = old
                del self._ids[wanted]
                raise
            self._ids.pop(old, None)
        self._engine.resolving.came(container)
        self._engine.events.emit("container", "rename", container.id, container.attributes(oldName=f"/{old}"))

    def free_name(self, container: Container) -> None:
        """A remove has begun: its name may be used again."""
        self._ids.pop(container.record.name, None)

    def keep_name(self, container: Container) -> None:
        """The remove failed: it keeps its name, unless another took it meanwhile."""
        self._ids.setdefault(container.record.name, container.id)

    def drop(self, container: Container) -> None:
        """It is gone: nobody finds it any more."""
        self._by_id.pop(container.id, None)

    # -- volumes --

    def tell_volumes(self, container: Container, action: str) -> None:
        """Emit the mount or unmount events of a container's volumes."""
        for point in container.record.mounts:
            if point.type == "volume":
                attributes = {"container": container.id, "driver": point.driver or LOCAL}
                if action == "mount":
                    written = str(point.writable).lower()
                    attributes |= {"destination": point.destination, "propagation": "", "read/write": written}
                self._engine.events.emit("volume", action, point.name, attributes)
