"""What a container sees mounted: binds, volumes and tmpfs, read from a create request.

Source  Docker Engine API 1.44, HostConfig.Binds, Mounts, Tmpfs, VolumesFrom, Config.Volumes; moby volume/mounts.
Rules   - later sources never replace earlier ones: volumes-from, binds, mounts, then the image's volumes.
        - two requests for one destination are an error; so is a relative destination, or `/`.
        - a source with a slash is a path of the host and must be absolute; a name is a volume.
"""

import os
import posixpath
import secrets
from collections.abc import Callable
from pathlib import Path

from minidocker.engine.containers.config import BindOptions, ContainerConfig, HostConfig, MountRequest, VolumeOptions
from minidocker.engine.containers.container import MountPoint
from minidocker.errors import InvalidArgument, MinidockerError, NotFound
from minidocker.linux.mounts import Mount
from minidocker.storage.volumes import check_name

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_CONSISTENCY = ("consistent", "cached", "delegated", "default")
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_OPPOSITE = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "ro": "rw"}
_TMPFS_WORDS = {
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "ro",
    "rw",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
}
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")


def check_destination(path: str, kind: str) -> str:
    """`path` normalised. Raises InvalidArgument: relative, or the root itself."""
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"{kind}\": invalid mount path: '{path}' mount path must be absolute"
        )
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise InvalidArgument(
            f"invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        )
    if "\0" in path:
        raise InvalidArgument(f'invalid mount config for type "{kind}": the path holds a NUL byte')
    return clean


def parse_bind(text: str) -> MountPoint:
    """Read `source:destination[:modes]`, or a lone destination for an anonymous volume."""
    try:
        return _parse_bind(text)
    except InvalidArgument as error:
        if str(error).startswith("create "):
            raise
        raise InvalidArgument(f"invalid volume specification: '{text}': {error}") from None


def _parse_bind(text: str) -> MountPoint:
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument("invalid spec: " + text + ": expected source:destination[:modes]")
    source = parts[0] if len(parts) > 1 else ""
    modes = parts[2].split(",") if len(parts) == 3 else []
    if source.startswith("/"):
        point = MountPoint("bind", check_destination(parts[1], "bind"), posixpath.normpath("/" + source.lstrip("/")))
        point.create_source, point.propagation, point.read_only_below = True, "rprivate", True
    elif source:
        point = MountPoint(
            "volume", check_destination(parts[1], "volume"), name=check_name(source), mode="z", copy_up=True
        )
    else:
        point = MountPoint("volume", check_destination(parts[0], "volume"), copy_up=True, owned=True)
    _apply_modes(point, modes)
    return point


def _apply_modes(point: MountPoint, modes: list[str]) -> None:
    groups = (("ro", "rw"), PROPAGATIONS, ("z", "Z"), ("nocopy", "copy"), _CONSISTENCY)
    if any(sum(mode in group for mode in modes) > 1 for group in groups):
        raise InvalidArgument(f"invalid mode: {','.join(modes)}")
    for mode in modes:
        if mode in ("ro", "rw"):
            point.writable = mode == "rw"
        elif mode in PROPAGATIONS and point.type == "bind":
            point.propagation = mode
        elif mode in ("nocopy", "copy") and point.type == "volume":
            point.copy_up = mode == "copy"
        elif mode not in ("z", "Z", *_CONSISTENCY):
            raise InvalidArgument(f"invalid mode: {','.join(modes)}")
    if modes:
        point.mode = ",".join(modes)


def parse_mount(request: MountRequest) -> MountPoint:
    """Read one `--mount`.

    Raises  InvalidArgument: an unknown type, options of another type, a missing source of a bind.
    """
    kind = request.type
    if kind not in ("bind", "volume", "tmpfs"):
        raise InvalidArgument(f'invalid mount config for type "{kind}": mount type unknown')
    if not request.target:
        raise InvalidArgument(f'invalid mount config for type "{kind}": field Target must not be empty')
    destination = check_destination(request.target, kind)
    for other, options in (
        ("bind", request.bind_options),
        ("volume", request.volume_options),
        ("tmpfs", request.tmpfs_options),
    ):
        if options is not None and other != kind:
            raise InvalidArgument(
                f'invalid mount config for type "{kind}": field {other.capitalize()}Options must not be specified'
            )
    if kind == "bind":
        return _parse_bind_mount(request, destination)
    if kind == "volume":
        return _parse_volume_mount(request, destination)
    if request.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    options_words = [*_TMPFS_DEFAULTS]
    wanted = request.tmpfs_options
    if wanted and wanted.size_bytes:
        options_words.append(f"size={wanted.size_bytes}")
    if wanted and wanted.mode is not None:
        options_words.append(f"mode={wanted.mode:o}")
    if request.read_only:
        options_words.append("ro")
    return MountPoint("tmpfs", destination, writable=not request.read_only, options=options_words)


def _parse_bind_mount(request: MountRequest, destination: str) -> MountPoint:
    if not request.source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    if not request.source.startswith("/"):
        raise InvalidArgument(
            'invalid mount config for type "bind": invalid mount path: '
            f"'{request.source}' mount path must be absolute"
        )
    options = request.bind_options
    create = bool(options and options.create_mountpoint)
    if not create and not Path(request.source).exists():
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {request.source}'
        )
    propagation = options.propagation if options and options.propagation else "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    point = MountPoint("bind", destination, request.source, writable=not request.read_only, propagation=propagation)
    point.create_source = create
    if options is not None and options.read_only_force_recursive:
        _check_force(request, options)
    point.non_recursive = bool(options and options.non_recursive)
    point.read_only_below = not point.non_recursive and not (options and options.read_only_non_recursive)
    return point


