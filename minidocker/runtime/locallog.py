"""The log of a container in the format of Docker's `local` driver: small binary records, readable from both ends.

Source  Docker's local logging driver: a record is its length (uint32, big-endian), a message LogEntry in protobuf, and
        the length again. LogEntry: 1 source (string), 2 time_nano (int64), 3 line (bytes, without its newline),
        4 partial (bool); protobuf's encoding: developers.google.com/protocol-buffers/docs/encoding.
Rules   - a record is whole or not there: what a full disk or a crash has cut is completed or cut off.
"""

import os
import struct
from collections.abc import Callable, Sequence

from minidocker.runtime.rotating_log import LogTarget, RotatingLog

LENGTH = struct.Struct(">I")
LONGEST = 1 << 20  # bytes of a record; ours have at most 16 KiB and a little
SOURCE, TIME, LINE, PARTIAL = 1, 2, 3, 4  # fields of LogEntry
VARINT, BYTES = 0, 2  # protobuf's wire types


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _text(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | BYTES]) + varint(len(value)) + value


def record(source: str, now_ns: int, entry: bytes) -> bytes:
    """One record. An entry without a newline at its end is a part of a line.

    >>> record("stdout", 1, b"a\\n").hex(" ", -4)
    '0000000d 0a067374 646f7574 10011a01 61000000 0d'
    """
    whole = entry.endswith(b"\n")
    message = _text(SOURCE, source.encode()) + bytes([TIME << 3 | VARINT]) + varint(now_ns)
    message += _text(LINE, entry[:-1] if whole else entry)
    message += b"" if whole else bytes([PARTIAL << 3 | VARINT, 1])
    return LENGTH.pack(len(message)) + message + LENGTH.pack(len(message))


def whole_bytes(fd: int) -> int:
    """The length of the whole records that the file begins with."""
    size, position = os.fstat(fd).st_size, 0
    while position + 2 * LENGTH.size <= size:
        (length,) = LENGTH.unpack(os.pread(fd, LENGTH.size, position))
        end = position + length + 2 * LENGTH.size
        if length > LONGEST or end > size or os.pread(fd, LENGTH.size, end - LENGTH.size) != LENGTH.pack(length):
            break
        position = end
    return position


class LocalLog(RotatingLog):
    """The open log, see RotatingLog."""

    def __init__(self, target: LogTarget, rotated: Callable[[str], None] = lambda path: None) -> None:
        super().__init__(target, rotated)
        self._owed = b""  # the rest of a record that a full disk has cut
        if not self._ends_whole():
            os.ftruncate(self._fd, whole_bytes(self._fd))
            self._size = os.fstat(self._fd).st_size

    def _ends_whole(self) -> bool:
        """Whether the last record is whole, without reading all of them."""
        if self._size < 2 * LENGTH.size:
            return self._size == 0
        end = os.pread(self._fd, LENGTH.size, self._size - LENGTH.size)
        begin = self._size - LENGTH.unpack(end)[0] - 2 * LENGTH.size
        return begin >= 0 and os.pread(self._fd, LENGTH.size, begin) == end

    def encode(self, stream: str, entries: Sequence[bytes], now_ns: int) -> list[bytes]:
        return [record(stream, now_ns, entry) for entry in entries]

    def flush(self, fd: int, batch: list[bytes]) -> bool:
        content = memoryview(b"".join([self._owed, *batch]))
        end, borders = len(self._owed), [len(self._owed)]
        for one in batch:
            end += len(one)
            borders.append(end)
        written = 0
        try:
            while written < end:
                written += os.write(fd, content[written:])
        except OSError:
            border = next(border for border in borders if border >= written)
            self._owed = bytes(content[written:border])
            return False
        self._owed = b""
        return True
