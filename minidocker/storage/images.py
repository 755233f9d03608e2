"""Images: which configs, layers and names there are, in one file.

Source  Docker Engine API, Images; OCI image-spec (an image's ID is the digest of its config).
Rules   - `images.json` is the truth; a blob or layer that no image there needs, and no container, is garbage.
        - an image is added only after all its blobs and layers are in place; it is taken out before they are deleted:
          a crash between leaves garbage, never a half image.
        - tags and digests are kept as full references (docker.io/library/busybox:latest).
        - layers base first.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound, VerificationError
from minidocker.oci import image_config
from minidocker.oci.digest import Digest, chain_id
from minidocker.oci.image_config import ImageConfig
from minidocker.oci.manifest import DOCKER_CONFIG, DOCKER_LAYER, DOCUMENT_LIMIT_BYTES
from minidocker.oci.reference import Reference
from minidocker.storage import records
from minidocker.storage.blobs import BlobStore

log = logging.getLogger(__name__)


class ImageLayer(msgspec.Struct, frozen=True):
    """One layer as it travels, and what it unpacks to.

    digest, size, media_type  of the blob, size in bytes.
    diff_id                   the digest of the plain tar.
    """

    diff_id: Digest
    digest: Digest
    size: int
    media_type: str = DOCKER_LAYER + ".gzip"
    urls: tuple[str, ...] = ()


class Image(msgspec.Struct, frozen=True):
    """An image that is here, whole.

    id        the digest of its config.
    layers    base first; empty for an image without files.
    manifest  the digest of the manifest it came with; None: made or loaded here, no registry has seen it.
    parent    the image that this one was built on here, or None.
    """

    id: Digest
    config: ImageConfig
    layers: tuple[ImageLayer, ...] = ()
    manifest: Digest | None = None
    manifest_media_type: str = ""
    config_media_type: str = DOCKER_CONFIG
    parent: Digest | None = None

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """The chain ID of every prefix of the layers, base first: the last one is the whole stack."""
        diff_ids = self.config.diff_ids
        return tuple(chain_id(diff_ids[: count + 1]) for count in range(len(diff_ids)))

    @property
    def blobs(self) -> frozenset[Digest]:
        """Every blob the image needs."""
        manifest = () if self.manifest is None else (self.manifest,)
        return frozenset((self.id, *manifest, *(layer.digest for layer in self.layers)))


class Removal(msgspec.Struct, frozen=True):
    """What deleting images would free: images, chain IDs of layers (top first), blobs."""

    images: tuple[Digest, ...]
    layers: tuple[Digest, ...]
    blobs: tuple[Digest, ...]


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image in images.json: all but the config, which is a blob."""

    layers: tuple[ImageLayer, ...] = ()
    manifest: Digest | None = None
    manifest_media_type: str = ""
    config_media_type: str = DOCKER_CONFIG
    parent: Digest | None = None


class _Index(msgspec.Struct):
    """images.json. Keys are text because JSON wants it: image IDs and full references."""

    images: dict[str, _Stored] = {}
    references: dict[str, Digest] = {}


