"""The extractor: entries become files below a root. One for pulled layers, loaded images, ADD and cp.

Source  OCI image-spec, layer.md (whiteouts, order of attributes); moby's archive package for what Docker accepts;
        kernel Documentation/filesystems/overlayfs.rst (whiteout: character device 0:0; opaque: trusted.overlay.opaque).
Rules   - every name is looked up by openat2 below the root's descriptor: no entry and no symlink leads out of it. In a
          worker the process is chrooted into the root as well.
        - a leading "/" is cut off, as Docker does. A name or hard link that climbs above the root, or that leads
          through a relative symlink which does, is a Breakout that names the entry.
        - owner, then attributes, then mode (chown clears setuid and capabilities), then times; directories' times last.
        - a later entry of the same name replaces the earlier one; two directories become one.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from types import TracebackType

from minidocker.errors import Breakout, Conflict, InvalidArgument, KernelError, MinidockerError
from minidocker.linux.mounts import open_in_root, openat2
from minidocker.storage import trees
from minidocker.storage.directories import (
    BENEATH,
    OPAQUE_XATTR,
    Directories,
    components,
    is_whiteout,
    lstat,
    mark_opaque_at,
)
from minidocker.storage.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    TarEntry,
    TarReader,
)

Data = Iterable[tuple[int, memoryview]]

WHITEOUT = ".wh."
WHITEOUT_META = ".wh..wh."
OPAQUE = ".wh..wh..opq"
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")  # what the kernel keeps there is never a stranger's to say
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Extractor:
    """Puts entries below `base` (real components, no symlinks) of the directory `root_fd`. A context manager.

    layer      True: `.wh.` names are whiteouts, to be kept as overlayfs understands them; False: names like others.
    owner      (uid, gid) that everything gets instead of what the entries say; None: as they say.
    keep_kind  True: a directory never replaces something else, nor the other way round (noOverwriteDirNonDir).
    size       bytes of all files put so far.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        base: str = "",
        layer: bool = False,
        owner: tuple[int, int] | None = None,
        keep_kind: bool = False,
    ) -> None:
        self._root = root_fd
        self._base = [part for part in base.split("/") if part]
        self._layer = layer
        self._owner = owner
        self._keep_kind = keep_kind
        self._directories = Directories(root_fd, len(self._base), revives=layer)
        self._times: list[tuple[str, int]] = []
        self.size = 0

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directories.forget()

    def extract(self, reader: TarReader) -> None:
        """All entries of an archive. Raises what `put` raises, and TarError."""
        for entry in reader:
            self.put(entry, reader.data())
        self.finish()

    def put(self, entry: TarEntry, data: Data = ()) -> None:
        """One entry.

        Raises  Breakout. Conflict: `keep_kind`. InvalidArgument: an entry that cannot be. KernelError: ENOSPC, ...
        """
        try:
            self._put(entry, data)
        except MinidockerError as error:
            if isinstance(error, KernelError):
                error.path = f"entry {entry.name[:300]!r}"
            raise
        except OSError as error:
            raise KernelError("extract", f"entry {entry.name[:300]!r}", error.errno or 0, _hint(error)) from error
        except ValueError as error:
            raise InvalidArgument(f"entry {entry.name[:300]!r} cannot be: {error}") from None

    def finish(self) -> None:
        """Set the times of the directories, which every file put into them had changed."""
        for path, mtime_ns in reversed(self._times):
            try:
                fd = open_in_root(self._root, path, _READ_DIRECTORY | os.O_NOFOLLOW)
            except KernelError:
                continue  # a later entry replaced it
            os.utime(fd, ns=(mtime_ns, mtime_ns))
            os.close(fd)

    def _put(self, entry: TarEntry, data: Data) -> None:
        parts = self._base + components(entry.name, entry.name)
        if len(parts) == len(self._base):
            if entry.kind != DIRECTORY:
                raise InvalidArgument(f"entry {entry.name[:300]!r} would replace the root")
            return  # as Docker: the root keeps its own owner and mode
        if self._layer and any(part.startswith(WHITEOUT_META) and part != OPAQUE for part in parts):
            return  # other marks of aufs, meant for nobody else
        leaf = parts.pop()
        parent = self._directories.open(parts, entry.name)
        if self._layer and leaf.startswith(WHITEOUT):
            self._whiteout(parent, leaf, entry)
        elif entry.kind == FILE:
            self._file(parent, leaf, entry, data)
        elif entry.kind == DIRECTORY:
            self._make_directory(parent, leaf, entry, parts)
        elif entry.kind == HARDLINK:
            self._hard_link(parent, leaf, entry, parts)
        else:
            self._special(parent, leaf, entry)

    def _clear(self, parent: int, leaf: str, entry: TarEntry) -> bool:
        """Remove what has the entry's name already; True if it was a whiteout."""
        status = lstat(leaf, parent)
        if status is None:
            return False
        is_directory = stat.S_ISDIR(status.st_mode)
        if self._keep_kind and is_directory != (entry.kind == DIRECTORY):
            there, new = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            raise Conflict(f"cannot overwrite {there} {leaf!r} with {new} {entry.name[:300]!r}")
        if is_directory or stat.S_ISLNK(status.st_mode):
            self._directories.forget_all_but(parent)  # names that led through it mean something else now
        if is_directory:
            trees.remove(leaf, parent)
        else:
            os.unlink(leaf, dir_fd=parent)
        return is_whiteout(status)

    def _file(self, parent: int, leaf: str, entry: TarEntry, data: Data) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(leaf, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, leaf, entry)
            fd = os.open(leaf, flags, 0o600, dir_fd=parent)
        try:
            for offset, piece in data:
                self.size += len(piece)
                while piece:
                    written = os.pwrite(fd, piece, offset)
                    piece, offset = piece[written:], offset + written
            if entry.holes is not None:
                os.ftruncate(fd, entry.size)
            self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _attributes(self, fd: int, entry: TarEntry) -> None:
        os.fchown(fd, *(self._owner or (entry.uid, entry.gid)))
        for name, value in entry.xattrs.items():
            if not name.startswith(_OVERLAY_XATTRS):
                _set_xattr(fd, name, value)
        os.fchmod(fd, entry.mode)

    def _make_directory(self, parent: int, leaf: str, entry: TarEntry, parts: list[str]) -> None:
        was_whiteout = False
        try:
            os.mkdir(leaf, 0o700, dir_fd=parent)
        except FileExistsError:
            status = lstat(leaf, parent)
            if status is None or not stat.S_ISDIR(status.st_mode):
                was_whiteout = self._clear(parent, leaf, entry)
                os.mkdir(leaf, 0o700, dir_fd=parent)
        fd = os.open(leaf, _READ_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if was_whiteout and self._layer:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
            self._attributes(fd, entry)
        except BaseException:
            os.close(fd)
            raise
        self._times.append(("/".join([*parts, leaf]), entry.mtime_ns))
        self._directories.keep((*parts, leaf), fd)

    def _hard_link(self, parent: int, leaf: str, entry: TarEntry, parts: list[str]) -> None:
        target = self._base + components(entry.link, entry.name)
        if target == [*parts, leaf]:
            return
        if len(target) == len(self._base):
            raise InvalidArgument(f"entry {entry.name[:300]!r} is a hard link to the root")
        target_leaf = target.pop()
        try:
            target_parent = openat2(self._root, "/".join(target) or ".", os.O_PATH | os.O_DIRECTORY, 0, BENEATH)
        except KernelError as error:
            if error.errno != errno.EXDEV:
                raise _no_target(entry) from None
            self._directories.refuse_climbing(target, entry.name)
            target_parent = open_in_root(self._root, "/".join(target), os.O_PATH | os.O_DIRECTORY)
        try:
            if lstat(target_leaf, target_parent) is None:
                raise _no_target(entry)
            if lstat(leaf, parent) is not None:
                self._clear(parent, leaf, entry)
            os.link(target_leaf, leaf, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(target_parent)
        self._link_attributes(parent, leaf, entry)

    def _link_attributes(self, parent: int, leaf: str, entry: TarEntry) -> None:
        """What the link's own entry says of the file that it shares goes for the file, as in Docker."""
        status = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return
        owner = self._owner or (entry.uid, entry.gid)
        if owner != (status.st_uid, status.st_gid):  # even a chown to the same owner would clear file capabilities
            os.chown(leaf, *owner, dir_fd=parent, follow_symlinks=False)
        for name, value in entry.xattrs.items():
            if not name.startswith(_OVERLAY_XATTRS):
                _set_xattr_at(leaf, parent, name, value)
        os.chmod(leaf, entry.mode, dir_fd=parent)
        os.utime(leaf, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _special(self, parent: int, leaf: str, entry: TarEntry) -> None:
        """Symlinks, devices and FIFOs."""
        if lstat(leaf, parent) is not None:
            self._clear(parent, leaf, entry)
        if entry.kind == SYMLINK:
            os.symlink(entry.link, leaf, dir_fd=parent)
        elif entry.kind == FIFO:
            os.mkfifo(leaf, 0o600, dir_fd=parent)
        else:
            kind = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}[entry.kind]
            os.mknod(leaf, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        os.chown(leaf, *(self._owner or (entry.uid, entry.gid)), dir_fd=parent, follow_symlinks=False)
        for name, value in entry.xattrs.items():
            if not name.startswith(_OVERLAY_XATTRS):
                _set_xattr_at(leaf, parent, name, value)
        if entry.kind != SYMLINK:
            os.chmod(leaf, entry.mode, dir_fd=parent)
        os.utime(leaf, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, parent: int, leaf: str, entry: TarEntry) -> None:
        """What hides a name of the layers below; what this layer itself puts there stays."""
        if leaf == OPAQUE:
            os.setxattr(parent, OPAQUE_XATTR, b"y")
            return
        hidden = leaf.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise Breakout(f"entry {entry.name[:300]!r} is a whiteout of {hidden!r}, which is no name in its directory")
        status = lstat(hidden, parent)
        if status is None:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        elif stat.S_ISDIR(status.st_mode):
            mark_opaque_at(hidden, parent)


def _set_xattr(target: int | str, name: str, value: bytes) -> None:
    """Where the filesystem or the kernel does not take it, the file goes without, as in Docker."""
    try:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _set_xattr_at(leaf: str, dir_fd: int, name: str, value: bytes) -> None:
    """There is no setxattrat before Linux 6.13: go there for a moment."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.fchdir(dir_fd)
        _set_xattr(f"./{leaf}", name, value)
    finally:
        os.fchdir(before)
        os.close(before)


def _no_target(entry: TarEntry) -> InvalidArgument:
    return InvalidArgument(
        f"entry {entry.name[:300]!r} is a hard link to {entry.link[:300]!r}, which is not in this archive before it"
    )


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    return ""


def pieces_of(fd: int, size: int) -> Iterator[tuple[int, memoryview]]:
    """The first `size` bytes of an open file as an entry's data; zero bytes for what was cut off meanwhile."""
    offset = 0
    while offset < size:
        piece = os.read(fd, min(1 << 20, size - offset)) or bytes(min(1 << 20, size - offset))
        yield offset, memoryview(piece)
        offset += len(piece)
