"""The image configuration: how to run an image, and which layers it is made of.

Source  OCI image-spec, config.md; Docker image specification v1.2 (Healthcheck, OnBuild, Shell and the other extras).
Rules   - an image's ID is the digest of this document's exact bytes, so the bytes are kept, never written anew.
        - rootfs.diff_ids and history are base first.
        - `null` and a missing field mean the same: nothing set.
"""

from typing import Any

import msgspec

from minidocker.errors import InvalidArgument
from minidocker.oci.codec import decode
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import DOCUMENT_LIMIT_BYTES, LAYER_COUNT_LIMIT, Platform


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """How to ask a container whether it is well. Times in nanoseconds; 0 means Docker's default."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ExecutionConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Defaults of a container made from the image (the field `config`)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    image: str = ""  # of a container's configuration: what it was made from


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One build step. `empty_layer` True: it changed only the configuration."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True):
    """The unpacked layers' digests, base first."""

    type: str = "layers"
    diff_ids: list[Digest] | None = None


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename={"os_version": "os.version"}):
    """The whole document.

    container_config  of a build's step or a commit: what its container ran with; the build cache compares it.
    """

    architecture: str
    os: str
    rootfs: RootFS
    config: ExecutionConfig | None = None
    history: list[History] | None = None
    created: str | None = None
    author: str = ""
    variant: str = ""
    os_version: str = ""
    parent: str = ""
    comment: str = ""
    container: str = ""
    docker_version: str = ""
    container_config: ExecutionConfig | None = None

    @property
    def execution(self) -> ExecutionConfig:
        """`config`, or an empty one."""
        return self.config or ExecutionConfig()

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers, base first."""
        return tuple(self.rootfs.diff_ids or ())

    @property
    def platform(self) -> Platform:
        """What the image runs on."""
        return Platform(self.architecture, self.os, self.variant)


def parse(content: bytes, what: str = "image config") -> ImageConfig:
    """Read the document.

    Raises  InvalidArgument: over 4 MiB, not JSON, a wrong type, an unknown rootfs type, too many layers, or a
            history that counts more layers than rootfs has.
    """
    if len(content) > DOCUMENT_LIMIT_BYTES:
        raise InvalidArgument(f"invalid {what}: larger than {DOCUMENT_LIMIT_BYTES} bytes")
    config = decode(content, ImageConfig, what)
    if config.rootfs.type != "layers":
        raise InvalidArgument(f"invalid {what}: rootfs.type is {config.rootfs.type!r}, expected 'layers'")
    if len(config.diff_ids) > LAYER_COUNT_LIMIT:
        raise InvalidArgument(f"invalid {what}: {len(config.diff_ids)} layers, at most {LAYER_COUNT_LIMIT} fit")
    if config.history:
        filled = sum(not step.empty_layer for step in config.history)
        if filled > len(config.diff_ids):
            raise InvalidArgument(f"invalid {what}: history tells of {filled} layers, rootfs of {len(config.diff_ids)}")
    return config
