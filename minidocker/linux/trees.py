"""Detached mounts: a mount is taken as a descriptor, finished where nobody sees it, and attached only then.

Source  open_tree(2), move_mount(2), mount_setattr(2) (Linux 5.12); kernel include/uapi/linux/mount.h.
Rules   - both ends are descriptors, so no path is walked twice: what was checked is what is mounted (CVE-2021-30465).
        - attributes are set before the mount is attached; a bind mount is never writable "for a moment".
        - a detached mount lives as long as its descriptor; once attached, the descriptor only names it.
"""

import errno
import os
import struct

from minidocker.errors import KernelError
from minidocker.linux.syscall import syscall

_OPEN_TREE_CLONE = 1
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_MOVE_F_EMPTY_PATH, _MOVE_T_EMPTY_PATH = 0x04, 0x40

RDONLY, NOSUID, NODEV, NOEXEC = 0x01, 0x02, 0x04, 0x08
IDMAP = 0x100000
NOATIME, STRICTATIME, ATIME_MASK = 0x10, 0x20, 0x70
NODIRATIME, NOSYMFOLLOW = 0x80, 0x200000


def clone(fd: int, *, recursive: bool = False, path: object = None) -> int:
    """A detached copy of the mount that `fd` lies in, with `fd` as its root: a bind mount not yet attached.

    recursive  with the mounts below it.
    path       what to call it in errors.
    Raises     KernelError: EINVAL the mount is unbindable or of another user namespace's making.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", fd, b"", flags, path=path)


def set_attributes(
    fd: int, add: int = 0, clear: int = 0, *, propagation: int = 0, recursive: bool = False, path: object = None
) -> None:
    """Change a mount's attributes.

    add, clear   bits of this module; setting one of the atime bits needs ATIME_MASK cleared, which is done here.
    propagation  MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, or 0 to leave it.
    recursive    all mounts below as well.
    """
    if add & ATIME_MASK:
        clear |= ATIME_MASK
    attributes = struct.pack("=QQQQ", add, clear, propagation, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", fd, b"", flags, attributes, len(attributes), path=path)


def shift_ids(tree: int, user: int, *, path: object = None) -> None:
    """Show a detached tree's files with the ids that they have in a user namespace (a descriptor of it).

    Raises  KernelError: EINVAL the filesystem, or this kernel, cannot; EPERM the tree is attached already.
    Source  mount_setattr(2), MOUNT_ATTR_IDMAP.
    """
    attributes = struct.pack("=QQQQ", IDMAP, 0, 0, user)
    hint = {errno.EINVAL: "ids of files are shifted on ext4, xfs, btrfs and others since Linux 5.12, in layers 5.19"}
    syscall("mount_setattr", tree, b"", _AT_EMPTY_PATH, attributes, len(attributes), path=path, hint=hint)


def shifted(directory: str, user: int) -> int:
    """A detached bind mount of a directory, with ids shifted by a user namespace. Raises KernelError."""
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", directory, error.errno or 0) from None
    try:
        tree = clone(fd, path=directory)
    finally:
        os.close(fd)
    try:
        shift_ids(tree, user, path=directory)
    except KernelError:
        os.close(tree)
        raise
    return tree


def attach(fd: int, target_fd: int, path: object = None) -> None:
    """Mount the detached `fd` on `target_fd` (an O_PATH descriptor; a directory on a directory, a file on a file).

    Raises  KernelError: EINVAL one is a directory and the other is not.
    """
    hint = {errno.EINVAL: "are you trying to mount a directory onto a file (or vice-versa)"}
    flags = _MOVE_F_EMPTY_PATH | _MOVE_T_EMPTY_PATH
    syscall("move_mount", fd, b"", target_fd, b"", flags, path=path, hint=hint)


def bind(
    source_fd: int,
    target_fd: int,
    *,
    add: int = 0,
    clear: int = 0,
    propagation: int = 0,
    recursive: bool = False,
    recursive_add: int = 0,
    recursive_clear: int = 0,
    path: object = None,
) -> None:
    """Bind mount `source_fd` on `target_fd`, with its attributes set before anyone can see it.

    recursive                       with the mounts below the source.
    recursive_add, recursive_clear  attributes for those as well.
    """
    tree = clone(source_fd, recursive=recursive, path=path)
    try:
        if add or clear:
            set_attributes(tree, add, clear & ~add, path=path)
        if recursive_add or recursive_clear:
            set_attributes(tree, recursive_add, recursive_clear, recursive=True, path=path)
        attach(tree, target_fd, path)
        # A detached mount's propagation is that of its source: set it once it has its place.
        if propagation:
            set_attributes(tree, propagation=propagation, recursive=recursive, path=path)
    finally:
        os.close(tree)
