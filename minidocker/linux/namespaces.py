"""Namespaces: a process's own view of a kind of global thing (its mounts, its pids, its network ...).

Source  namespaces(7), unshare(2), setns(2), pid_namespaces(7), time_namespaces(7); kernel include/uapi/linux/sched.h.
Rules   - a namespace is made by unshare (or clone) and entered by setns; it lives while a process, an open descriptor
          or a bind mount holds it.
        - user, mount, uts, ipc, net and cgroup change the caller at once; pid and time change only its later children.
        - a user namespace comes first: it owns those that are made after it, or together with it.
        - a process with several threads may not make or enter a user namespace, and in others only the calling thread
          would move: never call unshare or setns in the daemon or in a notebook's kernel.
"""

import errno
import os
from collections.abc import Mapping
from enum import IntFlag
from types import MappingProxyType

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux.syscall import syscall


class CloneFlag(IntFlag):
    """One bit a kind of namespace (CLONE_NEW...)."""

    NEWTIME = 0x00000080
    NEWNS = 0x00020000  # mounts: the first kind there was, hence the plain name
    NEWCGROUP = 0x02000000
    NEWUTS = 0x04000000  # host name and domain name
    NEWIPC = 0x08000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000

    def __str__(self) -> str:
        """As errors name it: by config.json's words."""
        return "+".join(kind for kind, flag in KINDS.items() if self & flag) or hex(self)


# By the names that an OCI config.json uses (config-linux.md, "namespaces").
KINDS: Mapping[str, CloneFlag] = MappingProxyType(
    {
        "mount": CloneFlag.NEWNS,
        "cgroup": CloneFlag.NEWCGROUP,
        "uts": CloneFlag.NEWUTS,
        "ipc": CloneFlag.NEWIPC,
        "user": CloneFlag.NEWUSER,
        "pid": CloneFlag.NEWPID,
        "network": CloneFlag.NEWNET,
        "time": CloneFlag.NEWTIME,
    }
)
# The same kinds by their file's name in /proc/PID/ns.
PROC_NAME: Mapping[str, str] = MappingProxyType(
    {
        "mount": "mnt",
        "cgroup": "cgroup",
        "uts": "uts",
        "ipc": "ipc",
        "user": "user",
        "pid": "pid",
        "network": "net",
        "time": "time",
    }
)

_UNSHARE_HINTS = {
    errno.EPERM: "needs CAP_SYS_ADMIN in the present user namespace, or a new user namespace with it",
    errno.EINVAL: "a kind that this kernel does not have, or a caller with more than one thread",
    errno.ENOSPC: "a limit of /proc/sys/user/max_*_namespaces, or of their nesting, is reached",
}
_SETNS_HINTS = {
    errno.EPERM: "needs CAP_SYS_ADMIN both here and in the user namespace that owns the target",
    errno.EINVAL: "wrong kind, or a caller with more than one thread, or one that is in this user namespace already",
    errno.ESRCH: "the process of the pidfd has ended",
}


def unshare(flags: CloneFlag) -> None:
    """Give the caller new namespaces of the kinds in `flags`: a copy of the old (mount, uts), or empty (net, ipc, pid).

    Raises  KernelError: EPERM no privilege, EINVAL several threads or an unknown kind, ENOSPC a limit is reached.
    Source  unshare(2).
    """
    syscall("unshare", flags, path=flags, hint=_UNSHARE_HINTS)


def setns(fd: int, flags: CloneFlag) -> None:
    """Enter the namespace that `fd` names, or those of a process.

    fd      an open /proc/PID/ns/* file; or a pidfd: then all kinds in `flags` are entered together, all or none.
    flags   the kind that the file must be of; for a pidfd, the kinds to enter.
    Raises  KernelError: EPERM no privilege, EINVAL wrong kind or several threads, ESRCH the process is gone.
    Source  setns(2) (pidfds since Linux 5.8).
    """
    syscall("setns", fd, flags, path=flags, hint=_SETNS_HINTS)


def path(kind: str, pid: int | str = "self") -> str:
    """The file that names the namespace of `kind` (an OCI name) which process `pid` is in.

    Raises  InvalidArgument for an unknown kind.
    """
    if kind not in PROC_NAME:
        raise InvalidArgument(f"unknown kind of namespace {kind!r}: use one of {' '.join(PROC_NAME)}")
    return f"/proc/{pid}/ns/{PROC_NAME[kind]}"


def inode(kind: str, pid: int | str = "self") -> int:
    """The namespace's identity: two processes are in the same one exactly if the inodes are equal.

    kind    an OCI name ("mount", "network" ...), as in KINDS.
    Raises  KernelError: ENOENT no such process or kind; InvalidArgument for an unknown kind.
    Source  namespaces(7), "The /proc/pid/ns/ directory".
    """
    file = path(kind, pid)
    try:
        return os.stat(file).st_ino
    except OSError as error:
        raise KernelError("stat", file, error.errno or 0) from error
