"""The log of a container, in Docker's json-file format: one JSON object a line, rotated by size.

Source  Docker's json-file logging driver: {"log": "text\\n", "stream": "stdout", "time": RFC 3339 with nanoseconds}.
Rules   - a line is logged when its newline comes, or 16 KiB of it have; the rest of a longer line follows in further
          entries, and only the last of them ends with a newline. What is left at the end of the stream has none.
        - rotation renames: NAME becomes NAME.1, NAME.1 becomes NAME.2; `max_files` counts NAME too.
        - a full disk loses log lines, never the container.
"""

import os
import time
from collections.abc import Callable

import msgspec

PARTIAL_BYTES = 16 << 10
_NEWLINE = 10


class LogTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a container's output is logged, and how much of it is kept. `max_bytes` None: never rotated."""

    path: str
    max_bytes: int | None = None
    max_files: int = 1


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, of nanoseconds since 1970.

    >>> timestamp(1_700_000_000_000_000_001)
    '2023-11-14T22:13:20.000000001Z'
    """
    seconds, nanoseconds = divmod(now_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09}Z"


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


class JsonLog:
    """The open log. `lost` counts entries that could not be written. `rotated` is called with each new file's path."""

    def __init__(self, target: LogTarget, rotated: Callable[[str], None] = lambda path: None) -> None:
        self._target = target
        self._rotated = rotated
        self._pending: dict[str, bytes] = {}
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._torn = False  # a full disk cut an entry: the next begins on a line of its own
        self.lost = 0

    def write(self, stream: str, chunk: bytes) -> None:
        """Take bytes as they come from the container. `stream` is "stdout" or "stderr"."""
        entries, self._pending[stream] = split(self._pending.get(stream, b"") + chunk)
        self._append(stream, entries)

    def close(self) -> None:
        """Log what has no newline yet, and close."""
        for stream, rest in self._pending.items():
            if rest:
                self._append(stream, [rest])
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._target.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def _append(self, stream: str, entries: list[bytes]) -> None:
        tail = f',"stream":"{stream}","time":"{timestamp(time.time_ns())}"}}\n'.encode()
        encode = msgspec.json.encode
        batch: list[bytes] = []
        for entry in entries:
            line = b'{"log":' + encode(entry.decode(errors="replace")) + tail
            limit = self._target.max_bytes
            if limit is not None and self._size and self._size + len(line) > limit:
                self._flush(batch)
                batch = []
                self._rotate()
            batch.append(line)
            self._size += len(line)
        self._flush(batch)

    def _flush(self, batch: list[bytes]) -> None:
        content = memoryview(b"".join([b"\n", *batch] if self._torn else batch))
        written = 0
        try:
            while content:
                written = os.write(self._fd, content)
                self._torn = content[written - 1] != _NEWLINE
                content = content[written:]
        except OSError:
            self.lost += len(batch)

    def _rotate(self) -> None:
        path = self._target.path
        try:
            if self._target.max_files > 1:
                for number in range(self._target.max_files - 1, 1, -1):
                    if os.path.exists(f"{path}.{number - 1}"):
                        os.rename(f"{path}.{number - 1}", f"{path}.{number}")
                os.rename(path, f"{path}.1")
            else:
                os.unlink(path)
            fresh = self._open()
        except OSError:
            return  # go on in the old file; the next entry tries again
        os.close(self._fd)
        self._fd, self._size = fresh, 0
        self._rotated(path)
