"""Docker's multiplexed stream: stdout and stderr of a container in one connection.

Source  Docker Engine API, "attach": frames of [stream, 0, 0, 0, length as 4 bytes big-endian] and the payload.
Rules   - stream 1 is stdout, 2 stderr, 3 an error of the daemon; with a terminal raw bytes come, no frames.
"""

HEADER_BYTES = 8


class Demultiplexer:
    """Takes bytes as they come, gives back (stream, payload) pieces; a long payload comes in several pieces."""

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._stream = 1
        self._left = 0

    def feed(self, piece: bytes) -> list[tuple[int, bytes]]:
        """The payload that `piece` holds, in order."""
        found: list[tuple[int, bytes]] = []
        position = 0
        size = len(piece)
        while position < size:
            if self._left:
                end = min(size, position + self._left)
                found.append((self._stream, piece[position:end]))
                self._left -= end - position
                position = end
                continue
            missing = HEADER_BYTES - len(self._head)
            self._head += piece[position : position + missing]
            position += missing
            if len(self._head) == HEADER_BYTES:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:], "big")
                self._head = b""
        return found
