"""Paths that cannot leave a root: what an image or a container named is looked up as if the root were "/".

Source  openat2(2), path_resolution(7), symlink(7); why checks before use fail: CVE-2018-15664, CVE-2021-30465.
Rules   - the descriptor that was checked is the one that is used: mount on, read or write `fd_path(fd)`, never the path
          again.
        - absolute links and `..` are resolved within the root; /proc's magic links, which jump anywhere, are refused.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag

from minidocker.errors import KernelError
from minidocker.linux.syscall import c_string, syscall


class Resolve(IntFlag):
    """How openat2 walks a path (RESOLVE_...; kernel include/uapi/linux/openat2.h)."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


ANYWHERE = Resolve(0)  # as open(2) does
# Joined here, once: each `|` of flags takes 5 us, and a container's start opens 70 paths.
_IN_ROOT = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS
_BENEATH = Resolve.BENEATH | Resolve.NO_MAGICLINKS
_BENEATH_WITHOUT_LINKS = _BENEATH | Resolve.NO_SYMLINKS
_MAX_LINKS = 40  # as many as the kernel follows in one path
_MAX_RETRIES = 1000
_HINTS = {
    errno.ENOSYS: "needs Linux 5.6",
    errno.EXDEV: "the path leaves its root, or crosses a mount",
    errno.ELOOP: "a symbolic link where none may be, or too many of them",
}


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: Resolve = ANYWHERE) -> int:
    """Open `path`, relative to the directory `dir_fd`, under the limits of `resolve`; close-on-exec always.

    flags   of os.O_*; unlike open(2) it refuses unknown flags and ones that make no sense together.
    mode    of a file that O_CREAT or O_TMPFILE makes; must be 0 otherwise.
    Raises  KernelError: EXDEV the path leaves (BENEATH), ELOOP a refused link, EAGAIN the tree changed too fast.
    Source  openat2(2).
    """
    name = c_string(path)
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)  # struct open_how
    for attempt in range(_MAX_RETRIES):
        try:
            return syscall("openat2", dir_fd, name, how, len(how), path=path, hint=_HINTS)
        except KernelError as error:
            # EAGAIN: something was renamed or mounted while `..` was walked, so the kernel is not sure; ask again.
            if error.errno not in (errno.EAGAIN, errno.EINTR) or attempt == _MAX_RETRIES - 1:
                raise
    raise AssertionError("unreachable")


def open_in_root(root_fd: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process would whose root is the directory `root_fd`: "/", links and `..` end there.

    Raises  KernelError, as openat2; ELOOP for a magic link of /proc.
    """
    return openat2(root_fd, path, flags, mode, _IN_ROOT)


def open_beneath(root: str | bytes | os.PathLike[str], path: str, flags: int) -> int:
    """Open `path`, relative to the directory `root`; a link or `..` may not lead out of it, not even to come back.

    Raises  KernelError: EXDEV it leads out, ENOENT, ELOOP; also if `root` itself cannot be opened.
    """
    try:
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", root, error.errno or 0) from None
    with _closing(root_fd):
        return openat2(root_fd, path, flags, 0, _BENEATH)


def mkdirs_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the directory `path` below `root_fd`; what is missing of it is created.

    A dangling link in the path is followed, within the root, and its target created.
    mode    of new directories, less the umask.
    Raises  KernelError: ENOTDIR something else stands in the way, ELOOP more than 40 links, EROFS.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    done: list[str] = []  # real directories below the root, no links among them
    todo = path.split("/")[::-1]  # next component last
    links = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done = done[:-1]
            continue
        target = _step(root_fd, "/".join(done), name, mode)
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise KernelError("mkdirat", path, errno.ELOOP)
        if target.startswith("/"):
            done = []
        todo += target.split("/")[::-1]
    return _open_real(root_fd, "/".join(done) or ".", os.O_DIRECTORY)


def _step(root_fd: int, parent: str, name: str, mode: int) -> str | None:
    """Make sure that `name` is in the real directory `parent`; None for a directory, the target for a link."""
    path = f"{parent}/{name}" if parent else name
    with _closing(_open_real(root_fd, parent or ".", os.O_DIRECTORY)) as parent_fd:
        try:
            os.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            pass
        except OSError as error:
            raise KernelError("mkdirat", path, error.errno or 0) from error
        with _closing(_open_real(parent_fd, name, os.O_NOFOLLOW)) as fd:
            kind = os.fstat(fd).st_mode
            if stat.S_ISLNK(kind):
                return os.readlink("", dir_fd=fd)
            if not stat.S_ISDIR(kind):
                raise KernelError("mkdirat", path, errno.ENOTDIR)
    return None


def _open_real(dir_fd: int, path: str, flags: int) -> int:
    """Open for reference only, all components before the last being real; an exchanged one gives ELOOP."""
    resolve = _BENEATH if flags & os.O_NOFOLLOW else _BENEATH_WITHOUT_LINKS
    return openat2(dir_fd, path, os.O_PATH | flags, 0, resolve)


@contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def fd_path(fd: int) -> str:
    """A name for the very file that `fd` is open on, for calls that want a path; needs /proc."""
    return f"/proc/self/fd/{fd}"
