"""Reading container logs: Docker's json-file format, from its end, across rotations, and following.

Source  moby json-file log driver: one JSON object a line, {"log", "stream", "time"}; NAME, NAME.1 ... newest first.
Rules   - `tail` is found by reading blocks backwards: a 1 GB log costs what its last lines cost.
        - a rotation renames the file: who follows keeps the old descriptor, reads it to its end, then goes on with the
          file that came next: the monitor hands over each one's descriptor, so none is missed however fast they go. To
          a follower too slow for that it says so; then the next file is found by inode.
        - a follower is woken by the monitor's watch connection, never by a timer.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minidocker import typed
from minidocker.engine import clock
from minidocker.errors import InvalidArgument, Unavailable

BLOCK_BYTES = 65536
OPEN_ATTEMPTS = 50
STREAMS = {"stdout": 1, "stderr": 2, "stdin": 0}


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a client wants. `tail` None: all. `since` and `until` in nanoseconds since 1970."""

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    tail: int | None = None
    since: int | None = None
    until: int | None = None
    follow: bool = False


class AfterUntil(Exception):
    """A line is newer than `until`: nothing wanted can follow."""


_decoder = typed.decoder(_Line)


def entry(line: bytes, query: LogQuery) -> tuple[int, bytes] | None:
    """One stored line as (stream number, payload), or None if `query` leaves it out or it is not whole.

    Raises  AfterUntil.
    """
    try:
        record = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # a line cut by a crash, or none of ours
    if (record.stream == "stderr" and not query.stderr) or (record.stream != "stderr" and not query.stdout):
        return None
    if query.since is not None or query.until is not None:
        try:
            moment = clock.nanoseconds_of(record.time)
        except InvalidArgument:
            return None
        if query.since is not None and moment < query.since:
            return None
        if query.until is not None and moment > query.until:
            raise AfterUntil
    payload = record.log.encode("utf-8", "surrogatepass")
    if query.timestamps:
        payload = record.time.encode("utf-8", "surrogatepass") + b" " + payload
    return STREAMS.get(record.stream, 1), payload


def files(path: Path) -> list[Path]:
    """The log's files, oldest first; the live one is last."""
    pattern = re.compile(re.escape(path.name) + r"\.(\d+)\Z")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    old = sorted((int(match[1]) for name in names if (match := pattern.match(name))), reverse=True)
    return [path.with_name(f"{path.name}.{number}") for number in old] + ([path] if path.name in names else [])


def lines_backwards(fd: int, size: int) -> Iterator[bytes]:
    """The lines of the first `size` bytes of `fd`, last first, each without its newline."""
    position, rest = size, b""
    while position > 0:
        count = min(BLOCK_BYTES, position)
        position -= count
        block = os.pread(fd, count, position) + rest
        parts = block.split(b"\n")
        rest = parts[0]
        for line in reversed(parts[1:]):
            if line:
                yield line
    if rest:
        yield rest


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def open_all(path: Path) -> list[tuple[int, int]]:
    """(inode, descriptor) of each of the log's files, oldest first, as they were at one moment.

    A rotation while they are opened would hide a file or show it twice: then all are opened again.
    """
    for _ in range(OPEN_ATTEMPTS):
        opened = []
        for name in files(path):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            opened.append((os.fstat(fd).st_ino, fd))
        if [inode for inode, _ in opened] == [_inode(name) for name in files(path)]:
            return opened
        for _, fd in opened:
            os.close(fd)
    raise Unavailable(f"log {path} rotates faster than it can be opened; give it a larger max-size")


class LogReader:
    """Reads one container's log: first what is there (the last `tail` lines of it), then, asked again, what is new.

    Open descriptors are kept over rotations, so no line is lost or read twice. Use as a context manager.
    """

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._path = path
        self._query = query
        self._fds: list[int] = []
        self._partial = b""
        self.finished = False

    def __enter__(self) -> "LogReader":
        self._fds = [fd for _, fd in open_all(self._path)]
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def present(self) -> Iterator[tuple[int, bytes]]:
        """The entries that exist now, oldest first; afterwards only the live file stays open, at its end."""
        if self._query.tail is not None:
            self._seek_tail(self._query.tail)
        while self._fds:
            yield from self._rest_of(self._fds[0])
            if self.finished or len(self._fds) == 1:
                return
            os.close(self._fds.pop(0))
            self._partial = b""

    def _seek_tail(self, wanted: int) -> None:
        """Move the descriptors to where the last `wanted` fitting lines begin."""
        ends = {fd: os.fstat(fd).st_size for fd in self._fds}
        found = 0
        for index in range(len(self._fds) - 1, -1, -1):
            fd = self._fds[index]
            position = ends[fd]
            for line in lines_backwards(fd, ends[fd]) if found < wanted else ():
                try:
                    counts = entry(line, self._query) is not None
                except AfterUntil:
                    counts = False
                position -= len(line) + 1
                found += counts
                if found == wanted:
                    break
            os.lseek(fd, max(position, 0), os.SEEK_SET)
            if found == wanted:
                for older in self._fds[:index]:
                    os.close(older)
                self._fds = self._fds[index:]
                return

    def _rest_of(self, fd: int) -> Iterator[tuple[int, bytes]]:
        while block := os.read(fd, BLOCK_BYTES):
            whole = (self._partial + block).split(b"\n")
            self._partial = whole.pop()
            for line in whole:
                try:
                    found = entry(line, self._query)
                except AfterUntil:
                    self.finished = True
                    return
                if found is not None:
                    yield found

    def hand(self, files: Sequence[int | None]) -> None:
        """Take the files that the log has been continued in, oldest first; one that is open already is closed again.

        None  some were not handed over here: they are looked for by name.
        """
        for fd in files:
            if fd is None:
                self._open_newer()
            elif os.fstat(fd).st_ino in {os.fstat(held).st_ino for held in self._fds}:
                os.close(fd)
            else:
                self._fds.append(fd)

    def more(self) -> Iterator[tuple[int, bytes]]:
        """The entries written since the last call."""
        if self.finished:
            return
        if not self._fds:
            self.__enter__()
        while self._fds and not self.finished:
            yield from self._rest_of(self._fds[0])
            if len(self._fds) == 1:
                return
            os.close(self._fds.pop(0))
            self._partial = b""

    def _open_newer(self) -> None:
        """Open the files that are newer than the one we hold: those after its inode; all, if it was deleted."""
        if not self._fds:
            return  # `more` opens all
        held = os.fstat(self._fds[-1]).st_ino
        if held == _inode(self._path):
            return
        opened = open_all(self._path)
        inodes = [inode for inode, _ in opened]
        first = inodes.index(held) + 1 if held in inodes else 0
        for index, (_, fd) in enumerate(opened):
            if index < first:
                os.close(fd)
            else:
                self._fds.append(fd)
