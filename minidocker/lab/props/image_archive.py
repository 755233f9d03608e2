"""An image archive in memory, to take apart, to change and to put together again: what `docker save` writes.

Source  OCI image-spec: image-layout.md, descriptor.md, manifest.md, image-index.md.
Rules   - a blob is filed under the digest of its bytes; `put` computes it, so it is always right.
        - `blobs` may be changed by hand, to see who notices: nothing here verifies on its own.
        - one archive fits into memory; the engine's own reader (storage/archive_load.py) never needs that.
"""

import io
import json
import stat
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidocker.oci.digest import Digest
from minidocker.oci.manifest import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)

BLOBS = "blobs/sha256/"
REFERENCE_NOTE = "io.containerd.image.name"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass
class ImageArchive:
    """An OCI layout. `index` is index.json; `blobs` the bytes by digest.

    >>> archive = ImageArchive()
    >>> entry = archive.put_json({"architecture": "amd64"}, "application/vnd.oci.image.config.v1+json")
    >>> archive.read_json(entry["digest"])
    {'architecture': 'amd64'}
    """

    index: dict[str, Any] = field(default_factory=lambda: {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    blobs: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, pieces: Iterable[bytes]) -> "ImageArchive":
        """Read a tar archive, as `client.images.save(...)` gives it in pieces.

        Raises  KeyError: it has no index.json (an archive of before 2023). tarfile.ReadError: it is no tar archive.
        """
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            files = {member.name: _bytes_of(tar, member) for member in tar if member.isfile()}
        blobs = {f"sha256:{name[len(BLOBS) :]}": content for name, content in files.items() if name.startswith(BLOBS)}
        return cls(json.loads(files["index.json"]), blobs)

    def copy(self) -> "ImageArchive":
        """Another archive with the same content, to change."""
        return ImageArchive(json.loads(json.dumps(self.index)), dict(self.blobs))

    def put(self, content: bytes, media_type: str) -> dict[str, Any]:
        """File `content` under its digest; the descriptor that points to it."""
        digest = Digest.of(content)
        self.blobs[str(digest)] = content
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}

    def put_json(self, document: object, media_type: str) -> dict[str, Any]:
        """File a JSON document."""
        return self.put(json.dumps(document).encode(), media_type)

    def read_json(self, digest: str) -> Any:
        """The JSON document of that digest. Raises KeyError, ValueError."""
        return json.loads(self.blobs[digest])

    def manifest_of(self, name: str) -> dict[str, Any]:
        """The descriptor in index.json that carries the name ("busybox" or in full). Raises LookupError."""
        for entry in self.index["manifests"]:
            full = str(entry.get("annotations", {}).get(REFERENCE_NOTE, ""))
            if name in (full, full.removeprefix("docker.io/library/"), full.rpartition("/")[2].partition(":")[0]):
                return dict(entry)
        raise LookupError(f"no image is called {name} in this archive")

    def add_image(self, name: str, layers: Sequence[bytes], **config: Any) -> dict[str, Any]:
        """Add an image of plain layers, base first, called `name` ("one"); its descriptor in index.json.

        config  fields of the config that differ from those of an amd64 image without a command.
        """
        diff_ids = [str(Digest.of(unpacked(layer))) for layer in layers]
        whole = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}} | config
        parts = {
            "config": self.put_json(whole, OCI_CONFIG),
            "layers": [self.put(layer, OCI_LAYER) for layer in layers],
        }
        entry = self.put_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST} | parts, OCI_MANIFEST)
        entry["annotations"] = {REFERENCE_NOTE: f"docker.io/library/{name}:latest"}
        self.index["manifests"].append(entry)
        return entry

    def pack(self) -> bytes:
        """The archive as a tar: an OCI layout, in a fixed order and without times."""
        files = {BLOBS + digest.partition(":")[2]: content for digest, content in sorted(self.blobs.items())}
        files |= {"index.json": json.dumps(self.index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        return layer_of(files)


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def kind_of(media_type: str) -> str:
    """What a descriptor points to, in one word: index, manifest, config or layer."""
    for kind, types in (("index", INDEX_TYPES), ("manifest", MANIFEST_TYPES), ("config", CONFIG_TYPES)):
        if media_type in types:
            return kind
    return "layer"


def descriptors_in(document: object) -> list[dict[str, Any]]:
    """The descriptors of an index or a manifest, in its order; none in anything else."""
    if not isinstance(document, dict):
        return []
    found = [*document.get("manifests", []), document.get("config"), *document.get("layers", [])]
    return [entry for entry in found if isinstance(entry, dict) and "digest" in entry]


def layer_of(files: Mapping[str, bytes]) -> bytes:
    """A layer, as a plain tar, of regular files by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def listing(layer: bytes, limit: int = 20) -> list[str]:
    """What is in a layer, as `tar tv` shows it, at most `limit` lines. Raises tarfile.ReadError, zlib.error."""
    plain = unpacked(layer)
    lines: list[str] = []
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = tar.getmembers()
    for member in members[:limit]:
        target = f" -> {member.linkname}" if member.linkname else ""
        lines.append(f"{_mode(member)} {member.size:>9} {member.name}{target}")
    if len(members) > limit:
        lines.append(f"... and {len(members) - limit} more")
    return lines


def _mode(member: tarfile.TarInfo) -> str:
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR}
    return stat.filemode(kinds.get(member.type, stat.S_IFREG) | member.mode)


def unpacked(layer: bytes) -> bytes:
    """The plain tar of a layer: its bytes, or what gzip holds."""
    return zlib.decompress(layer, 31) if layer.startswith(_GZIP_MAGIC) else layer
