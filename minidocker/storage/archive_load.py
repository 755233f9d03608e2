"""Reading images from one file: docker-archives of any age and OCI layouts, plain or compressed.

Source  moby image/tarexport (manifest.json); OCI image-spec, image-layout.md; TRUST.md, row 13.
Rules   - the outer archive is as hostile as its layers: no member is ever written under its own name. Members are
          spooled under numbers, and only those that an image needs become blobs.
        - a member that an image needs must be a regular file. Docker up to version 24 saves a layer that comes twice
          as a symbolic link to the first: a layer's link is looked up among the members, once. No other is followed.
        - everything is verified before an image appears: digests, sizes, diff IDs.
"""

import hashlib
import os
import platform
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.errors import Breakout, InvalidArgument, KernelError, NotFound, Unsupported, VerificationError
from minidocker.oci import codec, image_config, manifest
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import DOCUMENT_LIMIT_BYTES, LAYER_COUNT_LIMIT, Descriptor, Index, Manifest, Platform
from minidocker.oci.reference import Reference
from minidocker.storage import trees
from minidocker.storage.compression import Readable, decompress, detect
from minidocker.storage.directories import components
from minidocker.storage.images import ImageLayer
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import FILE, HARDLINK, SYMLINK, TarReader

if TYPE_CHECKING:
    from minidocker.storage.archive import Stores

_LIST_LIMIT_BYTES = 1 << 20
_MEMBER_LIMIT = 100_000
_PLAIN_TYPES = {
    "": manifest.DOCKER_LAYER,
    "gzip": manifest.DOCKER_LAYER + ".gzip",
    "zstd": manifest.DOCKER_LAYER + ".zstd",
}


class Loaded(msgspec.Struct, frozen=True):
    """An image that was loaded, and the names it was given."""

    id: Digest
    references: tuple[Reference, ...]


class Member(msgspec.Struct, frozen=True):
    """A regular file of the archive: where it is spooled, and what its bytes are."""

    path: Path
    digest: Digest
    size: int


