"""Reading container logs: from the end, across rotations, and following; the formats are in log_records.py.

Source  moby's json-file and local log drivers: NAME, NAME.1 ... newest first; NAME.1.gz where they are compressed.
Rules   - `tail` is found by reading blocks backwards: a 1 GB log costs what its last lines cost.
        - a rotation renames the file: who follows keeps the old descriptor, reads it to its end, then goes on with the
          file that came next: the monitor hands over each one's descriptor, so none is missed however fast they go. To
          a follower too slow for that it says so; then the next file is found by inode.
        - a compressed file is unpacked into a nameless one when its turn comes; a plain one of its number counts more.
        - a follower is woken by the monitor's watch connection, never by a timer.
"""

import contextlib
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from minidocker.engine.logs.log_records import BLOCK_BYTES, AfterUntil, Entry, LogQuery, records_of
from minidocker.errors import Unavailable

OPEN_ATTEMPTS = 50


def files(path: Path) -> list[Path]:
    """The log's files, oldest first; the live one is last."""
    pattern = re.compile(re.escape(path.name) + r"\.(\d+)(?:\.gz)?\Z")
    try:
        names = sorted(os.listdir(path.parent), reverse=True)  # NAME.1.gz, then NAME.1: the plain one stays
    except FileNotFoundError:
        return []
    old = {int(match[1]): path.with_name(name) for name in names if (match := pattern.match(name))}
    return [old[number] for number in sorted(old, reverse=True)] + ([path] if path.name in names else [])


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def open_all(path: Path) -> list[tuple[int, int, bool]]:
    """(inode, descriptor, compressed) of each of the log's files, oldest first, as they were at one moment.

    A rotation while they are opened would hide a file or show it twice: then all are opened again.
    """
    for _ in range(OPEN_ATTEMPTS):
        opened = []
        for name in files(path):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            opened.append((os.fstat(fd).st_ino, fd, name.suffix == ".gz"))
        if [inode for inode, _, _ in opened] == [_inode(name) for name in files(path)]:
            return opened
        for _, fd, _ in opened:
            os.close(fd)
    raise Unavailable(f"log {path} rotates faster than it can be opened; give it a larger max-size")


def _unpacked(fd: int, directory: Path) -> int:
    """A nameless file in `directory` with what is in the compressed one; of a damaged one what comes before."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as plain, contextlib.suppress(zlib.error):
        opened = os.dup(plain.fileno())
        while block := os.read(fd, BLOCK_BYTES):
            while block:
                plain.write(unpacker.decompress(block, BLOCK_BYTES))
                block = unpacker.unconsumed_tail
        plain.write(unpacker.flush())
    os.lseek(opened, 0, os.SEEK_SET)
    return opened


class LogReader:
    """Reads one container's log: first what is there (the last `tail` lines of it), then, asked again, what is new.

    Open descriptors are kept over rotations, so no line is lost or read twice. Use as a context manager.
    """

    def __init__(self, path: Path, query: LogQuery) -> None:
        self._path = path
        self._query = query
        self._fds: list[int] = []
        self._packed: set[int] = set()  # those of them that are compressed
        self._partial = b""
        self._records = records_of(path)
        self.finished = False

    def __enter__(self) -> "LogReader":
        for _, fd, packed in open_all(self._path):
            self._take(fd, packed=packed)
        return self

    def _take(self, fd: int, *, packed: bool) -> None:
        self._fds.append(fd)
        self._packed.discard(fd)  # the number of one that was closed
        if packed:
            self._packed.add(fd)

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def present(self) -> Iterator[Entry]:
        """The entries that exist now, oldest first; afterwards only the live file stays open, at its end."""
        if self._query.tail is not None:
            self._seek_tail(self._query.tail)
        while self._fds:
            yield from self._rest_of(self._plain(0))
            if self.finished or len(self._fds) == 1:
                return
            os.close(self._fds.pop(0))
            self._partial = b""

    def _seek_tail(self, wanted: int) -> None:
        """Move the descriptors to where the last `wanted` fitting lines begin."""
        found = 0
        for index in range(len(self._fds) - 1, -1, -1):
            fd = self._plain(index)
            position = os.fstat(fd).st_size
            for record, begin in self._records.backwards(fd, position) if found < wanted else ():
                try:
                    found += self._records.entry(record, self._query) is not None
                except AfterUntil:
                    pass
                position = begin
                if found == wanted:
                    break
            os.lseek(fd, position if found == wanted else 0, os.SEEK_SET)
            if found == wanted:
                for older in self._fds[:index]:
                    os.close(older)
                self._fds = self._fds[index:]
                return

    def _plain(self, index: int) -> int:
        """The descriptor of one of the files; a compressed one is unpacked first."""
        fd = self._fds[index]
        if fd in self._packed:
            self._packed.discard(fd)
            self._fds[index] = _unpacked(fd, self._path.parent)
            self._packed.discard(self._fds[index])
            os.close(fd)
        return self._fds[index]

    def _rest_of(self, fd: int) -> Iterator[Entry]:
        while block := os.read(fd, BLOCK_BYTES):
            whole, self._partial = self._records.split(self._partial + block)
            for record in whole:
                try:
                    found = self._records.entry(record, self._query)
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
                self._take(fd, packed=False)

    def more(self) -> Iterator[Entry]:
        """The entries written since the last call."""
        if self.finished:
            return
        if not self._fds:
            self.__enter__()
        while self._fds and not self.finished:
            yield from self._rest_of(self._plain(0))
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
        inodes = [inode for inode, _, _ in opened]
        first = inodes.index(held) + 1 if held in inodes else 0
        for index, (_, fd, packed) in enumerate(opened):
            if index < first:
                os.close(fd)
            else:
                self._take(fd, packed=packed)
