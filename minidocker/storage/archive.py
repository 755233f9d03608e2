"""Images as one file: what `docker save` writes. Both a docker-archive and an OCI layout in the same tar.

Source  moby image/tarexport (manifest.json, repositories); OCI image-spec, image-layout.md and annotations.md.
Rules   - blobs are written as they lie in the store, compressed or not: every reader tells by their first bytes.
        - a configuration has the time of its image, other entries have none, and the order is fixed: the same images
          give the same archive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import (
    DOCUMENT_LIMIT_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from minidocker.oci.reference import Reference
from minidocker.storage.archive_load import Loaded, load
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import Image, ImageStore
from minidocker.storage.layers import LayerStore
from minidocker.storage.tar import DIRECTORY, TarEntry
from minidocker.storage.tar_writer import TarWriter

__all__ = ["Loaded", "Stores", "load", "save"]

_OCI_LAYER_TYPES = {"gzip": OCI_LAYER + "+gzip", "zstd": OCI_LAYER + "+zstd", "": OCI_LAYER}


@dataclass(frozen=True, slots=True)
class Stores:
    """The three stores of one data root."""

    blobs: BlobStore
    layers: LayerStore
    images: ImageStore


class ArchiveImage(msgspec.Struct, frozen=True, rename="pascal"):
    """An image in manifest.json. Paths within the archive; `layers` base first."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] = []


Named = tuple[Image, tuple[Reference, ...]]


def save(images: Sequence[Named], blobs: BlobStore, output: Callable[[bytes | memoryview], object]) -> None:
    """Write an archive of `images`, each with the tags that it is to be loaded under.

    Raises  NotFound: a blob is missing.
    """
    writer = TarWriter(output)
    for directory in ("blobs", "blobs/sha256"):
        writer.add(TarEntry(directory, DIRECTORY, 0o755))
    manifests = {image.id: _manifest(image, blobs) for image, _ in images}
    times = {image.id: _time_ns(image) for image, _ in images}
    made = {Digest.of(content): content for content in manifests.values()}
    stored = {blob for image, _ in images for blob in image.blobs} - {image.manifest for image, _ in images} - set(made)
    for digest in sorted(stored | set(made)):
        if digest in made:
            writer.add_file(TarEntry(_path(digest)), made[digest])
        else:
            _add_blob(writer, digest, blobs, times.get(digest, 0))
    writer.add_file(TarEntry("index.json"), codec.encode(_index(images, manifests)))
    listed = [_listed(image, names) for image, names in images]
    writer.add_file(TarEntry("manifest.json"), codec.encode(listed))
    writer.add_file(TarEntry("oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
    writer.add_file(TarEntry("repositories"), codec.encode(_repositories(images)))
    writer.close()


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _time_ns(image: Image) -> int:
    """When it was made, to the second; 0 if it does not say."""
    try:
        made = datetime.fromisoformat(image.config.created or "")
        return max(0, int(made.timestamp())) * 1_000_000_000 if made.tzinfo is not None else 0
    except (ValueError, OverflowError):
        return 0


def _add_blob(writer: TarWriter, digest: Digest, blobs: BlobStore, mtime_ns: int) -> None:
    with blobs.open(digest) as file:
        writer.add(TarEntry(_path(digest), size=blobs.size(digest), mtime_ns=mtime_ns))
        while piece := file.read(1 << 20):
            writer.data(piece)


def _manifest(image: Image, blobs: BlobStore) -> bytes:
    """The manifest that the image came with, or one made for it."""
    if image.manifest is not None and blobs.has(image.manifest):
        return blobs.read(image.manifest, DOCUMENT_LIMIT_BYTES)
    layers = []
    for layer in image.layers:
        compression = layer.media_type.rpartition("tar")[2].lstrip("+.")
        layers.append(Descriptor(_OCI_LAYER_TYPES.get(compression, layer.media_type), layer.digest, layer.size))
    config = Descriptor(OCI_CONFIG, image.id, blobs.size(image.id))
    return codec.encode(Manifest(2, config, layers, OCI_MANIFEST))


def _index(images: Sequence[Named], manifests: dict[Digest, bytes]) -> Index:
    entries = []
    for image, names in images:
        content = manifests[image.id]
        media_type = image.manifest_media_type or OCI_MANIFEST
        entry = Descriptor(media_type, Digest.of(content), len(content), platform=image.config.platform)
        for name in names:
            notes = {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag or ""}
            entries.append(msgspec.structs.replace(entry, annotations=notes))
        if not names:
            entries.append(entry)
    return Index(2, entries, "application/vnd.oci.image.index.v1+json")


def _listed(image: Image, names: tuple[Reference, ...]) -> ArchiveImage:
    tags = [name.familiar for name in names if name.tag]
    return ArchiveImage(_path(image.id), tags or None, [_path(layer.digest) for layer in image.layers])


def _repositories(images: Sequence[Named]) -> dict[str, dict[str, str]]:
    """The oldest form of the names: repository, tag, the topmost layer."""
    found: dict[str, dict[str, str]] = {}
    for image, names in images:
        for name in names:
            if name.tag and image.layers:
                found.setdefault(name.familiar_name, {})[name.tag] = image.layers[-1].digest.hex
    return found