class _Listed(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def load(source: Readable, stores: "Stores", on_progress: Callable[[str, int], object] | None = None) -> list[Loaded]:
    """Read an archive and add its images.

    on_progress  called with the name of a layer and the bytes of it that are done; may raise, which cancels.
    Raises       InvalidArgument: not an archive of images. VerificationError: not what its names promise. Breakout.
                 KernelError: ENOSPC. Images before the bad one stay; of the bad one nothing does.
    """
    spool = stores.blobs.partial / f"load-{secrets.token_hex(8)}"
    spool.mkdir()
    try:
        archive = _Archive(spool)
        archive.read(source)
        if "manifest.json" in archive.members:
            return _load_docker(archive, stores, on_progress)
        if "index.json" in archive.members:
            return _load_oci(archive, stores, on_progress)
        raise InvalidArgument("this is no archive of images: it has neither a manifest.json nor an index.json")
    finally:
        trees.remove(spool)


class _Archive:
    """The members, spooled."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.members: dict[str, Member] = {}
        self._links: dict[str, str] = {}  # to the member that a symbolic link means, "" where that cannot be one

    def read(self, source: Readable) -> None:
        stream = ByteStream(decompress(source, name="image archive"))
        reader = TarReader(stream)
        for count, entry in enumerate(reader):
            if count >= _MEMBER_LIMIT:
                raise InvalidArgument(f"image archive has more than {_MEMBER_LIMIT} members")
            name = "/".join(components(entry.name, entry.name))
            if entry.kind == FILE:
                self.members[name] = self._keep(reader, self._spool / str(count))
                self._links.pop(name, None)
            elif entry.kind in (SYMLINK, HARDLINK):
                self._links[name] = _meant(name, entry.link) if entry.kind == SYMLINK else ""
                self.members.pop(name, None)

    def _keep(self, reader: TarReader, path: Path) -> Member:
        hasher = hashlib.sha256()
        size = 0
        try:
            with open(path, "xb") as file:
                for offset, piece in reader.data():
                    if offset != size:
                        raise InvalidArgument("image archive holds a sparse member")
                    hasher.update(piece)
                    file.write(piece)
                    size += len(piece)
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise KernelError("write", "image archive member", error.errno or 0, "free some space") from error
        return Member(path, Digest.finish(hasher), size)

    def member(self, name: str) -> Member:
        """The regular file `name`; if the name holds a digest, it is right.

        Raises  InvalidArgument: not there, or a link. VerificationError. Breakout.
        """
        key = "/".join(components(name, name))
        found = self.members.get(key)
        if found is None:
            reason = "is a link there, which is never followed" if key in self._links else "is not in it"
            raise InvalidArgument(f"image archive names {name[:300]!r}, which {reason}")
        base = key.rpartition("/")[2].removesuffix(".json")
        promised = key.startswith("blobs/sha256/") or key.endswith(".json")
        if promised and _is_hex(base) and found.digest.hex != base:
            raise VerificationError(f"image archive member {name[:300]!r} has the digest {found.digest}")
        return found

    def layer(self, name: str) -> Member:
        """As `member`; a symbolic link to a member is that one."""
        return self.member(self._links.get("/".join(components(name, name))) or name)

    def content(self, member: Member, limit_bytes: int, what: str) -> bytes:
        if member.size > limit_bytes:
            raise InvalidArgument(f"{what} in the image archive is larger than {limit_bytes} bytes")
        return member.path.read_bytes()

    def blob(self, descriptor: Descriptor) -> Member:
        """What a descriptor points to, verified. Raises InvalidArgument, VerificationError."""
        found = self.member(f"blobs/sha256/{descriptor.digest.hex}")
        if found.size != descriptor.size:
            raise VerificationError(f"blob {descriptor.digest} has {found.size} bytes, {descriptor.size} were promised")
        return found


def _meant(name: str, link: str) -> str:
    """The member that a symbolic link in the archive means; "" if it is none."""
    try:
        return "" if link.startswith("/") else "/".join(components(f"{name.rpartition('/')[0]}/{link}", name))
    except Breakout:
        return ""


def _is_hex(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _load_docker(archive: _Archive, stores: "Stores", on_progress: Callable[[str, int], object] | None) -> list[Loaded]:
    content = archive.content(archive.member("manifest.json"), _LIST_LIMIT_BYTES, "manifest.json")
    loaded = []
    for listed in codec.decode(content, list[_Listed], "manifest.json of the image archive"):
        config_member = archive.member(listed.config)
        paths = listed.layers or []
        if len(paths) > LAYER_COUNT_LIMIT:
            raise InvalidArgument(f"image archive has {len(paths)} layers, at most {LAYER_COUNT_LIMIT} fit")
        members = [archive.layer(path) for path in paths]
        names = tuple(Reference.parse(tag) for tag in listed.repo_tags or [])
        types = [_PLAIN_TYPES.get(_compression(member.path)) for member in members]
        loaded.append(_add(archive, stores, config_member, list(zip(members, types, strict=True)), names, on_progress))
    return loaded


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        found = detect(file.read(8))
    if found not in _PLAIN_TYPES:
        raise Unsupported(f"a layer of the image archive is compressed by {found}, which images may not be")
    return found


def _add(
    archive: _Archive,
    stores: "Stores",
    config_member: Member,
    layers: list[tuple[Member, str | None]],
    names: tuple[Reference, ...],
    on_progress: Callable[[str, int], object] | None,
    source: tuple[Member, str] | None = None,
) -> Loaded:
    """Verify one image, unpack its layers, file its blobs, and last of all register it."""
    config = image_config.parse(archive.content(config_member, DOCUMENT_LIMIT_BYTES, "image config"))
    if len(config.diff_ids) != len(layers):
        raise VerificationError(f"image {config_member.digest} names {len(config.diff_ids)} layers, has {len(layers)}")
    if config.os != "linux":
        raise Unsupported(f"image {config_member.digest} is made for {config.os or 'no system'}, this is linux")
    image_layers = []
    wanted = []
    for diff_id, (member, media_type) in zip(config.diff_ids, layers, strict=True):
        wanted.append((member.path, media_type, diff_id))
        kind = media_type or manifest.DOCKER_LAYER
        image_layers.append(ImageLayer(diff_id, member.digest, member.size, kind))
    stores.layers.apply_all(wanted, on_progress)
    for member in [config_member, *(member for member, _ in layers), *([source[0]] if source else [])]:
        stores.blobs.adopt(member.path, member.digest)
    stores.images.add(
        config_member.digest,
        tuple(image_layers),
        manifest=source[0].digest if source else None,
        manifest_media_type=source[1] if source else "",
        references=names,
    )
    return Loaded(config_member.digest, names)


def _load_oci(archive: _Archive, stores: "Stores", on_progress: Callable[[str, int], object] | None) -> list[Loaded]:
    content = archive.content(archive.member("index.json"), DOCUMENT_LIMIT_BYTES, "index.json")
    index = manifest.parse(content, manifest.OCI_INDEX, "index.json of the image archive")
    if not isinstance(index, Index):
        raise InvalidArgument("index.json of the image archive is no index")
    names: dict[Digest, list[Reference]] = {}
    for entry in index.manifests:
        names.setdefault(entry.digest, []).extend(_names(entry))
    loaded = []
    for entry in {entry.digest: entry for entry in index.manifests}.values():
        document, member, media_type = _manifest(archive, entry)
        layers: list[tuple[Member, str | None]] = [(archive.blob(one), one.media_type) for one in document.layers]
        config_member = archive.blob(document.config)
        tags = tuple(names[entry.digest])
        loaded.append(_add(archive, stores, config_member, layers, tags, on_progress, (member, media_type)))
    return loaded


def _manifest(archive: _Archive, entry: Descriptor) -> tuple[Manifest, Member, str]:
    """The manifest for this machine that `entry` is or leads to."""
    what = f"manifest {entry.digest} of the image archive"
    for _ in range(2):  # an index in the index, not deeper
        member = archive.blob(entry)
        document = manifest.parse(archive.content(member, DOCUMENT_LIMIT_BYTES, what), entry.media_type, what)
        if isinstance(document, Manifest):
            return document, member, entry.media_type
        entry = manifest.choose(document, Platform.of_machine(platform.machine()), what)
    raise NotFound(f"{what} leads to an index in an index in an index")


def _names(entry: Descriptor) -> list[Reference]:
    """The full name that some tool noted; a mere tag names nothing."""
    for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
        text = entry.annotations.get(key, "")
        if "/" in text or ":" in text:
            return [Reference.parse(text)]
    return []
