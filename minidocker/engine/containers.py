"""The containers of an engine: create, find, list, rename. Removal is in removal.py.

Source  Docker Engine API 1.44, Container*; texts recorded from dockerd.
Rules   - a name is reserved in memory before anything is made, and freed with the container.
        - create makes all that can be made before start: directories, volumes, the record; one record is one fsync.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidocker.engine import (
    abilities,
    attachments,
    clock,
    defaults,
    listing,
    log_drivers,
    mounts,
    names,
    spec,
    validate,
    views,
    volume_use,
)
from minidocker.engine.config import CreateRequest, EndpointRequest, HostConfig
from minidocker.engine.container import RECORD_NAME, Container, Record, State
from minidocker.errors import Conflict, InvalidArgument, KernelError, MinidockerError, NotFound
from minidocker.oci import codec
from minidocker.oci.reference import Reference
from minidocker.storage import records, trees
from minidocker.storage.images import Image
from minidocker.storage.volumes import LOCAL, Volume

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

INTENT_NAME = "creating.json"  # says which volumes a create that a crash cut short has made for itself alone
_DIRECTORIES = ("upper", "work", "rootfs")


@dataclass(frozen=True, slots=True)
class Created:
    """What a create answers."""

    id: str
    warnings: list[str] = field(default_factory=list)


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
        """The container of a name, an ID, or the beginning of one.

        Raises  NotFound. InvalidArgument: several begin like that.
        """
        plain = text.removeprefix("/")
        id = plain if plain in self._by_id else self._ids.get(plain)
        if id is not None and id in self._by_id:
            return self._by_id[id]
        found = [id for id in self._by_id if plain and id.startswith(plain)]
        if len(found) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {text}")
        if not found:
            raise NotFound(f"No such container: {text}")
        return self._by_id[found[0]]

    def chains_in_use(self) -> set[str]:
        """Top chain IDs of layers that a container stands on."""
        return {container.record.chain for container in self._by_id.values() if container.record.chain}

    def using_image(self, image_id: str) -> list[Container]:
        """The containers made from an image."""
        return [c for c in self._by_id.values() if c.record.image_id == image_id]

    # -- create --

    async def create(self, request: CreateRequest, name: str = "", platform: str = "") -> Created:
        """Make a container.

        Raises  InvalidArgument: see `validate`. NotFound: no such image, network or joined container.
                Conflict: the name is in use.
        """
        engine = self._engine
        wanted = names.check_name(name) if name else names.random_name(self._ids)
        if not request.config.image:
            raise InvalidArgument("invalid reference format: no image was given")
        image = self._find_image(request.config.image, platform)
        record, warnings = self._record(request, wanted, image)
        id = record.id
        if wanted in self._ids:
            raise Conflict(
                f'Conflict. The container name "/{wanted}" is already in use by container "{self._ids[wanted]}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._ids[wanted] = id
        try:
            container = Container(record, self.directory / id)
            async with engine.volumes.holding(record):
                new_volumes = await self._make(container)
                self._by_id[id] = container
        except BaseException:
            self._ids.pop(wanted, None)
            raise
        for volume in new_volumes:
            engine.volumes.tell_created(volume)
        engine.events.emit("container", "create", id, container.attributes())
        return Created(id, warnings)

    def _find_image(self, text: str, platform: str) -> Image:
        try:
            image = self._engine.image_store.find(text)
        except NotFound:
            raise NotFound(f"No such image: {_with_tag(text)}") from None
        if platform and not _same_platform(platform, image):
            raise NotFound(
                f"image with reference {text} was found but does not match the specified platform: "
                f"wanted {platform}, actual: {image.config.platform}"
            )
        return image

    def _record(self, request: CreateRequest, name: str, image: Image) -> tuple[Record, list[str]]:
        """The record, and warnings of what was dropped from the request."""
        validate.check_config(request.config)
        config = defaults.merge_image(request.config, image.config.execution)
        validate.check_config(config)
        validate.check_host(request.host, config)
        host, warnings = abilities.adapt(defaults.fill_host(request.host), self._engine.abilities)
        host.log_config = log_drivers.merge(request.host.log_config, self._engine.settings.log)
        log_drivers.check(host.log_config)
        networks = self._networks(request, host)
        id = names.new_id()
        config.hostname = config.hostname or self._hostname(host, id)
        path, args = spec.exec_arguments_of(config)
        points = mounts.plan(config, host, lambda other: self.get(other).record.mounts)
        mounts.name_anonymous(points)
        for point in points:
            point.read_only_below = point.read_only_below and request.read_only_below
        record = Record(
            id=id,
            name=name,
            created=clock.now(),
            image=request.config.image,
            image_id=str(image.id),
            config=config,
            host=host,
            networks=networks,
            links=self._engine.links.resolve(host.links or []) if attachments.on_default(host) else {},
            lowerdir=self._engine.lowerdir(image),
            chain=str(image.chain_ids[-1]) if image.chain_ids else "",
            path=path,
            args=args,
            mounts=points,
            state=State(),
        )
        return record, warnings + self._warnings(record)

    def _networks(self, request: CreateRequest, host: HostConfig) -> dict[str, EndpointRequest]:
        """What it is to be connected to, by network name: that of the mode first, unless others are named instead.

        A network that is not there is seen at start, as Docker does.
        """
        first = attachments.first_network(host, disabled=request.config.network_disabled)
        if not first:
            return {}
        found: dict[str, EndpointRequest] = {}
        for text, endpoint in request.endpoints.items():
            found[self._network_name(text)] = endpoint
        first = self._network_name(first)
        if not found or (first not in found and host.network_mode not in ("default", "bridge", "")):
            found = {first: EndpointRequest(), **found}
        for name, endpoint in found.items():
            with contextlib.suppress(NotFound):
                attachments.check_request(self._engine.networks.get(name), endpoint)
        return found

    def _network_name(self, text: str) -> str:
        name = attachments.MODE_NAMES.get(text, text)
        if name == attachments.DEFAULT and self._engine.network is None:
            return "none"  # `--bridge none`
        try:
            return self._engine.networks.get(name).name
        except NotFound:
            return name

    def _hostname(self, host: HostConfig, id: str) -> str:
        """The joined container's name, the host's, or the short ID. A joined one that is missing is seen at start."""
        joined, mode = None, host.network_mode
        if mode.startswith("container:"):
            with contextlib.suppress(NotFound):
                joined = self.get(mode.removeprefix("container:"))
        if joined is not None:
            return joined.record.config.hostname
        return os.uname().nodename if "host" in (host.uts_mode, mode) else id[:12]

    async def _make(self, container: Container) -> list[Volume]:
        """Directories, volumes, record. On failure nothing stays. Returns the volumes that are new."""
        made: list[Volume] = []
        volumes, points = self._engine.volumes, container.record.mounts
        try:
            if not any(point.type == "volume" for point in points):
                await asyncio.to_thread(self._make_alone, container)
                return []
            await asyncio.to_thread(self._make_directories, container)
            made = await volumes.materialise(container.record)
            if any(point.copy_up for point in points):
                async with self._engine.volume_use.held(container.record, container.directory, why=False):
                    await asyncio.to_thread(self._fill_volumes, container.record)
            await asyncio.to_thread(self._write_record, container)
        except BaseException as error:
            await volumes.take_away([volume.name for volume in made], told=False)
            await asyncio.to_thread(shutil.rmtree, container.directory, ignore_errors=True)
            if isinstance(error, OSError) and not isinstance(error, MinidockerError):
                raise KernelError("create container", container.directory, error.errno or 0) from error
            raise
        return made

    def _make_alone(self, container: Container) -> None:
        """In a thread: a container without volumes."""
        self._make_directories(container)
        self._write_record(container)

    @staticmethod
    def _make_directories(container: Container) -> None:
        container.directory.mkdir(mode=0o710)
        for name in _DIRECTORIES:
            (container.directory / name).mkdir(mode=0o755)
            (container.directory / name).chmod(0o755)
        if any(point.owned for point in container.record.mounts):
            (container.directory / INTENT_NAME).write_bytes(codec.encode(container.record))

    @staticmethod
    def _write_record(container: Container) -> None:
        records.write(container.directory / RECORD_NAME, container.record)  # from here on the container exists
        (container.directory / INTENT_NAME).unlink(missing_ok=True)

    def _fill_volumes(self, record: Record) -> None:
        """In a thread: what the image has where volumes will be goes into those that are empty."""
        volume_use.check_subpaths(record.mounts)
        for point in record.mounts:
            if point.type == "volume" and point.copy_up:
                self._engine.starter.copy_up(record, point)
                point.copy_up = False

    @staticmethod
    def _warnings(record: Record) -> list[str]:
        warnings = []
        if record.host.privileged and record.host.masked_paths is not None:
            warnings.append("masked paths are set on a privileged container")
        if record.host.network_mode == "host" and record.host.port_bindings:
            warnings.append("Published ports are discarded when using host network mode")
        return warnings

    # -- list --

    def select(self, query: listing.ListQuery) -> list[Container]:
        """See `listing.select`. Networks may be named by their IDs."""
        filters = dict(query.filters or {})
        if "network" in filters:
            filters["network"] = [self._network_name(text) for text in filters["network"]]
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

    def summary(self, container: Container, version: views.Version) -> dict[str, Any]:
        """One entry of the list."""
        record = container.record
        network_id = self._engine.networks.id_of
        health = container.health.words if container.health is not None else ""
        image = self._shown_image(record)
        return views.summary(record, image=image, network_id=network_id, version=version, health=health)

    def _shown_image(self, record: Record) -> str:
        """The image's name as it was given; its ID once the name means another image or none."""
        try:
            still = str(self._engine.image_store.find(record.image).id) == record.image_id
        except MinidockerError:
            still = False
        return record.image if still else record.image_id

    # -- change --

    async def rename(self, container: Container, name: str) -> None:
        """Give it another name. Raises InvalidArgument: no name, the same name. Conflict: in use."""
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
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

    def users_of_volume(self, name: str) -> list[Container]:
        """The containers, running or not, that mount a volume."""
        return [c for c in self._by_id.values() if any(p.name == name and p.type == "volume" for p in c.record.mounts)]


def _with_tag(text: str) -> str:
    """A reference as Docker repeats it in "No such image"."""
    try:
        return Reference.parse(text).familiar
    except InvalidArgument:
        return text


def _same_platform(wanted: str, image: Image) -> bool:
    parts = wanted.lower().split("/")
    actual = image.config.platform
    architecture = parts[1] if len(parts) > 1 else ""
    return parts[0] == actual.os and architecture in ("", actual.architecture)
