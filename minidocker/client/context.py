"""A build's context: a directory as a tar archive, without what its .dockerignore names.

Source  docker build's reference, ".dockerignore file"; POSIX pax(1), "ustar Interchange Format".
Rules   - owners are left out: they are this machine's, and would only spoil the cache.
        - the Dockerfile and .dockerignore are sent even if they are ignored: the daemon reads them, and hides them.
        - imports little: the command line packs before it has anything else to wait for.
"""

import os
import stat
from collections.abc import Iterator

from minidocker.patterns import BadPattern, IgnoreList, read_ignore_file

IGNORE_FILE = ".dockerignore"
_PIECE_BYTES = 1 << 18
_BLOCK = 512
_KINDS = {stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFDIR: b"5",
          stat.S_IFIFO: b"6"}


def ignore_list(directory: str, dockerfile: str) -> IgnoreList:
    """What is not sent of `directory`. Raises ValueError: a malformed .dockerignore.

    dockerfile  its path in the directory.
    """
    try:
        with open(os.path.join(directory, IGNORE_FILE), "rb") as file:
            patterns = read_ignore_file(file.read())
    except FileNotFoundError:
        patterns = []
    for name in (IGNORE_FILE, dockerfile):
        if name and IgnoreList(patterns).ignores(name):
            patterns.append(f"!{name}")
    return IgnoreList(patterns)


def pack(directory: str, ignored: IgnoreList, extra: "dict[str, bytes] | None" = None) -> Iterator[bytes]:
    """The archive, in pieces.

    directory  "": there is none.
    extra      files that are not in the directory, by name.
    """
    waiting = bytearray()
    for name, content in (extra or {}).items():
        waiting += _header(name, b"0", 0o600, len(content), 0, "", (0, 0)) + content + bytes(-len(content) % _BLOCK)
    for piece in _walk(directory, ignored) if directory else ():
        waiting += piece
        if len(waiting) >= _PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    waiting += bytes(2 * _BLOCK)
    yield bytes(waiting)


def _walk(directory: str, ignored: IgnoreList) -> Iterator[bytes]:
    links: dict[tuple[int, int], str] = {}
    todo = _below(directory, "")
    while todo:
        name = todo.pop()
        path = f"{directory}/{name}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue        # it went while we looked
        is_directory = stat.S_ISDIR(status.st_mode)
        if ignored.ignores(name):
            if is_directory and ignored.may_hold_exceptions(name):
                todo += _below(path, f"{name}/")
            continue
        yield from _entry(path, name, status, links)
        if is_directory:
            todo += _below(path, f"{name}/")


def _below(path: str, prefix: str) -> list[str]:
    return sorted((prefix + name for name in os.listdir(path)), reverse=True)


def _entry(path: str, name: str, status: os.stat_result, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:        # a socket
        return
    mode, seconds, device = stat.S_IMODE(status.st_mode), int(status.st_mtime), (0, 0)
    if kind in b"34":
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if kind == b"2":
        yield _header(name, kind, mode, 0, seconds, os.readlink(path), device)
        return
    if kind != b"5" and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            yield _header(name, b"1", mode, 0, seconds, first, device)
            return
    if kind != b"0":
        yield _header(f"{name}/" if kind == b"5" else name, kind, mode, 0, seconds, "", device)
        return
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        yield _header(name, kind, mode, size, seconds, "", device)
        left = size
        while left:
            piece = file.read(min(left, _PIECE_BYTES)) or bytes(min(left, _PIECE_BYTES))    # it shrank: zeros
            left -= len(piece)
            yield piece
    yield bytes(-size % _BLOCK)


def _header(name: str, kind: bytes, mode: int, size: int, seconds: int, link: str, device: tuple[int, int]) -> bytes:
    """All blocks in front of a file's data: a PAX header too, where ustar is too narrow."""
    raw_name, raw_link = os.fsencode(name), os.fsencode(link)
    pax = b""
    if len(raw_name) > 100 or not raw_name.isascii():
        pax += _record(b"path", raw_name)
    if len(raw_link) > 100 or not raw_link.isascii():
        pax += _record(b"linkpath", raw_link)
    if size > 0o77777777777:
        pax += _record(b"size", str(size).encode())
    seconds = min(max(seconds, 0), 0o77777777777)
    block = _ustar(raw_name[:100], kind, mode, min(size, 0o77777777777), seconds, raw_link[:100], device)
    if not pax:
        return block
    return _ustar(b"pax", b"x", 0o644, len(pax), 0, b"", (0, 0)) + pax + bytes(-len(pax) % _BLOCK) + block


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _ustar(name: bytes, kind: bytes, mode: int, size: int, seconds: int, link: bytes, device: tuple[int, int]) -> bytes:
    head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, seconds)
    tail = kind + link.ljust(100, b"\0") + b"ustar\00000" + bytes(64) + b"%07o\0%07o\0" % device
    total = sum(head) + sum(tail) + 8 * 32
    return (head + b"%06o\0 " % total + tail).ljust(_BLOCK, b"\0")


__all__ = ["BadPattern", "IgnoreList", "ignore_list", "pack"]
