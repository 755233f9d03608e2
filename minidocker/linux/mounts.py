"""Mounts: what a process sees as its tree of files, and how to change it.

Source  mount(2), umount2(2), pivot_root(2), mount_setattr(2), mount_namespaces(7), proc_pid_mountinfo(5); kernel
        Documentation/filesystems/sharedsubtree.rst; fstab words: mount(8); OCI runtime-spec config.md "mounts".
Rules   - a mount shows up in every peer of a shared mount: make the tree private first, then change it.
        - a bind mount ignores all flags but BIND and REC; a second call with REMOUNT|BIND sets them.
        - never mount on a path that an image or a container chose: open it by rooted_paths, mount on `fd_path(fd)`.
"""

import errno
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from types import MappingProxyType

from minidocker.errors import InvalidArgument, KernelError

# Named here too, for who mounts on such paths.
from minidocker.linux.rooted_paths import Resolve as Resolve
from minidocker.linux.rooted_paths import mkdirs_in_root as mkdirs_in_root
from minidocker.linux.rooted_paths import open_in_root as open_in_root
from minidocker.linux.rooted_paths import openat2 as openat2
from minidocker.linux.syscall import c_string, syscall

Place = str | bytes | os.PathLike[str]


class MountFlag(IntFlag):
    """The flags of mount(2) (MS_...; kernel include/uapi/linux/mount.h)."""

    RDONLY = 1 << 0
    NOSUID = 1 << 1
    NODEV = 1 << 2
    NOEXEC = 1 << 3
    SYNCHRONOUS = 1 << 4
    REMOUNT = 1 << 5
    MANDLOCK = 1 << 6
    DIRSYNC = 1 << 7
    NOSYMFOLLOW = 1 << 8
    NOATIME = 1 << 10
    NODIRATIME = 1 << 11
    BIND = 1 << 12
    MOVE = 1 << 13
    REC = 1 << 14
    SILENT = 1 << 15
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24
    LAZYTIME = 1 << 25


NO_FLAGS = MountFlag(0)
_PROPAGATION = MountFlag.PRIVATE | MountFlag.SHARED | MountFlag.SLAVE | MountFlag.UNBINDABLE
# What mount_setattr(2) can set for a whole tree; these four have the same bits there.
_RECURSIVE = MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC

# Option words of fstab and OCI documents: whether the word sets its flag or clears it.
OPTIONS: Mapping[str, tuple[bool, MountFlag]] = MappingProxyType(
    {
        "defaults": (True, NO_FLAGS),
        "ro": (True, MountFlag.RDONLY),
        "rw": (False, MountFlag.RDONLY),
        "nosuid": (True, MountFlag.NOSUID),
        "suid": (False, MountFlag.NOSUID),
        "nodev": (True, MountFlag.NODEV),
        "dev": (False, MountFlag.NODEV),
        "noexec": (True, MountFlag.NOEXEC),
        "exec": (False, MountFlag.NOEXEC),
        "sync": (True, MountFlag.SYNCHRONOUS),
        "async": (False, MountFlag.SYNCHRONOUS),
        "dirsync": (True, MountFlag.DIRSYNC),
        "remount": (True, MountFlag.REMOUNT),
        "mand": (True, MountFlag.MANDLOCK),
        "nomand": (False, MountFlag.MANDLOCK),
        "nosymfollow": (True, MountFlag.NOSYMFOLLOW),
        "symfollow": (False, MountFlag.NOSYMFOLLOW),
        "noatime": (True, MountFlag.NOATIME),
        "atime": (False, MountFlag.NOATIME),
        "nodiratime": (True, MountFlag.NODIRATIME),
        "diratime": (False, MountFlag.NODIRATIME),
        "relatime": (True, MountFlag.RELATIME),
        "norelatime": (False, MountFlag.RELATIME),
        "strictatime": (True, MountFlag.STRICTATIME),
        "nostrictatime": (False, MountFlag.STRICTATIME),
        "lazytime": (True, MountFlag.LAZYTIME),
        "nolazytime": (False, MountFlag.LAZYTIME),
        "silent": (True, MountFlag.SILENT),
        "loud": (False, MountFlag.SILENT),
        "bind": (True, MountFlag.BIND),
        "rbind": (True, MountFlag.BIND | MountFlag.REC),
        "private": (True, MountFlag.PRIVATE),
        "rprivate": (True, MountFlag.PRIVATE | MountFlag.REC),
        "shared": (True, MountFlag.SHARED),
        "rshared": (True, MountFlag.SHARED | MountFlag.REC),
        "slave": (True, MountFlag.SLAVE),
        "rslave": (True, MountFlag.SLAVE | MountFlag.REC),
        "unbindable": (True, MountFlag.UNBINDABLE),
        "runbindable": (True, MountFlag.UNBINDABLE | MountFlag.REC),
    }
)

