"""The tree that a worker's child works on: a container's root, entered or mounted, and the chroot into it.

Source  chroot(2), setns(2); CVE-2019-14271 (code loaded from inside a chroot ran as root of the host).
Rules   - for a child of its own: it changes this process's root and mount namespace for good.
        - everything is imported before chroot; afterwards the import system is switched off.
        - a running container is entered by a copy of its mount namespace, one that does not run by a mount of its
          layers that nobody else sees.
"""

import contextlib
import errno
import os
import select
import stat
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from minidocker.errors import KernelError, NotFound, Unavailable
from minidocker.linux import namespaces, trees
from minidocker.linux.mounts import Mount, MountFlag, mkdirs_in_root, mountinfo, open_in_root, set_propagation, unmount
from minidocker.linux.namespaces import CloneFlag
from minidocker.linux.rooted_paths import open_beneath
from minidocker.storage import overlay
from minidocker.storage import worker_protocol as protocol

T = TypeVar("T")
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MADE_UP = frozenset(
    ["proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "pstore"]
)


def confine(root_fd: int) -> int:
    """Make the directory `root_fd` this process's root for good and switch imports off; returns a descriptor of it."""
    os.fchdir(root_fd)
    os.chroot(".")
    sys.path.clear()
    sys.path_hooks.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder"]
    return os.open("/", _DIRECTORY)


def enter(place: protocol.Place, fds: list[int]) -> int:
    """A descriptor of the container's root, with its mounts."""
    if isinstance(place, protocol.Running):
        return _enter_running(place, fds[0])
    root = mount(place)
    for bind in place.binds:
        source = _source(bind)
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = mkdirs_in_root(root, bind.destination) if directory else _file_for(root, bind.destination)
        read_only = trees.RDONLY if bind.read_only else 0
        trees.bind(source, target, add=read_only, recursive=True, path=bind.destination)
        os.close(source)
        os.close(target)
    if place.read_only:
        trees.set_attributes(root, trees.RDONLY, path="/")
    return root


def _source(bind: protocol.Bind) -> int:
    if bind.beneath:
        return open_beneath(bind.beneath, os.path.relpath(bind.source, bind.beneath), os.O_PATH)
    return os.open(bind.source, os.O_PATH | os.O_CLOEXEC)


def _file_for(root: int, destination: str) -> int:
    """An O_PATH descriptor of what a file can be mounted on, made if it is missing."""
    try:
        return open_in_root(root, destination, os.O_PATH)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    directory, _, leaf = destination.rpartition("/")
    parent = mkdirs_in_root(root, directory or "/")
    os.close(open_in_root(parent, leaf, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o755))
    os.close(parent)
    return open_in_root(root, destination, os.O_PATH)


def _enter_running(place: protocol.Running, pidfd: int) -> int:
    """Into a copy of the container's mount namespace.

    From another namespace, unlink would take its mount points away from the container. What the kernel makes up (proc,
    sysfs, ...) is taken out of the copy, since it cannot be copied: files of no size, or of no end.
    """
    root = _pinned(place.pid, pidfd, lambda: os.open(f"/proc/{place.pid}/root", _DIRECTORY))
    if os.path.samestat(os.fstat(root), os.stat("/")):  # never, but then all of the host would be shown
        raise Unavailable(f"process {place.pid} has no root of its own")
    made_up = _pinned(place.pid, pidfd, lambda: _made_up(mountinfo(place.pid)))
    namespaces.setns(pidfd, CloneFlag.NEWNS)
    confine(root)
    namespaces.unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)
    for path in made_up:
        with contextlib.suppress(KernelError):  # it went with a mount above it
            unmount(path, detach=True)
    return os.open("/", _DIRECTORY)


def _made_up(mounts: Sequence[Mount]) -> list[str]:
    """Where a container sees filesystems without files of its own; not those that a user mounted elsewhere."""
    places = [one.mount_point for one in mounts if one.fstype in _MADE_UP]
    return sorted(path for path in places if f"{path}/".startswith(("/proc/", "/sys/", "/dev/")))


def _pinned(pid: int, pidfd: int, use: Callable[[], T]) -> T:
    """`use()` of /proc/PID, which counts only if the pid still was that of `pidfd` afterwards."""
    try:
        result: T | None = use()
    except OSError:
        result = None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(0) or result is None:
        raise NotFound(f"the container's process {pid} has ended")
    return result


def mount(place: protocol.Stopped, target: str = "") -> int:
    """Mount the layers of a container that does not run; a descriptor of the root, without the container's mounts.

    target  where; "": a directory that this mount needs no more, so it serves one mount.
    """
    namespaces.unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)
    target = target or f"{place.directory}/l"  # any directory does: nobody else sees the mount
    lowerdir = place.lowerdir if place.upperdir else f"{place.lowerdir}:{protocol.EMPTY}"
    words = overlay.options(lowerdir, place.upperdir, place.workdir)
    overlay.mount_overlay(place.directory, words, target)
    return os.open(target, _DIRECTORY)


def enter_without_mounts(place: protocol.Place, fds: list[int]) -> int:
    """The root's own filesystem: of a running container a clone of its root mount, without what is mounted below."""
    if isinstance(place, protocol.Stopped):
        return mount(place)
    return trees.clone(enter(place, fds), path="/")
