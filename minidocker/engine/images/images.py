"""Images: list, inspect, history, tag, remove, prune, save, load; pull and push are in `transfer`.

Source  Docker Engine API 1.44, "Image"; replies recorded from dockerd.
Rules   - names come in as people type them and go out in their familiar form.
        - whatever is removed here loses its record first; its bytes go when no one makes an image (see `garbage`).
"""

import os
import platform
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from minidocker.engine import clock
from minidocker.engine.garbage import Garbage
from minidocker.engine.images import image_filters as filtering
from minidocker.engine.images import image_views as views
from minidocker.engine.images.image_removal import Gone, Remover
from minidocker.engine.images.image_transfer import ImageTransfer
from minidocker.errors import Conflict, InvalidArgument, NotFound
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import Platform
from minidocker.oci.reference import Reference
from minidocker.registry.client import in_thread
from minidocker.registry.credentials import AuthConfig
from minidocker.registry.hosts import DEFAULT_CERTS_DIRS, RegistryConfig
from minidocker.registry.progress import Report
from minidocker.storage import archive
from minidocker.storage.archive import Loaded, Stores
from minidocker.storage.compression import Readable
from minidocker.storage.images import Image

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

Version = tuple[int, int]


class _User:
    """A container as image removal sees it."""

    def __init__(self, id: str, *, running: bool) -> None:
        self.id, self.running = id, running


