"""User namespaces: ids inside that mean other ids outside, so that root in there is nobody out here.

Source  user_namespaces(7), newuidmap(1); kernel Documentation/admin-guide/namespaces, kernel/user_namespace.c.
Rules   - a new user namespace has no ids at all (all show as 65534) until a process outside writes its maps, once each.
        - the writer needs CAP_SETUID and CAP_SETGID outside, else it may map only its own id, one line, and must deny
          setgroups first: or a process could leave a group that a file's mode uses to shut it out.
        - a map is written by one write(2), at most 340 lines, ranges not overlapping on either side.
"""

import errno
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from minidocker.errors import InvalidArgument, KernelError

MAX_LINES = 340
_MAX_ID = 2**32 - 2  # 2**32 - 1 is (uid_t) -1, "leave unchanged" in chown(2) and setresuid(2)

_HINTS = {
    errno.EPERM: "the map is written already, or the ids are not the writer's to give "
    "(needs CAP_SETUID and CAP_SETGID, or its own id alone with setgroups denied)",
    errno.EINVAL: "a range is empty, overlaps another, or has ids that the parent namespace does not map",
    errno.ENOENT: "no such process, or a kernel without user namespaces",
}


class IdMap(NamedTuple):
    """`length` ids from `inside` on are the ids from `outside` on of the parent namespace."""

    inside: int
    outside: int
    length: int


def write_id_maps(pid: int, uids: Sequence[IdMap], gids: Sequence[IdMap], *, setgroups: bool = True) -> None:
    """Give the user namespace of `pid` its ids; done once, by a process of the parent namespace.

    uids, gids  the ranges; ids outside them cannot be used and show as 65534 (nobody).
    setgroups   False: setgroups(2) fails in there for ever; an unprivileged writer must ask for it.
    Raises      InvalidArgument for ranges that no kernel takes;
                KernelError: EPERM not the writer's ids to give, or written before.
    Source      user_namespaces(7), "Defining user and group ID mappings".
    """
    uid_text, gid_text = format_id_map(uids), format_id_map(gids)
    if not setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")  # only possible before gid_map is written
    _write(f"/proc/{pid}/uid_map", uid_text)
    _write(f"/proc/{pid}/gid_map", gid_text)


def format_id_map(ranges: Sequence[IdMap]) -> str:
    """The text of a uid_map or gid_map file.

    >>> format_id_map([IdMap(0, 100000, 65536)])
    '0 100000 65536\\n'
    """
    if not 0 < len(ranges) <= MAX_LINES:
        raise InvalidArgument(f"an id map has 1 to {MAX_LINES} ranges, not {len(ranges)}")
    for entry in ranges:
        if entry.length < 1 or min(entry) < 0 or max(entry.inside, entry.outside) + entry.length - 1 > _MAX_ID:
            raise InvalidArgument(f"id range {tuple(entry)} is empty or beyond the ids 0 to {_MAX_ID}")
    for side in ("inside", "outside"):
        starts = sorted((getattr(entry, side), entry.length) for entry in ranges)
        for (first, length), (second, _) in pairwise(starts):
            if first + length > second:
                raise InvalidArgument(f"id ranges overlap {side} the namespace at {second}")
    return "".join(f"{entry.inside} {entry.outside} {entry.length}\n" for entry in ranges)


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError("write", path, error.errno or 0, _HINTS.get(error.errno or 0, "")) from error
