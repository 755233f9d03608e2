"""Images made here without a build: `commit` of a container, `import` of a filesystem's archive.

Source  Docker Engine API 1.44: ImageCommit, ImageCreate with fromSrc; moby's image configs of both.
Rules   - a commit's layer is the container's upper directory, read while the container is frozen; volumes are no part.
        - a commit that changes no file adds no layer, only a step in the history.
        - an image appears, with its name, after all of it is in place.
"""

import contextlib
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.engine import clock
from minidocker.engine.containers.container import DEAD, PAUSED, RESTARTING, Container
from minidocker.engine.containers.copying import PLACEHOLDERS
from minidocker.errors import Conflict, InvalidArgument
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, Healthcheck, History, ImageConfig, RootFS
from minidocker.oci.manifest import DOCKER_LAYER, Platform
from minidocker.oci.reference import Reference
from minidocker.registry.client import in_thread
from minidocker.storage.compression import Readable, decompress, detect
from minidocker.storage.images import Image, ImageLayer
from minidocker.storage.layers import Layer

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

GZIP_LAYER = DOCKER_LAYER + ".gzip"
_HEAD_BYTES, _PIECE_BYTES = 16, 1 << 20
EMPTY_LAYER = Digest.of(bytes(10 << 10))  # an archive without entries, as our writer ends it


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the new image is to be.

    reference  its name; None: none.
    change     what its configuration becomes (Dockerfile instructions, which this room does not know).
    """

    reference: Reference | None = None
    change: Callable[[ExecutionConfig], ExecutionConfig] = lambda config: config
    comment: str = ""
    author: str = ""


def reference_of(repository: str, tag: str, verb: str) -> Reference | None:
    """The name that a request asks for; None: none. Raises InvalidArgument: not a name, or one with a digest."""
    if not repository:
        return None
    reference = Reference.parse(repository)
    if reference.digest is not None:
        raise InvalidArgument(f"cannot {verb} digest reference")
    return reference.with_tag(tag) if tag else reference


class Committing:
    """Commit and import on one engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def commit(
        self, container: Container, wanted: Wanted, config: ExecutionConfig | None = None, *, pause: bool = True
    ) -> Image:
        """Make an image of what a container has changed.

        config  defaults of the image; None, or what it leaves open: the container's own.
        pause   freeze the container meanwhile, if it runs.
        Raises  Conflict: it is dead or being removed, or (`pause`) restarting. InvalidArgument: changes. NotFound: its
                image is gone.
        """
        if container.state.status == DEAD:
            raise Conflict(f"You cannot commit container {container.id} which is Dead")
        if container.record.removing or container.removed:
            raise Conflict(f"You cannot commit container {container.id} which is being removed")
        own = execution_of(container)
        merged = over(wanted.change(own if config is None else config), own)
        parent = self._engine.image_store.get(Digest(container.record.image_id))
        async with self._engine.images.making(), self._frozen(container, pause=pause):
            image = await in_thread(self._commit, container, parent, merged, wanted)
        name = wanted.reference.familiar if wanted.reference else ""
        if wanted.reference:
            self._engine.events.emit("image", "tag", str(image.id), {"name": name})
        attributes = container.attributes(comment=wanted.comment, imageID=str(image.id), imageRef=name)
        self._engine.events.emit("container", "commit", container.id, attributes)
        return image

    @asynccontextmanager
    async def _frozen(self, container: Container, *, pause: bool) -> AsyncIterator[None]:
        if not pause or not container.state.running or container.state.status == PAUSED:
            if pause and container.state.status == RESTARTING:
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            yield
            return
        running, frozen = self._engine.running, False
        with contextlib.suppress(Conflict):  # it has just ended: then nothing writes any more
            await running.pause(container)
            frozen = True
        try:
            yield
        finally:
            if frozen and container.state.status == PAUSED:
                await running.unpause(container)

    def _commit(self, container: Container, parent: Image, config: ExecutionConfig, wanted: Wanted) -> Image:
        layer = self._layer_of(container.directory / "upper", parent)
        step = History(
            created=clock.now(),
            created_by=" ".join(container.record.config.cmd or []),
            author=wanted.author,
            comment=wanted.comment,
            empty_layer=layer is None,
        )
        layers = parent.layers if layer is None else (*parent.layers, layer)
        document = ImageConfig(
            architecture=parent.config.architecture,
            os=parent.config.os,
            rootfs=RootFS(diff_ids=[one.diff_id for one in layers]),
            config=config,
            history=[*(parent.config.history or []), step],
            created=step.created,
            author=wanted.author,
            variant=parent.config.variant,
            os_version=parent.config.os_version,
            container=container.id,
            container_config=msgspec.structs.replace(
                execution_of(container), hostname=container.record.config.hostname, image=container.record.image
            ),
        )
        return self._add(document, layers, wanted, parent.id)

    def _layer_of(self, upper: Path, parent: Image) -> ImageLayer | None:
        """The upper directory as a layer upon the image's; None if it is empty."""
        engine = self._engine
        with engine.blobs.ingest(None, None) as ingest:
            hidden = [path.lstrip("/") for path in PLACEHOLDERS]
            diff_id = engine.worker.diff(upper, ingest.write, compress=True, hidden=hidden)
            if diff_id == EMPTY_LAYER:
                return None
            size, digest = ingest.offset, ingest.commit()
        staged = engine.layers.stage(engine.blobs.path(digest), GZIP_LAYER, diff_id)
        engine.layers.commit(staged, self._top(parent))
        return ImageLayer(diff_id, digest, size, GZIP_LAYER)

    def _top(self, image: Image) -> Layer | None:
        return self._engine.layers.chain(image.chain_ids[-1])[-1] if image.chain_ids else None

    def _add(
        self, document: ImageConfig, layers: tuple[ImageLayer, ...], wanted: Wanted, parent: Digest | None
    ) -> Image:
        id = self._engine.blobs.put(codec.encode(document))
        names = [wanted.reference] if wanted.reference else []
        return self._engine.image_store.add(id, layers, parent=parent, references=names)

    async def import_archive(self, source: Readable, wanted: Wanted, platform_text: str = "") -> Image:
        """Make an image of one layer from a filesystem's archive, plain or compressed.

        source         read in a thread.
        platform_text  what the files are for ("linux/arm64"); "": this machine.
        Raises         InvalidArgument: changes, platform, not an archive. VerificationError: damaged. Breakout.
        """
        config = wanted.change(ExecutionConfig())
        target = Platform.of_machine(platform.machine())
        if platform_text not in ("", target.os):
            target = Platform.parse(platform_text)
        async with self._engine.images.making():
            image = await in_thread(self._import, source, config, target, wanted)
        if wanted.reference:
            self._engine.events.emit("image", "tag", str(image.id), {"name": wanted.reference.familiar})
        self._engine.events.emit("image", "import", str(image.id), {"name": str(image.id)})
        return image

    def _import(self, source: Readable, config: ExecutionConfig, target: Platform, wanted: Wanted) -> Image:
        engine = self._engine
        with engine.blobs.ingest(None, None) as ingest:
            media_type = _keep(source, ingest.write)
            size, digest = ingest.offset, ingest.commit()
        staged = engine.layers.stage(engine.blobs.path(digest), media_type, None)
        engine.layers.commit(staged, None)
        layer = ImageLayer(staged.diff_id, digest, size, media_type)
        now = clock.now()
        document = ImageConfig(
            architecture=target.architecture,
            os=target.os,
            rootfs=RootFS(diff_ids=[layer.diff_id]),
            config=config,
            history=[History(created=now, comment=wanted.comment)],
            created=now,
            variant=target.variant,
            comment=wanted.comment,
        )
        return self._add(document, (layer,), wanted, None)


