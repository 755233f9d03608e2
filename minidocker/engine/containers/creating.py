"""Creating a container: a request becomes a record, directories and volumes.

Source  Docker Engine API 1.44, ContainerCreate; texts recorded from dockerd.
Rules   - all that can be made before start is made here; the record comes last and is one fsync: with it the container
          exists.
        - on failure nothing stays; what a crash leaves, the next start removes (`Containers.load`).
"""

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minidocker.engine import abilities, clock, names
from minidocker.engine.containers import defaults, mounts, spec, user_namespaces, validate
from minidocker.engine.containers.config import ContainerConfig, CreateRequest, EndpointRequest, HostConfig
from minidocker.engine.containers.container import RECORD_NAME, Container, Record, State
from minidocker.engine.containers.containers import INTENT_NAME
from minidocker.engine.containers.copying import MARK
from minidocker.engine.logs import log_drivers
from minidocker.engine.networks import attachments
from minidocker.engine.volumes import volume_use
from minidocker.errors import InvalidArgument, KernelError, MinidockerError, NotFound
from minidocker.oci import codec
from minidocker.oci.manifest import Platform
from minidocker.oci.reference import Reference
from minidocker.storage import records
from minidocker.storage.images import Image
from minidocker.storage.volumes import Volume

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

_DIRECTORIES = ("upper", "work", "rootfs")


@dataclass(frozen=True, slots=True)
class Created:
    """What a create answers."""

    id: str
    warnings: list[str] = field(default_factory=list)


class Creating:
    """Creates the containers of one engine. Used from the loop's thread."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def create(self, request: CreateRequest, name: str = "", platform: str = "") -> Created:
        """Make a container.

        Raises  InvalidArgument: see `validate`. NotFound: no such image, network or joined container.
                Conflict: the name is in use.
        """
        engine = self._engine
        wanted = names.check_name(name) if name else engine.containers.random_name()
        if request.config == ContainerConfig():
            raise InvalidArgument("Config cannot be empty in order to create a container")
        if not request.config.image:
            raise InvalidArgument("invalid reference format: no image was given")
        image = self._find_image(request.config.image, platform)
        record, warnings = self._record(request, wanted, image)
        container = Container(record, engine.containers.directory / record.id)
        engine.containers.reserve(wanted, record.id)
        try:
            async with engine.volumes.holding(record):
                new_volumes = await self._make(container)
                engine.containers.add(container)
        except BaseException:
            engine.containers.free_name(container)
            raise
        for volume in new_volumes:
            engine.volumes.tell_created(volume)
        engine.events.emit("container", "create", record.id, container.attributes())
        return Created(record.id, warnings)

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
        validate.check_joined_network(request.host, request.config)
        config = defaults.merge_image(request.config, image.config.execution)
        validate.check_config(config)
        validate.check_host(request.host, config)
        host, warnings = abilities.adapt(defaults.fill_host(request.host), self._engine.abilities)
        host.log_config = log_drivers.merge(request.host.log_config, self._engine.settings.log)
        log_drivers.check(host.log_config)
        networks = self._networks(request, host)
        self._resolve_joined(host)
        id = names.new_id()
        config.hostname = config.hostname or self._hostname(host, id)
        path, args = spec.exec_arguments_of(config)
        points = mounts.plan(config, host, lambda other: self._engine.containers.get(other).record.mounts)
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
            found[self._engine.containers.network_name(text)] = endpoint
        first = self._engine.containers.network_name(first)
        if not found or (first not in found and host.network_mode not in ("default", "bridge", "")):
            found = {first: EndpointRequest(), **found}
        for name, endpoint in found.items():
            with contextlib.suppress(NotFound):
                attachments.check_request(self._engine.networks.get(name), endpoint)
        return found

    def _resolve_joined(self, host: HostConfig) -> None:
        """Note the IDs of the containers whose namespaces are to be joined: names may change.

        Raises  InvalidArgument: there is none, for PIDs and IPC; for the network that is seen at start, as Docker does.
        """
        find, joins = self._engine.containers.get, "container:"
        for mode in ("pid_mode", "ipc_mode", "network_mode"):
            text: str = getattr(host, mode)
            if text.startswith(joins):
                try:
                    setattr(host, mode, joins + find(text.removeprefix(joins)).id)
                except NotFound as error:
                    if mode != "network_mode":
                        raise InvalidArgument(str(error)) from None

    def _hostname(self, host: HostConfig, id: str) -> str:
        """The joined container's name, the host's, or the short ID. A joined one that is missing is seen at start."""
        joined, mode = None, host.network_mode
        if mode.startswith("container:"):
            with contextlib.suppress(NotFound):
                joined = self._engine.containers.get(mode.removeprefix("container:"))
        if joined is not None:
            return joined.record.config.hostname
        return os.uname().nodename if mode == "host" else id[:12]

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
        if not user_namespaces.is_own(container.record.host):  # there it would be nobody's
            (container.directory / f"upper{MARK}").touch(0o755)
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
                self._engine.copy_up(record, point)
                point.copy_up = False

    @staticmethod
    def _warnings(record: Record) -> list[str]:
        warnings = []
        if record.host.privileged and record.host.masked_paths is not None:
            warnings.append("masked paths are set on a privileged container")
        if record.host.network_mode == "host" and record.host.port_bindings:
            warnings.append("Published ports are discarded when using host network mode")
        return warnings


def _with_tag(text: str) -> str:
    """A reference as Docker repeats it in "No such image"."""
    try:
        return Reference.parse(text).familiar
    except InvalidArgument:
        return text


def _same_platform(wanted: str, image: Image) -> bool:
    platform, actual = Platform.parse(wanted), image.config.platform
    return (platform.os, platform.architecture) == (actual.os, actual.architecture)
