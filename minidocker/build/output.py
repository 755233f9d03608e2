"""What a build says: the classic builder's lines, as the objects of Docker's stream.

Source  Docker Engine API, ImageBuild; recorded from dockerd.
Rules   - for the loop's thread; never blocks: what is said is queued by whoever listens.
        - what a command writes to stderr is wrapped in the terminal's code for red.
"""

import codecs
from collections.abc import Callable
from typing import Any

from minidocker.registry.progress import Progress

Line = dict[str, Any]
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


class Output:
    """Sends lines to `listener`. progress: how a pull's progress becomes a line."""

    def __init__(self, listener: Callable[[Line], object], progress: Callable[[Progress], Line]) -> None:
        self._listener = listener
        self._progress = progress

    def say(self, text: str) -> None:
        """Plain text."""
        self._listener({"stream": text})

    def warn(self, text: str) -> None:
        """Text in red, as what a command writes to stderr."""
        self.say(f"{_RED}{text}{_PLAIN}")

    def aux(self, facts: dict[str, Any]) -> None:
        """Facts for programs."""
        self._listener({"aux": facts})

    def report(self, progress: Progress) -> None:
        """A `Report` for pulls."""
        self._listener(self._progress(progress))


class CommandOutput:
    """The two streams of a RUN, from Docker's frames: a character may be cut in two by a frame's end.

    The beginning of a line is held until its end comes, the other stream speaks, or `release` is called: programs write
    a line in pieces, which Docker's way from them to its client puts together.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held: tuple[int, str] = (1, "")
        self._buffer = b""
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}

    def feed(self, data: bytes) -> None:
        """Bytes as they come from the monitor."""
        self._buffer += data
        while len(self._buffer) >= 8:
            stream, length = self._buffer[0], int.from_bytes(self._buffer[4:8], "big")
            if len(self._buffer) < 8 + length:
                return
            self._take(stream, self._decoders[stream].decode(self._buffer[8 : 8 + length]))
            self._buffer = self._buffer[8 + length :]

    def finish(self) -> None:
        """Both streams have ended."""
        for stream, decoder in self._decoders.items():
            self._take(stream, decoder.decode(b"", True))
        self.release()

    @property
    def holds(self) -> bool:
        """Whether the beginning of a line waits for its end."""
        return bool(self._held[1])

    def release(self) -> None:
        """Say what is held."""
        (stream, text), self._held = self._held, (1, "")
        self._say(stream, text)

    def _take(self, stream: int, text: str) -> None:
        if not text:
            return
        if stream != self._held[0]:
            self.release()
        whole, end, rest = (self._held[1] + text).rpartition("\n")
        self._held = stream, rest
        self._say(stream, whole + end)

    def _say(self, stream: int, text: str) -> None:
        if text:
            (self._output.warn if stream == 2 else self._output.say)(text)
