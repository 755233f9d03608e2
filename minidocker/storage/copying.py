"""`docker cp`, seen from inside the container's root: stat a path, read it as tar, put a tar there.

Source  Docker Engine API, GET/HEAD/PUT /containers/{id}/archive; moby's rules for trailing "/" and "/.", for links and
        for the name that the archive's entries begin with; Go's os.FileMode for the bits of `mode`.
Rules   - paths are the user's and the tree the container's: all look-ups are openat2 within `root_fd` (CVE-2018-15664).
        - a link as the last component is not followed, unless the path ends in "/" or "/." or files are put there.
"""

import errno
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from minidocker.errors import Forbidden, InvalidArgument, KernelError, NotFound
from minidocker.linux.mounts import open_in_root
from minidocker.storage.extract import Extractor
from minidocker.storage.tar import TarReader
from minidocker.storage.tar_writer import TarWriter
from minidocker.storage.walk import walk, write

_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_LINKS_LIMIT = 40  # as the kernel
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class PathStat(msgspec.Struct, frozen=True, rename="camel"):
    """What X-Docker-Container-Path-Stat carries. `mode` as Go's os.FileMode, `mtime` RFC 3339."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = ""


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    bits = sum(go for unix, go in _GO_BITS.items() if mode & unix)
    return mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits


def _split(path: str) -> tuple[str, str, str]:
    """(directory, last component, base name). A trailing "/", "/." or "/./" makes the last component "."."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    clean: list[str] = []
    for part in parts:  # as Go's filepath.Join("/", path): ".." is taken literally, before links are looked at
        clean = clean[:-1] if part == ".." else [*clean, part]
    whole = "/" + "/".join(clean)
    if path.rstrip("/").endswith("/.") or path.rstrip("/") == ".":
        return whole, ".", "."
    if path.endswith("/") or not clean:
        return whole, ".", clean[-1] if clean else "/"
    return "/" + "/".join(clean[:-1]), clean[-1], clean[-1]


def _open(root_fd: int, path: str, flags: int, shown: str) -> int:
    try:
        return open_in_root(root_fd, path, flags)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            reason = (error.strerror or "").lower()
            raise NotFound(f"could not find the file {shown} in the container: {reason}") from None
        raise


def stat_path(root_fd: int, path: str) -> PathStat:
    """The file at `path`. Raises NotFound; the text tells why: nothing there, not a directory, links in circles."""
    directory, leaf, base = _split(path)
    parent = _open(root_fd, directory, os.O_PATH | os.O_DIRECTORY, path)
    try:
        status = _lstat(parent, leaf, path)
        target = link_target(root_fd, f"{directory}/{leaf}") if stat.S_ISLNK(status.st_mode) else ""
        seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
        fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
        mtime = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"
        return PathStat(base, status.st_size, go_mode(status.st_mode), mtime, target)
    finally:
        os.close(parent)


def _lstat(parent: int, leaf: str, shown: str) -> os.stat_result:
    try:
        return os.stat(leaf, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        raise NotFound(f"could not find the file {shown} in the container: no such file or directory") from None


def link_target(root_fd: int, path: str) -> str:
    """Where the link leads in the end, from the container's root, even if nothing is there."""
    real: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            real = real[:-1]
            continue
        target = _read_link(root_fd, "/".join([*real, part]))
        if target is None:
            real.append(part)
            continue
        links += 1
        if links > _LINKS_LIMIT:
            raise NotFound(f"could not find the file {path} in the container: too many levels of symbolic links")
        if target.startswith("/"):
            real = []
        todo += target.split("/")[::-1]
    return "/" + "/".join(real)


def _read_link(root_fd: int, path: str) -> str | None:
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except KernelError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def get(root_fd: int, path: str, output: Callable[[bytes | memoryview], object]) -> None:
    """Write `path` and all below it as tar; names begin with the last component of `path`. Raises NotFound."""
    directory, leaf, base = _split(path)
    parent = _open(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY, path)
    try:
        _lstat(parent, leaf, path)
        writer = TarWriter(output)
        for found in walk(parent, leaf, base):
            write(writer, found)
        writer.close()
    finally:
        os.close(parent)


def read_text(root_fd: int, path: str, limit_bytes: int) -> str:
    """A small regular file; "" if nothing of that kind is there. Raises InvalidArgument: larger than the limit."""
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except KernelError:
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return ""
        if status.st_size > limit_bytes:
            raise InvalidArgument(f"{path} in the container is larger than {limit_bytes} bytes")
        return os.read(fd, limit_bytes).decode(errors="replace")
    finally:
        os.close(fd)


def put(root_fd: int, path: str, reader: TarReader, *, owner: tuple[int, int] | None, keep_kind: bool) -> None:
    """Extract an archive into the directory `path`, links followed.

    Raises  NotFound. InvalidArgument: not a directory. Forbidden: a read-only root or volume. What Extractor.put does.
    """
    target = link_target(root_fd, path)
    fd = _open(root_fd, target, os.O_PATH, path)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgument("extraction point is not a directory")
        _check_writable(root_fd, fd)
    finally:
        os.close(fd)
    with Extractor(root_fd, base=target, owner=owner, keep_kind=keep_kind) as extractor:
        extractor.extract(reader)


def _check_writable(root_fd: int, fd: int) -> None:
    """The kernel's word on the very mount that files would go into, not a comparison of paths."""
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        in_root = os.fstat(fd).st_dev == os.fstat(root_fd).st_dev
        raise Forbidden("container rootfs is marked read-only" if in_root else "mounted volume is marked read-only")
