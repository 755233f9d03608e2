"""The images of steps: their layers, their configuration, their place above the parent.

Source  moby image/image.go (NewChildImage) and daemon/images (what a step's image records).
Rules   - each step that worked is an image, with its parent and the configuration that the cache compares.
        - a step that changed no file adds no layer, only a line of history.
        - all here blocks: for threads. What a failure leaves is not named by an image, so it is swept.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minidocker.build.context import Context
from minidocker.engine import clock
from minidocker.engine.containers.container import Container
from minidocker.engine.containers.copying import PLACEHOLDERS
from minidocker.engine.images.commit import EMPTY_LAYER, GZIP_LAYER
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, History, ImageConfig, RootFS
from minidocker.oci.manifest import Platform
from minidocker.storage import trees
from minidocker.storage.assembly import Put
from minidocker.storage.images import Image, ImageLayer
from minidocker.storage.layers import Layer
from minidocker.storage.worker import Stopped

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Step:
    """What a step's image is to say of it.

    config     of the image.
    compared   what the container ran with, or would have: the cache's key; its cmd is what history shows.
    container  the ID that was shown for the step.
    """

    config: ExecutionConfig
    compared: ExecutionConfig
    author: str = ""
    container: str = ""


class Layering:
    """Makes the images of one build. directory: for what it needs on the data root's filesystem."""

    def __init__(self, engine: "Engine", directory: Path, platform: Platform) -> None:
        self._engine, self._directory, self._platform = engine, directory, platform

    def add(self, parent: Image | None, step: Step, layer: ImageLayer | None) -> Image:
        """The image of a step upon `parent`; layer None: no file changed."""
        below = parent.layers if parent else ()
        layers = below if layer is None else (*below, layer)
        created = clock.now()
        history = History(
            created=created,
            created_by=" ".join(step.compared.cmd or []),
            author=step.author,
            empty_layer=layer is None,
        )
        platform = parent.config.platform if parent else self._platform
        document = ImageConfig(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            os_version=parent.config.os_version if parent else "",
            rootfs=RootFS(diff_ids=[one.diff_id for one in layers]),
            config=step.config,
            container_config=step.compared,
            history=[*((parent.config.history if parent else None) or []), history],
            created=created,
            author=step.author,
            container=step.container,
        )
        id = self._engine.blobs.put(codec.encode(document))
        return self._engine.image_store.add(id, layers, parent=parent.id if parent else None)

    def restore(self, parent: Image | None, source: Image, step: Step) -> Image:
        """The image of a step that `source`, of --cache-from, has made elsewhere."""
        count = len((parent.config.history if parent else None) or [])
        history = (source.config.history or [])[: count + 1]
        layers = source.layers[: len(parent.layers) if parent else 0]
        if not history[-1].empty_layer:
            layers = source.layers[: len(layers) + 1]
        document = ImageConfig(
            architecture=source.config.architecture,
            os=source.config.os,
            variant=source.config.variant,
            rootfs=RootFS(diff_ids=[one.diff_id for one in layers]),
            config=step.config,
            container_config=step.compared,
            history=history,
            created=history[-1].created,
            author=source.config.author,
        )
        id = self._engine.blobs.put(codec.encode(document))
        return self._engine.image_store.add(id, layers, parent=parent.id if parent else None)

    # -- layers --

    def place(self, image: Image | None) -> Stopped:
        """An image's files, to be read by the worker."""
        engine = self._engine
        return Stopped(str(engine.layers_directory), engine.lowerdir(image) if image else "empty")

    def read_text(self, image: Image | None, path: str, limit_bytes: int = 1 << 20) -> str:
        """A small file of an image; "" if it has none."""
        return self._engine.worker.read_text(self.place(image), path, limit_bytes)

    def assemble(
        self, parent: Image | None, plan: Sequence[Put], contexts: Sequence[Context] = (), source: Image | None = None
    ) -> ImageLayer | None:
        """The layer that a plan makes upon `parent`. source: the image that the plan's paths are in."""
        room = Path(tempfile.mkdtemp(prefix="layer-", dir=self._directory))
        try:
            for name in ("upper", "work", "source"):
                (room / name).mkdir()
                (room / name).chmod(0o755)
            below = self.place(parent)
            place = Stopped(below.directory, below.lowerdir, str(room / "upper"), str(room / "work"))

            def write(output: Callable[[bytes], object]) -> Digest:
                return self._engine.worker.assemble(
                    place,
                    plan,
                    output,
                    archives=[context.fd for context in contexts],
                    source=self.place(source) if source else None,
                    mount_at=room / "source",
                    compress=True,
                )

            return self._filed(write, room / "upper", parent, keep=False)
        finally:
            trees.remove(room)

    def commit(self, container: Container, parent: Image, *, keep: bool) -> ImageLayer | None:
        """The layer that a stopped container's changes are.

        keep  the container is to stay, so its files are copied; else they become the layer as they lie there.
        """
        upper = container.directory / "upper"
        _strip(upper, self._lower_directories(parent))

        def write(output: Callable[[bytes], object]) -> Digest:
            return self._engine.worker.diff(upper, output, compress=True)

        return self._filed(write, upper, parent, keep=keep)

    def _filed(
        self, write: Callable[[Callable[[bytes], object]], Digest], upper: Path, parent: Image | None, *, keep: bool
    ) -> ImageLayer | None:
        engine = self._engine
        with engine.blobs.ingest(None, None) as ingest:
            diff_id = write(ingest.write)
            if diff_id == EMPTY_LAYER:
                return None
            size, digest = ingest.offset, ingest.commit()
        below = self._top(parent)
        if keep:
            engine.layers.apply(engine.blobs.path(digest), GZIP_LAYER, diff_id, below)
        else:
            engine.layers.adopt(upper, diff_id, below)
        return ImageLayer(diff_id, digest, size, GZIP_LAYER)

    def _top(self, image: Image | None) -> Layer | None:
        return self._engine.layers.chain(image.chain_ids[-1])[-1] if image and image.chain_ids else None

    def _lower_directories(self, image: Image) -> list[Path]:
        """The directories of an image's layers, top first."""
        if not image.chain_ids:
            return []
        layers = self._engine.layers
        return [layers.path(layer.chain_id) for layer in reversed(layers.chain(image.chain_ids[-1]))]


