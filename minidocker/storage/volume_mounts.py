"""What the local driver mounts on a volume's directory: a tmpfs, a directory of the host, NFS, any filesystem there is.

Source  Docker's reference of `docker volume create`, "Driver-specific options"; mount(8) for the words of `o`; nfs(5).
        Texts recorded from dockerd.
Rules   - options are checked when the volume is made, mounted when it is first used: only then the device must be
          there.
        - a mount is made in the namespace of the daemon, so that all containers that use the volume share it.
        - what is mounted is the kernel's knowledge: `mounted` reads mountinfo, nothing is written down.
"""

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from minidocker.errors import InvalidArgument, KernelError, MinidockerError
from minidocker.linux import mounts
from minidocker.linux.mounts import MountFlag, MountOptions

KNOWN = ("type", "o", "device", "size")
_NEEDS = {"device": "type", "type": "device"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?\Z", re.I)
_RESOLVED = ("nfs", "nfs4", "cifs")  # the kernel takes addresses only
_ADDRESS = re.compile(r"(?:\A|,)addr=([^,]+)")
_TRIES = 8  # mounts stacked on one directory: never more than one, unless someone else made them


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidArgument: an unknown option, one without the one that it needs, or a size: there are no quotas."""
    for key in options:
        if key not in KNOWN:
            raise InvalidArgument(f'invalid option: "{key}"')
    if "size" in options:
        size = _SIZE.match(options["size"])
        if size is None:
            raise InvalidArgument(f"invalid size: '{options['size']}'")
        if float(size[1]) > 0:
            raise InvalidArgument("quota size requested but no quota support")
    for key, needed in _NEEDS.items():
        if key in options and needed not in options:
            raise InvalidArgument(f'missing required option: "{needed}"')


def wanted(options: Mapping[str, str]) -> bool:
    """Whether these options ask for a mount at all."""
    return bool(options.get("type") or options.get("device"))


def mount(target: Path, options: Mapping[str, str]) -> None:
    """Mount on the volume's directory what its options say.

    Raises  MinidockerError: the kernel refuses, in Docker's words; an address is not found.
    """
    device, fstype = options.get("device", ""), options.get("type", "")
    if not device:
        raise MinidockerError("missing device in volume options")
    words = _resolved(fstype, options.get("o", ""))
    parsed = mounts.parse_options(words.split(","))
    try:
        _mount(device, target, fstype, parsed)
    except KernelError as error:
        raise MinidockerError(f"failed to mount local volume: {_like_docker(error, device, target, parsed)}") from error


def _mount(device: str, target: Path, fstype: str, parsed: MountOptions) -> None:
    mounts.mount(device, target, fstype, parsed.flags, parsed.data or None)
    try:
        for flag in parsed.propagation:
            mounts.set_propagation(target, flag)
        if parsed.flags & MountFlag.BIND and parsed.flags & MountFlag.RDONLY:
            mounts.mount(None, target, None, parsed.flags | MountFlag.REMOUNT)
    except BaseException:
        mounts.unmount(target, detach=True)
        raise


def _like_docker(error: KernelError, device: str, target: Path, parsed: MountOptions) -> str:
    flags = f", flags: 0x{parsed.flags:x}" if parsed.flags else ""
    data = f", data: {parsed.data}" if parsed.data else ""
    return f"mount {device}:{target}{flags}{data}: {(error.strerror or '').lower()}"


def _resolved(fstype: str, words: str) -> str:
    """`words` with the address behind a name after `addr=`."""
    found = _ADDRESS.search(words) if fstype in _RESOLVED else None
    if found is None:
        return words
    name = found[1]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return words
    try:
        address = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise MinidockerError(f"error resolving passed in network volume address: lookup {name}: {error}") from error
    return words.replace(f"addr={name}", f"addr={address}", 1)


def unmount(target: Path) -> None:
    """Remove what is mounted on `target`, if anything is; who is still inside keeps it until they leave.

    Raises  KernelError.
    """
    for _ in range(_TRIES):
        if not _is_mounted(target):
            return
        mounts.unmount(target, detach=True)
    raise KernelError("umount2", target, errno.EBUSY, "something mounts there again and again")


def _is_mounted(target: Path) -> bool:
    return any(mount.mount_point == os.fspath(target) for mount in mounts.mountinfo())


def mounted(directory: Path) -> set[str]:
    """The names of the volumes below `directory` (`<name>/_data`) on which something is mounted."""
    prefix, suffix = f"{directory}/", "/_data"
    points = {mount.mount_point for mount in mounts.mountinfo()}
    inside = {point.removeprefix(prefix) for point in points if point.startswith(prefix) and point.endswith(suffix)}
    return {name for point in inside if "/" not in (name := point.removesuffix(suffix))}
