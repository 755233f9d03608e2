"""Manifests and indexes: which blobs make an image, and which image suits which machine.

Source  OCI image-spec: descriptor.md, manifest.md, image-index.md; Docker image manifest v2 schema 2.
Rules   - a document is either a manifest or an index. One that could be read as both, or whose own mediaType differs
          from what the registry called it, is refused (CVE-2021-41190).
        - layers are listed base first.
        - schema 1 is refused: it carries no config and no digest of the unpacked layers, so nothing could be verified.
"""

from platform import machine

import msgspec

from minidocker.errors import InvalidArgument, NotFound, Unsupported, VerificationError
from minidocker.oci.codec import decode
from minidocker.oci.digest import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)
ACCEPTED_TYPES = (DOCKER_MANIFEST, DOCKER_INDEX, OCI_MANIFEST, OCI_INDEX)
LAYER_COMPRESSIONS = {
    OCI_LAYER: "",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    DOCKER_LAYER: "",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
}
DOCUMENT_LIMIT_BYTES = 4 << 20
LAYER_COUNT_LIMIT = 127


class Platform(msgspec.Struct, frozen=True, rename={"os_version": "os.version", "os_features": "os.features"}):
    """What a binary runs on. `variant` tells ARM versions apart ("v7", "v8")."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: list[str] = []

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Read `linux/amd64`, `linux/arm/v7`, `linux` or `arm64`. Raises InvalidArgument: anything else.

        One word alone must be known: it is an operating system (of this machine's architecture) or an architecture.
        """
        parts = text.lower().split("/")
        if parts == ["linux"]:
            return cls.of_machine(machine())
        if len(parts) == 1:
            if parts[0] not in _ARCHITECTURES and parts[0] not in _NORMAL_ARCHITECTURES:
                raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
            parts = ["linux", *parts]
        if not 2 <= len(parts) <= 3 or not all(part.replace("-", "").replace(".", "").isalnum() for part in parts):
            raise InvalidArgument(f"invalid platform {text!r}: expected os/architecture or os/architecture/variant")
        architecture, variant = _NORMAL_ARCHITECTURES.get(parts[1], (parts[1], ""))
        if len(parts) == 3:
            variant = parts[2]
        return cls(architecture, parts[0], variant)

    @classmethod
    def of_machine(cls, machine: str) -> "Platform":
        """The platform of a Linux host, from uname's machine field ("x86_64")."""
        architecture, variant = _NORMAL_ARCHITECTURES.get(machine, (machine, ""))
        return cls(architecture, "linux", variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


_ARCHITECTURES = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64")
) | {"s390x", "wasm"}
_NORMAL_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Points to a blob: its kind, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: list[str] = []
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"descriptor of {self.digest} has a negative size")


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One image for one platform. `layers` base first."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The same image for several platforms."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str = ""
    annotations: dict[str, str] = {}


_ABSENT = msgspec.Raw(b"")


class _Shape(msgspec.Struct, rename="camel"):
    """Only what tells the kinds apart."""

    schema_version: int = 0
    media_type: str = ""
    config: msgspec.Raw = _ABSENT
    layers: msgspec.Raw = _ABSENT
    manifests: msgspec.Raw = _ABSENT
    fs_layers: msgspec.Raw = _ABSENT


def parse(content: bytes, media_type: str | None, what: str = "manifest") -> Manifest | Index:
    """Read a manifest or an index, strictly.

    media_type  what its holder called it (Content-Type or the descriptor's), parameters cut off; None: nobody said.
    what        names the document in errors.
    Raises      Unsupported: schema 1, or a media type that is no image. VerificationError: the document contradicts
                itself or `media_type`. InvalidArgument: not JSON, wrong types, over 4 MiB.
    """
    if len(content) > DOCUMENT_LIMIT_BYTES:
        raise InvalidArgument(f"invalid {what}: larger than {DOCUMENT_LIMIT_BYTES} bytes")
    shape = decode(content, _Shape, what)
    declared = shape.media_type or media_type or ""
    if declared in SCHEMA1 or media_type in SCHEMA1 or shape.schema_version == 1 or shape.fs_layers != _ABSENT:
        raise Unsupported(f"{what} is Docker schema 1, which cannot be verified; push it again with a current tool")
    if shape.media_type and media_type in ACCEPTED_TYPES and shape.media_type != media_type:
        raise VerificationError(f"{what} calls itself {shape.media_type} but was served as {media_type}")
    has_manifest = shape.config != _ABSENT or shape.layers != _ABSENT
    has_index = shape.manifests != _ABSENT
    if has_manifest and has_index:
        raise VerificationError(f"{what} can be read both as a manifest and as an index; refused as ambiguous")
    expected_index = declared in INDEX_TYPES or (declared not in ACCEPTED_TYPES and has_index)
    if declared and declared not in ACCEPTED_TYPES and declared.startswith("application/vnd."):
        raise Unsupported(f"{what} has the media type {declared}, which is not an image")
    if expected_index != has_index:
        raise VerificationError(f"{what} is called {declared or 'nothing'} but has the shape of another kind")
    if shape.schema_version != 2:
        raise InvalidArgument(f"invalid {what}: schemaVersion is {shape.schema_version}, expected 2")
    return decode(content, Index, what) if has_index else _checked(decode(content, Manifest, what), what)


def _checked(manifest: Manifest, what: str) -> Manifest:
    if len(manifest.layers) > LAYER_COUNT_LIMIT:
        raise InvalidArgument(f"{what} has {len(manifest.layers)} layers; at most {LAYER_COUNT_LIMIT} can be mounted")
    if manifest.config.media_type not in CONFIG_TYPES:
        raise Unsupported(f"{what} is no container image: its config has the media type {manifest.config.media_type}")
    for layer in manifest.layers:
        if layer.media_type not in LAYER_COMPRESSIONS:
            raise Unsupported(f"{what}: layer {layer.digest} has the unsupported media type {layer.media_type}")
    return manifest


def choose(index: Index, wanted: Platform, what: str = "index") -> Descriptor:
    """The manifest of `index` that suits `wanted` best: same variant first, then no variant, then the oldest that runs.

    Raises  NotFound: none does; the platforms there are named.
    """
    candidates = [entry for entry in index.manifests if entry.platform and entry.media_type in MANIFEST_TYPES]
    ranked = sorted(
        (
            (rank, position, entry)
            for position, entry in enumerate(candidates)
            if (rank := _rank(entry.platform or Platform(), wanted)) is not None
        ),
        key=lambda item: item[:2],
    )
    if ranked:
        return ranked[0][2]
    unnamed = [entry for entry in index.manifests if not entry.platform and entry.media_type in MANIFEST_TYPES]
    if len(unnamed) == 1 and len(index.manifests) == 1:
        return unnamed[0]
    there = ", ".join(sorted({str(entry.platform) for entry in candidates if entry.platform})) or "none"
    raise NotFound(f"no matching manifest for {wanted} in the manifest list entries of {what}; there are: {there}")


_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


def _rank(offered: Platform, wanted: Platform) -> int | None:
    """0 is best, None does not run. 32-bit ARM runs older variants; amd64's v2 and v3 only when asked for."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    default = _DEFAULT_VARIANTS.get(wanted.architecture, "")
    have, want = offered.variant or default, wanted.variant or default
    if have == want:
        return 0
    if wanted.architecture == "arm" and _version(have) < _version(want):
        return _version(want) - _version(have)
    return None


def _version(variant: str) -> int:
    digits = variant.lstrip("v").split(".")[0]
    return int(digits) if digits.isdigit() else 0
