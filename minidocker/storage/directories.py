"""Directories that entries are put into: looked up within the root, kept open, revived from whiteouts.

Source  openat2(2); kernel Documentation/filesystems/overlayfs.rst (whiteout: character device 0:0; opaque directories).
Rules   - every look-up is openat2 below the root's descriptor, so no name and no symlink leads out of it.
        - an open directory stands for a name only until something on its way is replaced: then all are forgotten.
"""

import errno
import os
import stat

from minidocker.errors import Breakout, InvalidArgument, KernelError
from minidocker.linux.mounts import Resolve, mkdirs_in_root, open_in_root, openat2

OPAQUE_XATTR = "trusted.overlay.opaque"
BENEATH = Resolve.BENEATH | Resolve.NO_MAGICLINKS
_OPEN_DIRECTORIES = 64
_LINKS_LIMIT = 40
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def components(name: str, entry_name: str) -> list[str]:
    """`name` as path components, "." and ".." worked out.

    Raises  Breakout: it climbs above the root; `entry_name` says whose name or link it is.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise Breakout(f"entry {entry_name[:300]!r} leaves the root: {name[:300]!r} climbs above it")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


class Directories:
    """The directories below `root_fd`. `forget()` closes them.

    base_length  how many components lead to where the archive goes.
    revives      True: a whiteout that stands where a directory must be becomes an opaque directory.
    """

    def __init__(self, root_fd: int, base_length: int, *, revives: bool) -> None:
        self._root = root_fd
        self._base_length = base_length
        self._revives = revives
        self._open: dict[tuple[str, ...], int] = {}

    def open(self, parts: list[str], entry_name: str) -> int:
        """A descriptor of the directory `parts`, made if missing; owned by the cache."""
        key = tuple(parts)
        fd = self._open.get(key)
        if fd is not None:
            return fd
        path = "/".join(parts) or "."
        try:
            fd = openat2(self._root, path, _READ_DIRECTORY, 0, BENEATH)
        except KernelError as error:
            if error.errno == errno.EXDEV:
                self.refuse_climbing(parts, entry_name)
            if error.errno == errno.ENOTDIR and self._revives:
                self._revive(parts)
            elif error.errno not in (errno.ENOENT, errno.EXDEV):
                raise
            made = mkdirs_in_root(self._root, path)
            try:
                fd = os.open(".", _READ_DIRECTORY | os.O_CLOEXEC, dir_fd=made)
            finally:
                os.close(made)
        return self.keep(key, fd)

    def keep(self, key: tuple[str, ...], fd: int) -> int:
        if len(self._open) >= _OPEN_DIRECTORIES:
            self.forget()
        before = self._open.pop(key, None)
        if before is not None:
            os.close(before)
        self._open[key] = fd
        return fd

    def forget(self) -> None:
        """Close all directories: a name may mean another one from now on."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def refuse_climbing(self, parts: list[str], entry_name: str) -> None:
        """Raise Breakout if a relative symlink on the way climbs above the root; an absolute one starts at the root."""
        real: list[str] = []
        todo = parts[::-1]
        for _ in range(_LINKS_LIMIT + len(parts) + 4096):
            if not todo:
                return
            part = todo.pop()
            if part == "..":
                if not real:
                    raise Breakout(f"entry {entry_name[:300]!r} leaves the root through a symbolic link")
                real.pop()
                continue
            if part in ("", "."):
                continue
            target = self._read_link([*real, part])
            if target is None:
                real.append(part)
                continue
            if target.startswith("/"):
                real = []
            todo += target.split("/")[::-1]

    def _read_link(self, real: list[str]) -> str | None:
        try:
            fd = openat2(self._root, "/".join(real), os.O_PATH | os.O_NOFOLLOW, 0, BENEATH)
        except KernelError:
            return None
        try:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def _revive(self, parts: list[str]) -> None:
        """A whiteout of this layer stands where a directory must be: the new directory hides the old one (opaque)."""
        for count in range(self._base_length + 1, len(parts) + 1):
            fd = open_in_root(self._root, "/".join(parts[: count - 1]) or ".", _READ_DIRECTORY)
            try:
                status = lstat(parts[count - 1], fd)
                if status is not None and is_whiteout(status):
                    os.unlink(parts[count - 1], dir_fd=fd)
                    os.mkdir(parts[count - 1], 0o755, dir_fd=fd)
                    mark_opaque_at(parts[count - 1], fd)
                    return
            finally:
                os.close(fd)
        raise InvalidArgument(f"a file stands where the directory {'/'.join(parts)[:300]!r} must be")

    def forget_all_but(self, fd: int) -> None:
        for key, other in list(self._open.items()):
            if other != fd:
                os.close(other)
                del self._open[key]


def is_whiteout(status: os.stat_result) -> bool:
    """Is it overlayfs's mark of a deleted name?"""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def lstat(name: str, dir_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def mark_opaque_at(name: str, dir_fd: int) -> None:
    fd = os.open(name, _READ_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)
