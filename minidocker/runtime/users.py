"""Users and groups of an image: names become numbers by the image's own /etc/passwd and /etc/group.

Source  passwd(5), group(5); Docker's USER and --group-add.
Rules   - both files are hostile (CVE-2024-9676): opened beneath the root without following links or blocking, regular
          files only, bounded in size; a broken line is skipped as if it were not there.
        - never pwd or grp: glibc would load libnss from the image (CVE-2019-14271).
        - IDs are 0 to 2^31-1.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux.mounts import open_in_root

_FILE_LIMIT_BYTES = 1 << 20
_LARGEST_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the command runs as. `groups` are the supplementary ones; `home` is never empty."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def read_file(root_fd: int, path: str) -> str:
    """The text of a file of the image, "" if there is none that may be trusted to be read.

    Raises  InvalidArgument: no regular file, or larger than 1 MiB.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ""
        raise InvalidArgument(f"{path} of the image cannot be read: {error}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"{path} of the image is not a regular file")
        if status.st_size > _FILE_LIMIT_BYTES:
            raise InvalidArgument(f"{path} of the image is larger than {_FILE_LIMIT_BYTES} bytes")
        return os.read(fd, _FILE_LIMIT_BYTES).decode(errors="surrogateescape")
    finally:
        os.close(fd)


def number(text: str) -> int | None:
    """`text` as an ID, or None if it is not one (a name, a sign, a number out of range)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    value = int(text)
    return value if value <= _LARGEST_ID else None


def _fields(text: str, count: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= count and parts[0] and not parts[0].startswith("#"):
            yield parts


def _passwd(text: str) -> Iterator[_User]:
    for parts in _fields(text, 4):
        uid, gid = number(parts[2]), number(parts[3])
        if uid is not None and gid is not None:
            yield _User(parts[0], uid, gid, parts[5] if len(parts) > 5 else "")


def _groups(text: str) -> Iterator[_Group]:
    for parts in _fields(text, 3):
        gid = number(parts[2])
        if gid is not None:
            members = tuple(parts[3].split(",")) if len(parts) > 3 and parts[3] else ()
            yield _Group(parts[0], gid, members)


def _out_of_range(text: str) -> bool:
    return text.lstrip("+-").isdigit() and number(text) is None


def _find_group(wanted: str, groups: Sequence[_Group]) -> int:
    """The gid that `wanted` (a name or a number) means."""
    by_name = next((group.gid for group in groups if group.name == wanted), None)
    gid = by_name if by_name is not None else number(wanted)
    if gid is None:
        why = f"gids are 0 to {_LARGEST_ID}" if _out_of_range(wanted) else "no matching entries in group file"
        raise InvalidArgument(f"unable to find group {wanted}: {why}")
    return gid


def resolve(user: str, group_add: Sequence[str], read: Callable[[str], str]) -> Identity:
    """Who `user` is.

    user       Docker's form: "", "name", "uid", "name:group", "uid:gid"; "" is root.
    group_add  further groups by name or gid.
    read       gives the text of /etc/passwd or /etc/group of the image.
    Raises     InvalidArgument: a name that the files do not have, an ID out of range.

    >>> resolve("www", ["adm"], {"/etc/passwd": "www:x:33:33::/var/www:", "/etc/group": "adm:x:4:"}.__getitem__)
    Identity(uid=33, gid=33, groups=(33, 4), home='/var/www')
    """
    name, _, group = user.partition(":")
    name = name or "0"
    users, groups = list(_passwd(read("/etc/passwd"))), list(_groups(read("/etc/group")))
    uid = number(name)
    entry = next((e for e in users if e.name == name), None) or next((e for e in users if e.uid == uid), None)
    if entry is None and uid is None:
        why = f"uids are 0 to {_LARGEST_ID}" if _out_of_range(name) else "no matching entries in passwd file"
        raise InvalidArgument(f"unable to find user {name}: {why}")
    found = entry or _User("", uid or 0, 0, "")
    gid = _find_group(group, groups) if group else found.gid
    named = () if group or not found.name else tuple(g.gid for g in groups if found.name in g.members)
    further = tuple(_find_group(wanted, groups) for wanted in group_add)
    return Identity(found.uid, gid, tuple(dict.fromkeys((gid, *named, *further))), found.home or "/")


def home_of(uid: int, read: Callable[[str], str]) -> str:
    """The home directory of a uid, "/" if the image names none."""
    return next((user.home for user in _passwd(read("/etc/passwd")) if user.uid == uid and user.home), "/")