def _strip(upper: Path, lowers: Sequence[Path]) -> None:
    """Take out of an upper directory what only the runtime made there to mount on: no step changed it.

    Only names that are fixed are looked at, and nothing is followed: the tree is the container's.
    """
    top = os.open(upper, _DIRECTORY)
    try:
        for path in sorted(PLACEHOLDERS, key=lambda path: -path.count("/")):
            parent, _, leaf = path.strip("/").rpartition("/")
            try:
                fd = os.open(parent or ".", _DIRECTORY, dir_fd=top)
            except OSError:
                continue
            try:
                _remove_if_empty(fd, leaf, [lower / path.strip("/") for lower in lowers] if not parent else [])
            finally:
                os.close(fd)
    finally:
        os.close(top)


def _remove_if_empty(fd: int, leaf: str, lowers: Sequence[Path]) -> None:
    """An empty file goes; an empty directory if there is none below, or one just like it."""
    try:
        status = os.stat(leaf, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(leaf, dir_fd=fd)
        elif stat.S_ISDIR(status.st_mode) and not _is_opaque(fd, leaf):
            below = next((found for lower in lowers if (found := _lstat(lower)) is not None), None)
            kind = (status.st_mode, status.st_uid, status.st_gid)
            if below is None or kind == (below.st_mode, below.st_uid, below.st_gid):
                os.rmdir(leaf, dir_fd=fd)
    except OSError:
        return  # not there, or not empty


def _is_opaque(fd: int, leaf: str) -> bool:
    directory = os.open(leaf, _DIRECTORY, dir_fd=fd)
    try:
        return "trusted.overlay.opaque" in os.listxattr(directory)
    finally:
        os.close(directory)


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None