class ImageStore:
    """The images of the data root `root`; safe to use from several threads."""

    def __init__(self, root: Path, blobs: BlobStore | None = None) -> None:
        self.path = root / "images.json"
        self.blobs = blobs or BlobStore(root)
        self._lock = threading.RLock()
        self._index = records.read(self.path, _Index) if self.path.exists() else _Index()
        self._images = dict(self._whole_images())

    def _whole_images(self) -> Iterator[tuple[Digest, Image]]:
        """One image whose config was damaged must not keep all others from being used."""
        for text, stored in self._index.images.items():
            try:
                yield Digest(text), self._assemble(Digest(text), stored)
            except (MinidockerError, ValueError) as error:
                log.warning("image is damaged and left out; pull it again", extra={"image": text, "reason": str(error)})

    def leave_out_without(self, has_layer: Callable[[Digest], bool]) -> None:
        """At start: an image that lost a layer is not shown (it would break every listing) until it is pulled again.

        has_layer  whether the layer with that chain ID is here.
        """
        with self._lock:
            for id, image in list(self._images.items()):
                missing = [chain for chain in image.chain_ids if not has_layer(chain)]
                if missing:
                    reason = f"layer {missing[0].short} is missing"
                    log.warning("image is damaged and left out; pull it again", extra={"image": id, "reason": reason})
                    del self._images[id]

    def _assemble(self, id: Digest, stored: _Stored) -> Image:
        config = image_config.parse(self.blobs.read(id, DOCUMENT_LIMIT_BYTES), f"config of image {id}")
        if tuple(layer.diff_id for layer in stored.layers) != config.diff_ids:
            raise VerificationError(f"image {id}: its layers are not those that its config names")
        kinds = (stored.manifest_media_type, stored.config_media_type)
        return Image(id, config, stored.layers, stored.manifest, *kinds, stored.parent)

    def add(
        self,
        id: Digest,
        layers: tuple[ImageLayer, ...],
        *,
        manifest: Digest | None = None,
        manifest_media_type: str = "",
        config_media_type: str = DOCKER_CONFIG,
        parent: Digest | None = None,
        references: Iterable[Reference] = (),
    ) -> Image:
        """Register an image whose config blob and layers are in place, with its first names, in one write.

        An image known before keeps the manifest and parent that the new call does not give.
        Raises  VerificationError: the config names other layers. NotFound: no config blob.
        """
        stored = _Stored(layers, manifest, manifest_media_type, config_media_type, parent)
        with self._lock:
            before = self._index.images.get(id)
            if before is not None and manifest is None:
                stored = msgspec.structs.replace(before, parent=parent or before.parent)
            elif before is not None and parent is None:
                stored = msgspec.structs.replace(stored, parent=before.parent)
            image = self._assemble(id, stored)
            names = {str(reference): id for reference in references}
            self._save(self._index.images | {str(id): stored}, self._index.references | names)
            self._images[id] = image
            return image

    def get(self, id: Digest) -> Image:
        """Raises NotFound."""
        try:
            return self._images[id]
        except KeyError:
            raise NotFound(f"no such image: {id}") from None

    def find(self, text: str) -> Image:
        """The image that a person means by a name, a name with digest, an ID or the beginning of an ID.

        Raises  NotFound. Conflict: several IDs begin like that. InvalidArgument: none of these forms.
        """
        if text.startswith("sha256:") and len(text) == 71:
            return self._by_prefix(text, text)
        try:
            reference = Reference.parse(text)
        except InvalidArgument:
            return self._by_prefix(text, text)
        with self._lock:
            id = self._lookup(reference)
        return self.get(id) if id is not None else self._by_prefix(text, reference.familiar)

    def _lookup(self, reference: Reference) -> Digest | None:
        if reference.digest is not None:
            pinned = self._index.references.get(str(reference.with_digest(reference.digest)))
            return pinned or (reference.digest if reference.digest in self._images else None)
        return self._index.references.get(str(reference))

    def _by_prefix(self, text: str, shown: str) -> Image:
        prefix = text.removeprefix("sha256:")
        if not prefix or not set(prefix) <= set("0123456789abcdef"):
            if shown == text:
                Reference.parse(text)  # says what is wrong with it, if something is
            raise NotFound(f"no such image: {shown[:300]}")
        with self._lock:
            found = [image for id, image in self._images.items() if id.hex.startswith(prefix)]
        if len(found) > 1:
            raise Conflict(f"image ID {text} is ambiguous: {len(found)} images begin with it; give more digits")
        if not found:
            raise NotFound(f"no such image: {shown[:300]}")
        return found[0]

    def list(self) -> tuple[Image, ...]:
        """All images, newest first."""
        with self._lock:
            images = list(self._images.values())
        return tuple(sorted(images, key=lambda image: (image.config.created or "", image.id), reverse=True))

    def tag(self, reference: Reference, id: Digest) -> Digest | None:
        """Let `reference`, with a tag or a digest, name image `id`; says which image lost the name, if one did."""
        self.get(id)
        with self._lock:
            before = self._index.references.get(str(reference))
            if before != id:
                self._save(self._index.images, self._index.references | {str(reference): id})
        return before if before != id else None

    def set_digest(self, reference: Reference, id: Digest) -> None:
        """Record that image `id` is `repository@digest` in a registry (after a pull or push)."""
        if reference.digest is None:
            raise InvalidArgument(f"reference {reference} has no digest")
        self.tag(reference.with_digest(reference.digest), id)

    def untag(self, reference: Reference) -> Digest:
        """Take a name away and say whose it was. Raises NotFound."""
        with self._lock:
            names = dict(self._index.references)
            try:
                id = names.pop(str(reference))
            except KeyError:
                raise NotFound(f"no such image: {reference.familiar}") from None
            self._save(self._index.images, names)
            return id

    def references(self, id: Digest) -> tuple[Reference, ...]:
        """The names of image `id`, sorted: those with a tag and those with a digest."""
        with self._lock:
            names = sorted(name for name, target in self._index.references.items() if target == id)
        return tuple(Reference.parse(name) for name in names)

    def children(self, id: Digest) -> tuple[Image, ...]:
        """Images whose parent is `id`."""
        return tuple(image for image in self.list() if image.parent == id)

    def dangling(self) -> tuple[Image, ...]:
        """Images without a tag that no other image was built on."""
        parents = {image.parent for image in self.list()}
        return tuple(
            image
            for image in self.list()
            if image.id not in parents and not any(name.tag for name in self.references(image.id))
        )

    def plan_removal(
        self, ids: Collection[Digest], *, used_chains: Collection[Digest] = (), with_parents: bool = True
    ) -> Removal:
        """What deleting the images `ids` frees; pure.

        used_chains   the layers' chain IDs that containers stand on (any prefix of them stays).
        with_parents  True: nameless parents that lose their last child go as well, as Docker does.
        """
        with self._lock:
            doomed = {id: self.get(id) for id in ids}
            while with_parents:
                more = self._orphaned_parents(doomed)
                if not more:
                    break
                doomed |= more
            staying = [image for id, image in self._images.items() if id not in doomed]
        kept_chains = {chain for image in staying for chain in image.chain_ids} | set(used_chains)
        kept_blobs = {blob for image in staying for blob in image.blobs}
        chains = {c: n for image in doomed.values() for n, c in enumerate(image.chain_ids) if c not in kept_chains}
        blobs = {blob for image in doomed.values() for blob in image.blobs} - kept_blobs
        top_first = sorted(chains, key=lambda chain: -chains[chain])
        return Removal(tuple(doomed), tuple(top_first), tuple(sorted(blobs)))

    def _orphaned_parents(self, doomed: dict[Digest, Image]) -> dict[Digest, Image]:
        found = {}
        for image in doomed.values():
            parent = self._images.get(image.parent) if image.parent else None
            if parent is None or parent.id in doomed or self.references(parent.id):
                continue
            if all(child.id in doomed for child in self.children(parent.id)):
                found[parent.id] = parent
        return found

    def remove(self, id: Digest) -> None:
        """Take the image and all its names out of the file; layers and blobs are the caller's (plan_removal first)."""
        self.get(id)
        with self._lock:
            images = {key: stored for key, stored in self._index.images.items() if key != id}
            names = {name: target for name, target in self._index.references.items() if target != id}
            self._save(images, names)
            del self._images[id]

    def needed_blobs(self) -> frozenset[Digest]:
        """Every blob that some image needs, a damaged one too; others are garbage while nobody makes an image."""
        with self._lock:
            stored = dict(self._index.images)
        return frozenset(
            digest
            for id, image in stored.items()
            for digest in (Digest(id), image.manifest, *(layer.digest for layer in image.layers))
            if digest is not None
        )

    def needed_chains(self) -> frozenset[Digest]:
        """The chain ID of every layer that some image stands on."""
        with self._lock:
            stacks = [tuple(layer.diff_id for layer in image.layers) for image in self._index.images.values()]
        return frozenset(chain_id(stack[: count + 1]) for stack in stacks for count in range(len(stack)))

    def _save(self, images: dict[str, _Stored], references: dict[str, Digest]) -> None:
        index = _Index(images, references)
        records.write(self.path, index, mode=0o644)
        self._index = index
