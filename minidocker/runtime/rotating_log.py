"""A log in files that rotate by size: what the formats json-file and local have in common.

Source  Docker's logging drivers json-file and local: options max-size, max-file, compress.
Rules   - a line is logged when its newline comes, or 16 KiB of it have; the rest of a longer line follows in further
          entries, and only the last of them ends with a newline. What is left at the end of the stream has none.
        - rotation renames: NAME becomes NAME.1, NAME.1 becomes NAME.2; `max_files` counts NAME too.
        - a rotated file is compressed bit by bit, with each write: never so much at once that the container waits. The
          plain file counts until the compressed one is whole.
        - a full disk loses log lines, never the container.
"""

import os
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

PARTIAL_BYTES = 16 << 10
_STEP_BYTES = 128 << 10  # of a rotated file that one write compresses
_GZIP = 16 + zlib.MAX_WBITS


class SyslogTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """A syslog server, and how messages look.

    network   "tcp", "udp" or "unix"; address: a host, or the socket's path
    facility  0 to 23
    layout    "" (as a local syslog has it), "rfc3164", "rfc5424" or "rfc5424micro"
    """

    network: str
    address: str
    port: int = 0
    facility: int = 3
    layout: str = ""
    tag: str = ""
    hostname: str = ""
    buffer_bytes: int = 1 << 20


class LogTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a container's output is logged, and how much of it is kept. `max_bytes` None: never rotated.

    driver      "json-file", "local" (both at `path`) or "syslog"
    copy        of what a server gets, None: none
    compress    rotated files with gzip
    attributes  shown with each line (json-file)
    """

    path: str = ""
    max_bytes: int | None = None
    max_files: int = 1
    driver: str = "json-file"
    compress: bool = False
    attributes: dict[str, str] = {}
    syslog: SyslogTarget | None = None
    copy: "LogTarget | None" = None


class Log(Protocol):
    """An open log. `lost` counts entries that could not be written."""

    lost: int

    def write(self, stream: str, chunk: bytes) -> None:
        """Take bytes as they come from the container. `stream` is "stdout" or "stderr"."""

    def close(self) -> None:
        """Log what has no newline yet, and close."""


def split(pending: bytes) -> tuple[list[bytes], bytes]:
    """Cut what has come into entries, and the rest that waits for its newline.

    >>> split(b"one\\ntwo")
    ([b'one\\n'], b'two')
    """
    *lines, rest = pending.split(b"\n")
    entries: list[bytes] = []
    for line in lines:
        while len(line) > PARTIAL_BYTES:
            entries.append(line[:PARTIAL_BYTES])
            line = line[PARTIAL_BYTES:]
        entries.append(line + b"\n")
    while len(rest) >= PARTIAL_BYTES:
        entries.append(rest[:PARTIAL_BYTES])
        rest = rest[PARTIAL_BYTES:]
    return entries, rest


class RotatingLog:
    """The open log. `rotated` is called with each new file's path. A format says how an entry is written."""

    def __init__(self, target: LogTarget, rotated: Callable[[str], None] = lambda path: None) -> None:
        self._target = target
        self._rotated = rotated
        self._pending: dict[str, bytes] = {}
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._packing = Packing(f"{target.path}.1") if target.compress and os.path.exists(f"{target.path}.1") else None
        self.lost = 0

    def encode(self, stream: str, entries: Sequence[bytes], now_ns: int) -> list[bytes]:
        """The entries as they stand in the file."""
        raise NotImplementedError

    def flush(self, fd: int, batch: list[bytes]) -> bool:
        """Write encoded entries. Returns False if some could not be written."""
        raise NotImplementedError

    def write(self, stream: str, chunk: bytes) -> None:
        """See `Log`."""
        entries, self._pending[stream] = split(self._pending.get(stream, b"") + chunk)
        self._append(stream, entries)

    def close(self) -> None:
        """See `Log`."""
        for stream, rest in self._pending.items():
            if rest:
                self._append(stream, [rest])
        if self._packing is not None:
            self._packing.give_up()
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._target.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def _append(self, stream: str, entries: list[bytes]) -> None:
        batch: list[bytes] = []
        limit = self._target.max_bytes
        for line in self.encode(stream, entries, time.time_ns()):
            if limit is not None and self._size and self._size + len(line) > limit:
                self._flush(batch)
                batch = []
                self._rotate()
            batch.append(line)
            self._size += len(line)
        self._flush(batch)
        if self._packing is not None and self._packing.step(_STEP_BYTES):
            self._packing = None

    def _flush(self, batch: list[bytes]) -> None:
        if batch and not self.flush(self._fd, batch):
            self.lost += len(batch)

    def _rotate(self) -> None:
        path = self._target.path
        if self._packing is not None:
            self._packing.finish()
            self._packing = None
        try:
            if self._target.max_files > 1:
                for number in range(self._target.max_files - 1, 1, -1):
                    self._move(f"{path}.{number - 1}", f"{path}.{number}")
                os.rename(path, f"{path}.1")
            else:
                os.unlink(path)
            fresh = self._open()
        except OSError:
            return  # go on in the old file; the next entry tries again
        os.close(self._fd)
        self._fd, self._size = fresh, 0
        if self._target.compress and self._target.max_files > 1:
            self._packing = Packing(f"{path}.1")
        self._rotated(path)

    @staticmethod
    def _move(old: str, new: str) -> None:
        """Whichever form the old one has; the other form of the new name goes."""
        for form, other in (("", ".gz"), (".gz", "")):
            if os.path.exists(old + form):
                os.rename(old + form, new + form)
                if os.path.exists(new + other):
                    os.unlink(new + other)
                return


class Packing:
    """The compression of one rotated file."""

    def __init__(self, path: str) -> None:
        self._path, self._aside = path, f"{path}.gz.new"
        self._packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        try:
            self._source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._target = os.open(self._aside, flags, 0o640)
        except OSError:
            self._source = self._target = -1

    def step(self, size: int) -> bool:
        """Go on by `size` bytes. Returns True at the end: the compressed file is there instead, or there is no room."""
        if self._source < 0:
            return True
        try:
            block = os.read(self._source, size)
            packed = memoryview(self._packer.compress(block) if block else self._packer.flush())
            while packed:
                packed = packed[os.write(self._target, packed) :]
            if block:
                return False
            os.rename(self._aside, f"{self._path}.gz")
            os.unlink(self._path)
        except OSError:
            pass  # a full disk: the plain file stays
        self.give_up()
        return True

    def finish(self) -> None:
        """All that is left of it, at once."""
        while not self.step(_STEP_BYTES):
            pass

    def give_up(self) -> None:
        """Close; the next opening begins anew."""
        for fd in (self._source, self._target):
            if fd >= 0:
                os.close(fd)
        self._source = self._target = -1
        if os.path.exists(self._aside):
            os.unlink(self._aside)