def _check_force(request: MountRequest, options: BindOptions) -> None:
    """Raises InvalidArgument: read-only down to the last mount is asked for together with what prevents it."""
    where = 'invalid mount config for type "bind": ReadOnlyForceRecursive '
    if not request.read_only:
        raise InvalidArgument(where + "needs ReadOnly")
    if options.read_only_non_recursive or options.non_recursive:
        raise InvalidArgument(where + "and NonRecursive contradict each other")
    if options.propagation not in ("", "rprivate"):
        raise InvalidArgument(where + "needs the propagation rprivate")


def _parse_volume_mount(request: MountRequest, destination: str) -> MountPoint:
    options = request.volume_options
    name = check_name(request.source) if request.source else ""
    point = MountPoint("volume", destination, name=name, writable=not request.read_only, copy_up=True, mode="z")
    point.copy_up = not (options and options.no_copy)
    point.owned = not name
    if not name and request.read_only:
        raise InvalidArgument(
            'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes'
        )
    if options and options.driver_config:
        point.driver = options.driver_config.name
    if options and options.subpath:
        point.subpath = _subpath(options.subpath, anonymous=not name)
    return point


def _subpath(path: str, *, anonymous: bool) -> str:
    """Clients of any version may ask for a part of a volume: dockerd before API 1.45 would show all of it instead.

    Raises  InvalidArgument: it leads out of the volume by its very words, or the volume has nothing in it yet.
    """
    clean = posixpath.normpath(path)
    if path.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in path:
        raise InvalidArgument(
            'invalid mount config for type "volume": subpath must be a relative path within the volume'
        )
    if anonymous:
        raise InvalidArgument(
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes'
        )
    return "" if clean == "." else clean


def parse_tmpfs(destination: str, text: str) -> MountPoint:
    """Read one `--tmpfs destination:options`."""
    words = list(_TMPFS_DEFAULTS)
    for word in filter(None, text.split(",")):
        key, equals, _ = word.partition("=")
        if (equals and key not in _TMPFS_VALUES) or (not equals and word not in _TMPFS_WORDS):
            raise InvalidArgument(f'invalid tmpfs option ["{word}"]')
        opposite = _OPPOSITE.get(word)
        words = [w for w in words if w not in (opposite, word)] + [word]
    return MountPoint("tmpfs", check_destination(destination, "tmpfs"), writable="ro" not in words, options=words)