class Images:
    """The images of one engine."""

    def __init__(self, engine: "Engine", registries: RegistryConfig | None = None) -> None:
        """registries  None: made of the engine's settings."""
        self._engine = engine
        self.store = engine.image_store
        self._stores = Stores(engine.blobs, engine.layers, engine.image_store)
        settings = engine.settings
        registries = registries or RegistryConfig(
            settings.insecure_registries, settings.registry_mirrors, settings.registry_certs_dirs or DEFAULT_CERTS_DIRS
        )
        self.garbage = Garbage(engine.blobs, engine.layers, engine.image_store, self._used_chains)
        self.transfer = ImageTransfer(registries, self._stores, self.garbage, platform.machine())
        self._remover = Remover(
            engine.image_store,
            self._users,
            untagged=lambda id: self._emit("untag", id),
            deleted=lambda id: self._emit("delete", id),
        )

    async def open(self) -> None:
        """At start, after the containers are known: sweep what a crash left."""
        await self.garbage.sweep()

    async def close(self) -> None:
        """End connections to registries."""
        await self.transfer.close()

    def making(self) -> AbstractAsyncContextManager[None]:
        """For builders: in this `async with`, blobs and layers that no image names yet are safe."""
        return self.garbage.making()

    def _used_chains(self) -> set[Digest]:
        return {Digest(c.record.chain) for c in self._engine.containers.all() if c.record.chain}

    def _users(self, id: Digest) -> Collection[_User]:
        return [_User(c.id, running=c.state.running) for c in self._engine.containers.all() if c.record.image_id == id]

    def _emit(self, action: str, actor: str, name: str | None = None, image: Image | None = None) -> None:
        labels = dict(image.config.execution.labels or {}) if image is not None else {}
        self._engine.events.emit("image", action, str(actor), {**labels, "name": name or str(actor)})

    def find(self, text: str) -> Image:
        """An image by name, name with digest, ID or beginning of an ID. Raises NotFound in Docker's words, Conflict."""
        try:
            return self.store.find(text)
        except NotFound:
            raise NotFound(f"No such image: {_shown(text)}") from None

    def size_bytes(self, image: Image) -> int:
        """Bytes of its unpacked layers."""
        return sum(layer.size for layer in self._layers(image))

    def _layers(self, image: Image) -> Sequence[Any]:
        return self._engine.layers.chain(image.chain_ids[-1]) if image.chain_ids else ()

    def listing(
        self, filters: filtering.Filters, version: Version, *, all: bool = False, shared_size: bool = False
    ) -> list[dict[str, Any]]:
        """What `docker images` shows, newest first.

        all  also those that were only steps to others.
        Raises  InvalidArgument: an unknown filter or a bad value. NotFound: the image of `before` or `since`.
        """
        filtering.check(filters, filtering.LIST_FILTERS)
        dangling = filtering.flag(filters, "dangling", default=None)
        fits_name = filtering.reference_filter(filters.get("reference", []))
        parents = {image.parent for image in self.store.list()}
        users = self._chain_users() if shared_size else {}
        shown = []
        for image in self.store.list():
            names = [name for name in self.store.references(image.id) if fits_name(name)]
            tagged = any(name.tag for name in names)
            if filters.get("reference") and not names:
                continue
            if not tagged and image.id in parents and not all:
                continue
            if dangling is not None and dangling == tagged:
                continue
            if not filtering.has_labels(image, filters.get("label", [])) or not self._in_time(image, filters):
                continue
            shared = self._shared_bytes(image, users) if shared_size else -1
            shown.append(views.summary(image, names, self.size_bytes(image), version, shared_bytes=shared))
        return shown

    def _in_time(self, image: Image, filters: filtering.Filters) -> bool:
        created, moment = filtering.created_nanoseconds(image), filtering.created_nanoseconds
        before = [moment(self.find(text)) for text in filters.get("before", [])]
        before += [clock.parse_moment(text) for text in filters.get("until", [])]
        since = [moment(self.find(text)) for text in filters.get("since", [])]
        return all(created < bound for bound in before) and all(created > bound for bound in since)

    def _chain_users(self) -> dict[Digest, int]:
        counts: dict[Digest, int] = {}
        for image in self.store.list():
            for chain in image.chain_ids:
                counts[chain] = counts.get(chain, 0) + 1
        return counts

    def _shared_bytes(self, image: Image, users: dict[Digest, int]) -> int:
        return sum(layer.size for layer in self._layers(image) if users[layer.chain_id] > 1)

    def inspect(self, text: str, version: Version) -> dict[str, Any]:
        """All about one image. Raises NotFound."""
        image = self.find(text)
        directories = [os.fspath(self._engine.layers.path(layer.chain_id)) for layer in reversed(self._layers(image))]
        return views.inspect(image, self.store.references(image.id), self.size_bytes(image), directories, version)

    def history(self, text: str) -> list[dict[str, Any]]:
        """The steps that made an image, newest first. Raises NotFound."""
        image: Image | None = self.find(text)
        assert image is not None
        ids: list[tuple[Digest, list[str]]] = []
        step: Image | None = image
        while step is not None:
            ids.append((step.id, views.tags_of(self.store.references(step.id))))
            step = (
                next((other for other in self.store.list() if other.id == step.parent), None) if step.parent else None
            )
        return views.history(image, [layer.size for layer in self._layers(image)], ids)

    def tag(self, text: str, repository: str, tag: str) -> None:
        """Give an image another name. Raises NotFound; InvalidArgument: not a name."""
        image = self.find(text)
        reference = Reference.parse(repository)
        if tag:
            reference = reference.with_tag(tag)
        if reference.digest is not None:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        if reference.familiar_name == "sha256":
            raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
        self.store.tag(reference, image.id)
        explicit = tag or ":" in repository.rpartition("/")[2]
        self._emit("tag", image.id, reference.familiar if explicit else reference.familiar_name, image)

    async def remove(self, text: str, *, force: bool, prune: bool) -> list[Gone]:
        """Docker's `rmi`. Raises NotFound, Conflict."""
        self.find(text)
        gone = self._remover.remove(text, force=force, prune=prune, used_chains=self._used_with_parents())
        await self.garbage.sweep()
        return gone

    def _used_with_parents(self) -> set[Digest]:
        layers = self._engine.layers
        return {layer.chain_id for top in self._used_chains() if layers.get(top) for layer in layers.chain(top)}

    async def prune(self, filters: filtering.Filters) -> tuple[list[Gone], int]:
        """Remove dangling images, or (`dangling=false`) all without a container. Returns what went, and bytes freed."""
        filtering.check(filters, filtering.PRUNE_FILTERS)
        dangling_only = filtering.flag(filters, "dangling", default=True)
        until = filtering.until_seconds(filters)
        before = sum(layer.size for layer in self._engine.layers.all())
        gone: list[Gone] = []
        for image in self.store.dangling() if dangling_only else self.store.list():
            unlabelled = all(not filtering.has_labels(image, [text]) for text in filters.get("label!", []))
            if not filtering.has_labels(image, filters.get("label", [])) or not unlabelled or self._users(image.id):
                continue
            if until is not None and filtering.created_seconds(image) > until:
                continue
            gone += self._prune_one(image)
        await self.garbage.sweep()
        freed = max(0, before - sum(layer.size for layer in self._engine.layers.all()))
        self._engine.events.emit("image", "prune", "", {"reclaimed": str(freed)})
        return gone, freed

    def _prune_one(self, image: Image) -> list[Gone]:
        used, gone = self._used_with_parents(), list[Gone]()
        names = [str(name) for name in self.store.references(image.id)] or [str(image.id)]
        for text in names:
            try:
                gone += self._remover.remove(text, force=False, prune=True, used_chains=used)
            except (Conflict, NotFound):
                continue  # a child keeps it, or it went with another name
        return gone

    async def pull(
        self,
        reference: Reference,
        *,
        all_tags: bool,
        platform: Platform | None,
        credentials: AuthConfig,
        report: Report,
    ) -> None:
        """Docker's `pull`. Raises as ImageTransfer.pull."""
        if all_tags:
            await self.transfer.pull_all(reference, platform, credentials, report)
        else:
            await self.transfer.pull(reference, platform, credentials, report)
        self._emit("pull", reference.familiar if not all_tags else reference.familiar_name, reference.familiar_name)

    async def push(self, repository: Reference, tag: str | None, credentials: AuthConfig, report: Report) -> None:
        """Docker's `push`. tag  None: all. Raises as ImageTransfer.push."""
        await self.transfer.push(repository, [tag] if tag else None, credentials, report)
        shown = repository.with_tag(tag).familiar if tag else repository.familiar_name
        self._emit("push", shown, repository.familiar_name)

    def saved(self, texts: Sequence[str]) -> list[tuple[Image, tuple[Reference, ...]]]:
        """What `docker save` of these names means: images, and the tags to be kept. Raises NotFound."""
        found: dict[Digest, tuple[Image, set[Reference]]] = {}
        for text in texts:
            for image, names in self._meant(text):
                found.setdefault(image.id, (image, set()))[1].update(names)
        return [(image, tuple(sorted(names))) for image, names in found.values()]

    def _meant(self, text: str) -> list[tuple[Image, list[Reference]]]:
        """A bare repository means all its tags, an ID or a digest no name."""
        if "@" not in text and ":" not in text.rpartition("/")[2] and not text.startswith("sha256:"):
            try:
                repository = Reference.parse(text).name
            except InvalidArgument:
                repository = ""
            pairs = [(image, self.store.references(image.id)) for image in self.store.list()]
            tagged = [(image, [n for n in names if n.name == repository and n.tag]) for image, names in pairs]
            if any(names for _, names in tagged):
                return [(image, names) for image, names in tagged if names]
        image = self.find(text)
        if "@" in text or image.id.hex.startswith(text.removeprefix("sha256:")):
            return [(image, [])]
        return [(image, [Reference.parse(text)])]

    async def save(self, texts: Sequence[str], output: Callable[[bytes | memoryview], object]) -> None:
        """Write an archive; `output` is called in a thread and may block. Raises NotFound before the first byte."""
        async with self.garbage.making():
            saved = self.saved(texts)
            await in_thread(archive.save, saved, self._engine.blobs, output)
        for image, _ in saved:
            self._emit("save", image.id)

    async def load(self, source: Readable, on_progress: Callable[[str, int], object] | None = None) -> list[Loaded]:
        """Read an archive; `source` is read in a thread. Raises as `archive.load`."""
        async with self.garbage.making():
            loaded = await in_thread(archive.load, source, self._stores, on_progress)
        for image in loaded:
            self._emit("load", image.id)
        return loaded


def _shown(text: str) -> str:
    """A name as Docker repeats it: with its tag; an ID as it is."""
    try:
        return Reference.parse(text).familiar
    except InvalidArgument:
        return text[:300]


__all__ = ["Gone", "Images"]