_MOUNT_HINTS = {
    errno.EPERM: "needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace; or a flag is locked there",
    errno.EINVAL: "the source is no such filesystem or mount, or an option is unknown: the kernel log may say which",
    errno.ENODEV: "this kernel does not have the filesystem: see /proc/filesystems",
    errno.EBUSY: "already mounted there, or in use",
    errno.ENOENT: "source or target does not exist",
    errno.ENOTDIR: "a directory can only be bound on a directory, a file on a file",
    errno.ELOOP: "a symbolic link stands where none may",
}


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Option words, sorted by what becomes of them."""

    flags: MountFlag = NO_FLAGS  # for mount(2)
    cleared: MountFlag = NO_FLAGS  # asked for explicitly: a remount must not carry them over
    propagation: tuple[MountFlag, ...] = ()  # each a call of its own, after the mount
    recursive: MountFlag = NO_FLAGS  # "rro" and the like, for set_recursively
    recursive_cleared: MountFlag = NO_FLAGS
    data: str = ""  # the filesystem's own options, comma-separated
    copy_up: bool = False  # "tmpcopyup": fill a tmpfs with what it hides


def parse_options(options: Sequence[str]) -> MountOptions:
    """Sort the option words of an fstab line or an OCI mount; of two words that contradict each other the later counts.

    >>> options = parse_options(["nosuid", "ro", "rw", "size=64k", "rprivate"])
    >>> options.flags, options.cleared, options.data
    (<MountFlag.NOSUID: 2>, <MountFlag.RDONLY: 1>, 'size=64k')
    """
    setting = {False: NO_FLAGS, True: NO_FLAGS}  # by whether the word is for the whole tree ("rro")
    clearing = {False: NO_FLAGS, True: NO_FLAGS}
    propagation: list[MountFlag] = []
    data: list[str] = []
    for word in options:
        recursive = word not in OPTIONS and word.startswith("r") and bool(OPTIONS.get(word[1:], (0, 0))[1] & _RECURSIVE)
        sets, flag = OPTIONS.get(word[1:] if recursive else word, (True, None))
        if flag is None:
            data.append(word)
        elif flag & _PROPAGATION:
            propagation.append(flag)
        elif sets:
            setting[recursive] |= flag
            clearing[recursive] &= ~flag
        else:
            setting[recursive] &= ~flag
            clearing[recursive] |= flag
    return MountOptions(
        setting[False],
        clearing[False],
        tuple(propagation),
        setting[True],
        clearing[True],
        ",".join(word for word in data if word not in ("", "tmpcopyup")),
        "tmpcopyup" in data,
    )


def mount(
    source: Place | None,
    target: Place,
    fstype: str | None = None,
    flags: MountFlag = NO_FLAGS,
    data: str | bytes | None = None,
) -> None:
    """Attach a filesystem, or another place of the tree (BIND), at `target`; or change a mount (REMOUNT).

    source  a device, a name that mountinfo shall show, or the tree to bind.
    data    the filesystem's own options, comma-separated, less than a page long.
    Raises  KernelError, with the errors of mount(2); InvalidArgument if data is too long: the kernel would cut it.
    Source  mount(2).
    """
    options = c_string(data) if data else None
    if options is not None and len(options) >= os.sysconf("SC_PAGESIZE"):
        raise InvalidArgument(f"mount options for {os.fsdecode(target)} are longer than a page: {len(options)} bytes")
    syscall(
        "mount",
        None if source is None else c_string(source),
        c_string(target),
        None if fstype is None else c_string(fstype),
        flags,
        options,
        path=target,
        hint=_MOUNT_HINTS,
    )


def unmount(target: Place, *, detach: bool = False) -> None:
    """Remove the topmost mount at `target`; a symbolic link there is not followed.

    detach  True: with all mounts below, hidden now, freed when the last user leaves (MNT_DETACH).
    Raises  KernelError: EINVAL not a mount point, EBUSY a process is inside or a mount below.
    Source  umount2(2).
    """
    detach_flag, nofollow_flag = 2, 8
    hint = {errno.EINVAL: "not a mount point", errno.EBUSY: "a process is inside, or a mount is below"}
    syscall("umount2", c_string(target), nofollow_flag | (detach_flag if detach else 0), path=target, hint=hint)


def set_propagation(target: Place, flag: MountFlag) -> None:
    """Say whether mounts below `target` are seen in its peers (SHARED), only from its master (SLAVE), or not (PRIVATE).

    flag    exactly one of PRIVATE, SHARED, SLAVE, UNBINDABLE; with REC for all mounts below too.
    Raises  KernelError: EINVAL not a mount point.
    Source  mount_namespaces(7), "Shared subtrees".
    """
    if flag & ~(_PROPAGATION | MountFlag.REC) or (flag & _PROPAGATION).bit_count() != 1:
        raise InvalidArgument(f"{flag!r} is not one kind of propagation")
    syscall("mount", None, c_string(target), None, flag, None, path=target, hint={errno.EINVAL: "not a mount point"})


def set_recursively(target: Place, flags: MountFlag, cleared: MountFlag = NO_FLAGS) -> None:
    """Set and clear flags of the mount at `target` and of all below it, all or none.

    flags, cleared  of RDONLY, NOSUID, NODEV, NOEXEC.
    Raises          KernelError: ENOSYS a kernel before 5.12, EINVAL not a mount point, EPERM a locked flag to clear.
    Source          mount_setattr(2).
    """
    if (flags | cleared) & ~_RECURSIVE:
        raise InvalidArgument(f"{(flags | cleared)!r} cannot be set on a whole tree")
    at_fdcwd, at_recursive = -100, 0x8000
    attributes = struct.pack("=QQQQ", flags, cleared, 0, 0)  # struct mount_attr: set, clear, propagation, user ns
    where = (at_fdcwd, c_string(target), at_recursive)
    hint = {errno.ENOSYS: "needs Linux 5.12"}
    syscall("mount_setattr", *where, attributes, len(attributes), path=target, hint=hint)


def pivot_root_here() -> None:
    """Make the working directory the root of every process of this mount namespace, and let go of the old root.

    The working directory must be a mount point, private or slave. Both roots are stacked at "/" for a moment, the old
    one on top, so no directory is needed to put it in.
    Raises  KernelError: EBUSY no mount of its own but the present root's; EINVAL not a mount point, or shared.
    Source  pivot_root(2), "pivot_root(".", ".")".
    """
    need = "the new root must be a mount point, and neither it nor its parent shared"
    hint = {errno.EINVAL: need, errno.EBUSY: need}
    syscall("pivot_root", b".", b".", path=os.getcwd(), hint=hint)
    unmount(".", detach=True)
    os.chdir("/")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    id: int
    parent_id: int
    device: str  # "major:minor", as st_dev of the files in it
    root: str  # the place within the filesystem that is seen at mount_point
    mount_point: str  # relative to the root of the process
    options: tuple[str, ...]  # of this mount
    propagation: tuple[str, ...]  # "shared:N", "master:N", "propagate_from:N", "unbindable"; empty: private
    fstype: str
    source: str
    super_options: tuple[str, ...]  # of the filesystem, the same for all its mounts


def mountinfo(pid: int | str = "self") -> list[Mount]:
    """The mounts that process `pid` sees, in the kernel's order: a later one hides an earlier one at the same place.

    Raises  KernelError: ENOENT no such process, EINVAL it has ended.
    """
    path = f"/proc/{pid}/mountinfo"
    try:
        with open(path, "rb") as file:
            return parse_mountinfo(os.fsdecode(file.read()))
    except OSError as error:
        raise KernelError("read", path, error.errno or 0) from error


def parse_mountinfo(text: str) -> list[Mount]:
    r"""The mounts that the text of a mountinfo file lists.

    >>> parse_mountinfo(r"36 35 98:0 /a /b\040c rw,noatime master:1 - ext3 /dev/root rw,errors=continue")[0].mount_point
    '/b c'
    """
    # Only "\n" ends a line: splitlines() would also split at the other line ends that a path may hold.
    return [_parse_mount(line) for line in text.split("\n") if line]


def _parse_mount(line: str) -> Mount:
    fields = line.split(" ")  # not split(): a field may be empty
    end = fields.index("-", 6)  # after the optional fields, of which there may be any number
    number, parent, device, root, mount_point, options = fields[:6]
    fstype, source, super_options = fields[end + 1 : end + 4]
    return Mount(
        int(number),
        int(parent),
        device,
        _unescape(root),
        _unescape(mount_point),
        tuple(options.split(",")),
        tuple(fields[6:end]),
        _unescape(fstype),
        _unescape(source),
        tuple(_unescape(super_options).split(",")),
    )


def _unescape(field: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline, backslash and #."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field) if "\\" in field else field