def plan(config: ContainerConfig, host: HostConfig, volumes_of: Callable[[str], list[MountPoint]]) -> list[MountPoint]:
    """All mounts that a container asks for, by destination; volumes have no source yet.

    volumes_of  the mounts of another container, by name or ID (for VolumesFrom).
    Raises      InvalidArgument: see the rules, or no such container.
    """
    points: dict[str, MountPoint] = {}
    for text in host.volumes_from or []:
        if not text:
            raise InvalidArgument("volumes-from specification cannot be an empty string")
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid mode: {mode}")
        try:
            shared = volumes_of(name)
        except NotFound as error:
            raise InvalidArgument(str(error)) from None
        for point in shared:
            points[point.destination] = _shared(point, read_only=mode == "ro")
    asked: dict[str, MountPoint] = {}
    binds = [parse_bind(text) for text in host.binds or []]
    for point in binds:
        point.driver = host.volume_driver if point.type == "volume" else ""
    requests = binds + [parse_mount(mount) for mount in host.mounts or []]
    requests += [parse_tmpfs(destination, text) for destination, text in (host.tmpfs or {}).items()]
    for point in requests:
        if point.destination in asked:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        asked[point.destination] = point
    points |= asked
    for destination in config.volumes or {}:
        clean = check_destination(f"/{destination}", "volume")  # a relative one begins at the root, as in Docker
        points.setdefault(clean, MountPoint("volume", clean, copy_up=True, owned=True, driver=host.volume_driver))
    return sorted(points.values(), key=lambda point: (point.destination.count("/"), point.destination))


def _shared(point: MountPoint, *, read_only: bool) -> MountPoint:
    return MountPoint(
        point.type,
        point.destination,
        point.source,
        point.name,
        "ro" if read_only else point.mode,
        point.writable and not read_only,
        point.propagation,
        create_source=point.create_source,
        non_recursive=point.non_recursive,
        read_only_below=point.read_only_below,
        options=point.options,
        driver=point.driver,
        to_mount=point.to_mount,
        subpath=point.subpath,
        owned=point.owned,  # as Docker: an anonymous volume goes with the last container that has it
    )


def name_anonymous(points: list[MountPoint]) -> bool:
    """Give the anonymous volumes their names before they are made. True if there are any."""
    unnamed = [point for point in points if point.type == "volume" and not point.name]
    for point in unnamed:
        point.name = secrets.token_hex(32)
    return bool(unnamed)


def volume_options(host: HostConfig) -> dict[str, VolumeOptions]:
    """What `--mount` asks for of volumes that are not there yet, by destination."""
    return {posixpath.normpath(m.target): m.volume_options for m in host.mounts or [] if m.volume_options is not None}


def check_propagation(points: list[MountPoint], host: Callable[[], list[Mount]]) -> None:
    """At start: only a mount of the host that is shared can be shared with it, or be the master of a slave.

    host    what gives the mounts that the daemon sees; asked only if it matters
    Raises  MinidockerError, in Docker's words.
    """
    tied = [p for p in points if p.type == "bind" and p.propagation.removeprefix("r") in ("shared", "slave")]
    seen = host() if tied else []
    for point in tied:
        kind, source = point.propagation.removeprefix("r"), os.path.realpath(point.source)
        place = max((m for m in seen if _holds(m.mount_point, source)), key=lambda m: len(m.mount_point))
        ties = {tie.partition(":")[0] for tie in place.propagation}
        if not ties & ({"shared"} if kind == "shared" else {"shared", "master"}):
            wanted = "shared" if kind == "shared" else "shared or slave"
            raise MinidockerError(
                f"path {point.source} is mounted on {place.mount_point} but it is not a {wanted} mount"
            )


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def prepare_sources(points: list[MountPoint]) -> None:
    """At start: make missing directories of the host for `-v`. Raises InvalidArgument: a bind's source is gone."""
    for point in points:
        if point.type != "bind" or Path(point.source).exists():
            continue
        if not point.create_source:
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )
        Path(point.source).mkdir(parents=True, exist_ok=True)
