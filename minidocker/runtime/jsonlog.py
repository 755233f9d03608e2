"""The log of a container in Docker's json-file format: one JSON object a line.

Source  Docker's json-file logging driver: {"log": "text\\n", "stream": "stdout", "attrs": {..}, "time": RFC 3339 with
        nanoseconds}; attrs only if the container was given labels, env or tag to show.
"""

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from minidocker.runtime.rotating_log import LogTarget, RotatingLog

_NEWLINE = 10


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, of nanoseconds since 1970.

    >>> timestamp(1_700_000_000_000_000_001)
    '2023-11-14T22:13:20.000000001Z'
    """
    seconds, nanoseconds = divmod(now_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09}Z"


class JsonLog(RotatingLog):
    """The open log, see RotatingLog."""

    def __init__(self, target: LogTarget, rotated: Callable[[str], None] = lambda path: None) -> None:
        super().__init__(target, rotated)
        attributes = msgspec.json.encode(target.attributes).decode()
        self._attributes = f',"attrs":{attributes}' if target.attributes else ""
        self._torn = False  # a full disk cut an entry: the next begins on a line of its own

    def encode(self, stream: str, entries: Sequence[bytes], now_ns: int) -> list[bytes]:
        tail = f',"stream":"{stream}"{self._attributes},"time":"{timestamp(now_ns)}"}}\n'.encode()
        encode = msgspec.json.encode
        return [b'{"log":' + encode(entry.decode(errors="replace")) + tail for entry in entries]

    def flush(self, fd: int, batch: list[bytes]) -> bool:
        content = memoryview(b"".join([b"\n", *batch] if self._torn else batch))
        try:
            while content:
                written = os.write(fd, content)
                self._torn = content[written - 1] != _NEWLINE
                content = content[written:]
        except OSError:
            return False
        return True
