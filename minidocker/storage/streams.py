"""Byte streams: pieces of any length in, exactly as many bytes as asked for out.

Rules   - memory is bounded by the largest piece plus the largest `take`.
        - a stream that ends too early is `Truncated`; whoever reads knows what it was and says so.
"""

import queue
import threading
from collections.abc import Iterator


class Truncated(Exception):
    """The stream ended in the middle of something."""


class ByteStream:
    """Reads from an iterator of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._source = pieces
        self._piece = b""
        self._at = 0
        self._before = 0  # bytes of earlier pieces

    @property
    def position(self) -> int:
        """How many bytes have been taken so far."""
        return self._before + self._at

    def _refill(self) -> bool:
        self._before += len(self._piece)
        self._piece, self._at = b"", 0
        for piece in self._source:
            if piece:
                self._piece = piece
                return True
        return False

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises Truncated."""
        end = self._at + count
        if end <= len(self._piece):
            taken = self._piece[self._at : end]
            self._at = end
            return taken
        return b"".join(self.pieces(count))

    def take_or_end(self, count: int) -> bytes | None:
        """Exactly `count` bytes, or None where the stream ends right here. Raises Truncated: it ends in between."""
        if self._at == len(self._piece) and not self._refill():
            return None
        return self.take(count)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes, in views that are valid as long as anyone holds them. Raises Truncated."""
        while count:
            if self._at == len(self._piece) and not self._refill():
                raise Truncated
            end = min(self._at + count, len(self._piece))
            view = memoryview(self._piece)[self._at : end]
            self._at = end
            count -= len(view)
            yield view

    def skip(self, count: int) -> None:
        """Pass over `count` bytes. Raises Truncated."""
        end = self._at + count
        if end <= len(self._piece):
            self._at = end
            return
        for _ in self.pieces(count):
            pass

    def drain(self, limit_bytes: int) -> int:
        """Read to the end and say how many bytes that were; stops after more than `limit_bytes`."""
        drained = len(self._piece) - self._at
        self._at = len(self._piece)
        while drained <= limit_bytes and self._refill():
            drained += len(self._piece)
            self._at = len(self._piece)
        return drained


def read_ahead(pieces: Iterator[bytes], depth: int = 4) -> Iterator[bytes]:
    """The same pieces, made by a thread of their own up to `depth` ahead: unpacking goes on while files are written.

    An error of the source is raised here, in its turn. Closing the generator ends the thread.
    """
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def pump() -> None:
        last: BaseException | None = None
        try:
            for piece in pieces:
                ready.put(piece)
                if stopped.is_set():
                    return
        except BaseException as error:
            last = error
        ready.put(last)

    thread = threading.Thread(target=pump, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for a place in the queue
            try:
                ready.get_nowait()
            except queue.Empty:
                thread.join(0.01)
