"""Images as the API shows them. Pure: objects in, plain data for JSON out.

Source  Docker Engine API 1.41 and 1.44: ImageSummary, ImageInspect, HistoryResponseItem; replies recorded from dockerd.
Rules   - before 1.43 an image without names says `<none>`; up to 1.43 there is VirtualSize beside Size.
        - names are shown in their familiar form; layers and history come newest first in history, base first elsewhere.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from minidocker.engine.clock import NEVER, nanoseconds_of
from minidocker.engine.images.image_filters import created_seconds
from minidocker.errors import InvalidArgument
from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig
from minidocker.oci.reference import Reference
from minidocker.storage.images import Image

Version = tuple[int, int]
_NONE_TAG, _NONE_DIGEST = "<none>:<none>", "<none>@<none>"


def tags_of(names: Sequence[Reference]) -> list[str]:
    """The familiar names with a tag."""
    return [name.familiar for name in names if name.tag]


def digests_of(names: Sequence[Reference]) -> list[str]:
    """The familiar names with a digest."""
    return [name.familiar for name in names if name.digest]


def summary(
    image: Image, names: Sequence[Reference], size_bytes: int, version: Version, *, shared_bytes: int = -1
) -> dict[str, Any]:
    """One line of the list. shared_bytes  -1: not asked for."""
    tags, digests = tags_of(names), digests_of(names)
    if version < (1, 43):
        digests = digests or ([] if tags else [_NONE_DIGEST])
        tags = tags or [_NONE_TAG]
    shown: dict[str, Any] = {
        "Containers": -1,
        "Created": created_seconds(image),
        "Id": str(image.id),
        "Labels": image.config.execution.labels,
        "ParentId": str(image.parent or ""),
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared_bytes,
        "Size": size_bytes,
    }
    if version < (1, 44):
        shown["VirtualSize"] = size_bytes
    return shown


def execution(config: ExecutionConfig) -> dict[str, Any]:
    """The image's defaults with all the fields that Docker shows, also unset."""
    shown: dict[str, Any] = {
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
    }
    if config.exposed_ports:
        shown["ExposedPorts"] = config.exposed_ports
    shown |= {"Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": config.env, "Cmd": config.cmd}
    if config.healthcheck is not None:
        shown["Healthcheck"] = msgspec.to_builtins(config.healthcheck)
    if config.args_escaped:
        shown["ArgsEscaped"] = True
    shown |= {
        "Image": config.image,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": config.on_build,
        "Labels": config.labels,
    }
    if config.stop_signal:
        shown["StopSignal"] = config.stop_signal
    if config.stop_timeout is not None:
        shown["StopTimeout"] = config.stop_timeout
    if config.shell:
        shown["Shell"] = config.shell
    return shown


def inspect(
    image: Image, names: Sequence[Reference], size_bytes: int, directories: Sequence[str], version: Version
) -> dict[str, Any]:
    """All about one image. directories  of its unpacked layers, top first."""
    config = image.config
    shown: dict[str, Any] = {
        "Id": str(image.id),
        "RepoTags": tags_of(names),
        "RepoDigests": digests_of(names),
        "Parent": str(image.parent or ""),
        "Comment": config.comment or _last_comment(image),
        "Created": config.created or NEVER,
        "Container": config.container,
        "ContainerConfig": execution(config.container_config or ExecutionConfig()),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": execution(config.execution),
        "Architecture": config.architecture,
    }
    if config.variant:
        shown["Variant"] = config.variant
    shown |= {"Os": config.os, "Size": size_bytes}
    if version < (1, 44):
        shown["VirtualSize"] = size_bytes
    # Read-only views only: an image is not mounted.
    driver = {"UpperDir": directories[0]} if directories else {}
    if len(directories) > 1:
        driver["LowerDir"] = ":".join(directories[1:])
    shown |= {
        "GraphDriver": {"Data": driver, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
        "Metadata": {"LastTagTime": NEVER},
    }
    return shown


def _last_comment(image: Image) -> str:
    return image.config.history[-1].comment if image.config.history else ""


def history(image: Image, sizes: Sequence[int], ids: Sequence[tuple[Digest, list[str]]]) -> list[dict[str, Any]]:
    """The steps, newest first.

    sizes  of the layers in bytes, base first.
    ids    the image and its known parents with their tags, newest first.
    """
    rows: list[dict[str, Any]] = []
    layer_sizes = iter(sizes)
    for step in image.config.history or ():
        size = 0 if step.empty_layer else next(layer_sizes, 0)
        try:
            created = nanoseconds_of(step.created or "") // 1_000_000_000
        except InvalidArgument:
            created = 0
        rows.insert(0, {"Comment": step.comment, "Created": created, "CreatedBy": step.created_by,
                        "Id": "<missing>", "Size": size, "Tags": None})  # fmt: skip
    for row, (id, tags) in zip(rows, ids, strict=False):
        row["Id"], row["Tags"] = str(id), tags or None
    return rows