class _Peeked:
    """A readable whose first bytes were looked at."""

    def __init__(self, head: bytes, source: Readable) -> None:
        self._head, self._source = head, source

    def read(self, count: int, /) -> bytes:
        if self._head:
            head, self._head = self._head[:count], self._head[count:]
            return head
        return self._source.read(count)


def _keep(source: Readable, write: Callable[[bytes], object]) -> str:
    """Write an archive as a layer's blob and say of which media type: gzip and plain stay, all else becomes plain."""
    head = b""
    while len(head) < _HEAD_BYTES and (piece := source.read(_HEAD_BYTES - len(head))):
        head += piece
    whole = _Peeked(head, source)
    if detect(head) not in ("", "gzip"):
        for piece in decompress(whole, name="archive"):
            write(piece)
        return DOCKER_LAYER
    while piece := whole.read(_PIECE_BYTES):
        write(piece)
    return GZIP_LAYER if detect(head) else DOCKER_LAYER


def execution_of(container: Container) -> ExecutionConfig:
    """A container's configuration as an image's defaults: without what is the container's alone (its host name)."""
    config = container.record.config
    return ExecutionConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        healthcheck=codec.decode(codec.encode(config.healthcheck), Healthcheck) if config.healthcheck else None,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout,
        on_build=config.on_build,
        shell=config.shell,
    )


def over(config: ExecutionConfig, below: ExecutionConfig) -> ExecutionConfig:
    """`config` with the values of `below` for what it leaves open: a committed image's over its container's; pure."""
    given = {entry.partition("=")[0] for entry in config.env or []}
    env = [*(config.env or []), *(entry for entry in below.env or [] if entry.partition("=")[0] not in given)]
    command, entrypoint = config.cmd, config.entrypoint
    if not entrypoint:
        command = command or below.cmd
        entrypoint = below.entrypoint if entrypoint is None else entrypoint
    return msgspec.structs.replace(
        config,
        user=config.user or below.user,
        exposed_ports={**(below.exposed_ports or {}), **(config.exposed_ports or {})} or None,
        env=env or None,
        cmd=command,
        entrypoint=entrypoint or None,
        labels={**(below.labels or {}), **(config.labels or {})} or None,
        working_dir=config.working_dir or below.working_dir,
        volumes={**(below.volumes or {}), **(config.volumes or {})} or None,
        stop_signal=config.stop_signal or below.stop_signal,
        stop_timeout=below.stop_timeout if config.stop_timeout is None else config.stop_timeout,
        healthcheck=config.healthcheck or below.healthcheck,
        shell=config.shell or below.shell,
        on_build=config.on_build or below.on_build,
    )
