"""Records of stored logs: the formats json-file and local, read from either end, and what a query wants.

Source  moby's json-file log driver: one JSON object a line; its local driver: see runtime/locallog.py.
Rules   - a reader gets bytes in pieces that may end anywhere: what is not whole is kept for the next piece.
        - what cannot be read (cut by a crash, or none of ours) is left out.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus

import msgspec

from minidocker import typed
from minidocker.engine import clock
from minidocker.errors import InvalidArgument
from minidocker.runtime.jsonlog import timestamp
from minidocker.runtime.locallog import BYTES, LENGTH, LINE, LONGEST, PARTIAL, SOURCE, TIME, VARINT

BLOCK_BYTES = 65536
STREAMS = {"stdout": 1, "stderr": 2, "stdin": 0}
LOCAL_NAMES = ("container.log", "container-cached.log")  # of the local driver's files and of copies, as Docker's
Entry = tuple[int, bytes]  # stream number, payload


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a client wants. `tail` None: all. `since` and `until` in nanoseconds since 1970.

    details  the attributes that the container was given to show (`--log-opt labels=...`), before each line.
    """

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    tail: int | None = None
    since: int | None = None
    until: int | None = None
    follow: bool = False
    details: bool = False

    def wants(self, stream: str) -> bool:
        """Whether lines of this stream are asked for."""
        return self.stderr if stream == "stderr" else self.stdout


class AfterUntil(Exception):
    """A line is newer than `until`: nothing wanted can follow."""


class Records(Protocol):
    """A format."""

    def entry(self, record: bytes, query: LogQuery) -> Entry | None:
        """One stored record, or None if `query` leaves it out or it cannot be read. Raises AfterUntil."""

    def split(self, content: bytes) -> tuple[list[bytes], bytes]:
        """The whole records that the bytes begin with, and the rest."""

    def backwards(self, fd: int, size: int) -> Iterator[tuple[bytes, int]]:
        """The records of the first `size` bytes of `fd`, last first, each with where it begins."""


def records_of(path: Path) -> Records:
    """The format of a log, by its file's name."""
    return LocalRecords() if path.name in LOCAL_NAMES else JsonRecords()


def in_time(moment: int, query: LogQuery) -> bool:
    """Whether a moment (nanoseconds since 1970) is one that is asked for. Raises AfterUntil."""
    if query.until is not None and moment > query.until:
        raise AfterUntil
    return query.since is None or moment >= query.since


def lines_backwards(fd: int, size: int) -> Iterator[bytes]:
    """The lines of the first `size` bytes of `fd`, last first, each without its newline."""
    return (line for line, _ in JsonRecords().backwards(fd, size))


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decoder = typed.decoder(_Line)


class JsonRecords:
    """One JSON object a line."""

    def entry(self, record: bytes, query: LogQuery) -> Entry | None:
        try:
            line: _Line = _decoder.decode(record)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if not query.wants(line.stream):
            return None
        if query.since is not None or query.until is not None:
            try:
                if not in_time(clock.nanoseconds_of(line.time), query):
                    return None
            except InvalidArgument:
                return None
        payload = line.log.encode("utf-8", "surrogatepass")
        if query.details:
            payload = _details(line.attrs) + b" " + payload
        if query.timestamps:
            payload = line.time.encode("utf-8", "surrogatepass") + b" " + payload
        return STREAMS.get(line.stream, 1), payload

    def split(self, content: bytes) -> tuple[list[bytes], bytes]:
        *whole, rest = content.split(b"\n")
        return whole, rest

    def backwards(self, fd: int, size: int) -> Iterator[tuple[bytes, int]]:
        position, rest = size, b""
        while position > 0:
            count = min(BLOCK_BYTES, position)
            position -= count
            block = os.pread(fd, count, position) + rest
            parts = block.split(b"\n")
            rest = parts[0]
            begin = position + len(block)
            for line in reversed(parts[1:]):
                begin -= len(line)
                if line:
                    yield line, begin
                begin -= 1
        if rest:
            yield rest, 0


def _details(attributes: Mapping[str, str]) -> bytes:
    """As Docker writes them: sorted, escaped as in a query, with commas between."""
    words = (f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))
    return ",".join(words).encode()


class LocalRecords:
    """A length, a message of protobuf, the length again."""

    def entry(self, record: bytes, query: LogQuery) -> Entry | None:
        try:
            fields = dict(_fields(record))
            stream = bytes(fields.get(SOURCE, b"stdout")).decode(errors="replace")
            line, moment = fields.get(LINE, b""), fields.get(TIME, 0)
        except (IndexError, ValueError, TypeError):
            return None
        if not query.wants(stream) or not isinstance(line, bytes) or not isinstance(moment, int):
            return None
        if not in_time(moment, query):
            return None
        payload = line if fields.get(PARTIAL) else line + b"\n"
        if query.details:
            payload = b" " + payload  # the format has no attributes
        if query.timestamps:
            payload = timestamp(moment).encode() + b" " + payload
        return STREAMS.get(stream, 1), payload

    def split(self, content: bytes) -> tuple[list[bytes], bytes]:
        found: list[bytes] = []
        position = 0
        while position + LENGTH.size <= len(content):
            (length,) = LENGTH.unpack_from(content, position)
            end = position + length + 2 * LENGTH.size
            if length > LONGEST:
                return found, b""  # nothing that can be read follows
            if end > len(content):
                break
            found.append(content[position + LENGTH.size : end - LENGTH.size])
            position = end
        return found, content[position:]

    def backwards(self, fd: int, size: int) -> Iterator[tuple[bytes, int]]:
        position = size
        while position >= 2 * LENGTH.size:
            (length,) = LENGTH.unpack(os.pread(fd, LENGTH.size, position - LENGTH.size))
            begin = position - length - 2 * LENGTH.size
            if length > LONGEST or begin < 0:
                return
            yield os.pread(fd, length, begin + LENGTH.size), begin
            position = begin


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message. Raises IndexError, ValueError: it is none."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        if key & 7 not in (VARINT, BYTES):
            raise ValueError(f"wire type {key & 7}")
        value, position = _varint(message, position)
        if key & 7 == VARINT:
            yield key >> 3, value
            continue
        if position + value > len(message):
            raise ValueError("cut")
        yield key >> 3, message[position : position + value]
        position += value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return number, position
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
