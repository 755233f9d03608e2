"""Walking a tree of files as archive entries: the way back from files to tar.

Source  moby's archive package (order, what is left out); overlayfs.rst for the marks in an upper directory.
Rules   - order is fixed: a directory, then what is in it, by name. The same tree gives the same archive.
        - every step is relative to an open directory and never through a symlink, so the tree may be live and hostile.
        - a socket is left out, as tar cannot hold one. A file that shrinks while it is read is filled up with zeros.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from minidocker.storage.directories import OPAQUE_XATTR, is_whiteout
from minidocker.storage.extract import OPAQUE, WHITEOUT, pieces_of
from minidocker.storage.tar import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, TarEntry
from minidocker.storage.tar_writer import TarWriter

_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


class Found(NamedTuple):
    """An entry and its file: `leaf` in the open directory `parent_fd`, valid until the next one is asked for."""

    entry: TarEntry
    parent_fd: int
    leaf: str


class _Level(NamedTuple):
    fd: int
    names: list[str]  # last first
    prefix: str


def walk(parent_fd: int, leaf: str, name: str, *, marks: bool = False, whole_seconds: bool = True) -> Iterator[Found]:
    """`leaf` in `parent_fd` and all below it, with names that begin with `name` ("" for a nameless root, left out).

    marks          True: overlayfs's whiteouts and opaque directories become `.wh.` entries, as in a layer.
    whole_seconds  False: times to the nanosecond.
    """
    links: dict[tuple[int, int], str] = {}
    top = _Level(os.dup(parent_fd), [leaf], "")
    stack = [top]
    try:
        while stack:
            level = stack[-1]
            if not level.names:
                os.close(stack.pop().fd)
                continue
            leaf = level.names.pop()
            shown = name if level is top else level.prefix + leaf
            for found in _entries(level.fd, leaf, shown, links, marks=marks, whole_seconds=whole_seconds):
                yield found
                if found.entry.kind == DIRECTORY and (deeper := _descend(found, shown)) is not None:
                    stack.append(deeper)
            if not shown and len(stack) == 1 and (root := _open_directory(level.fd, leaf)) is not None:
                stack.append(_Level(root, _names(root), ""))
    finally:
        for level in stack:
            os.close(level.fd)


def _entries(
    fd: int, leaf: str, shown: str, links: dict[tuple[int, int], str], *, marks: bool, whole_seconds: bool
) -> Iterator[Found]:
    """What stands in the archive for one file: mostly one entry, none for a socket, two for an opaque directory."""
    try:
        status = os.stat(leaf, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:  # live tree
        return
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None or not shown:
        return
    seconds_ns = status.st_mtime_ns // 1_000_000_000 * 1_000_000_000 if whole_seconds else status.st_mtime_ns
    entry = TarEntry(shown, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, 0, seconds_ns)
    if marks and is_whiteout(status):
        head, slash, tail = shown.rpartition("/")
        yield Found(TarEntry(f"{head}{slash}{WHITEOUT}{tail}", mtime_ns=seconds_ns), fd, "")
        return
    if kind not in (DIRECTORY, SYMLINK) and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), shown)
        if first != shown:
            entry.kind, entry.link = HARDLINK, first
            yield Found(entry, fd, leaf)
            return
    if kind == FILE:
        entry.size = status.st_size
    elif kind == SYMLINK:
        entry.link = os.readlink(leaf, dir_fd=fd)
    elif kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    opaque = False
    if kind in (FILE, DIRECTORY):
        entry.xattrs, opaque = _xattrs(fd, leaf, kind)
    yield Found(entry, fd, leaf)
    if marks and opaque:
        yield Found(TarEntry(f"{shown}/{OPAQUE}", mtime_ns=seconds_ns), fd, "")


def _descend(found: Found, shown: str) -> _Level | None:
    fd = _open_directory(found.parent_fd, found.leaf)
    return None if fd is None else _Level(fd, _names(fd), shown.rstrip("/") + "/")


def _open_directory(fd: int, leaf: str) -> int | None:
    try:
        return os.open(leaf, _READ_DIRECTORY, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # exchanged since it was looked at
            return None
        raise


def _names(fd: int) -> list[str]:
    return sorted(os.listdir(fd), key=os.fsencode, reverse=True)


def _xattrs(fd: int, leaf: str, kind: str) -> tuple[dict[str, bytes], bool]:
    """The extended attributes that travel (file capabilities, user.*), and whether the directory is opaque."""
    try:
        opened = os.open(leaf, _READ_DIRECTORY if kind == DIRECTORY else _READ_FILE, dir_fd=fd)
    except OSError:
        return {}, False
    try:
        names = os.listxattr(opened)
        kept = [name for name in names if name == "security.capability" or name.startswith("user.")]
        values = {name: os.getxattr(opened, name) for name in kept if not name.startswith("user.overlay.")}
        return values, OPAQUE_XATTR in names and os.getxattr(opened, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}, False
        raise
    finally:
        os.close(opened)


def data_of(found: Found) -> Iterator[tuple[int, memoryview]]:
    """The bytes of a file that `walk` found: exactly as many as its entry says."""
    fd = os.open(found.leaf, _READ_FILE, dir_fd=found.parent_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # exchanged since it was looked at
            yield from ((at, memoryview(bytes(n))) for at, n in _zeros(found.entry.size))
            return
        yield from pieces_of(fd, found.entry.size)
    finally:
        os.close(fd)


def _zeros(size: int) -> Iterator[tuple[int, int]]:
    for at in range(0, size, 1 << 20):
        yield at, min(1 << 20, size - at)


def write(writer: TarWriter, found: Found) -> None:
    """One found entry into an archive."""
    writer.add(found.entry)
    if found.entry.kind == FILE and found.entry.size:
        for _, piece in data_of(found):
            writer.data(piece)
