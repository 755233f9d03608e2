"""Progress of a transfer: what Docker's clients show while an image comes or goes.

Source  moby `pkg/streamformatter` and `pkg/jsonmessage` (status words and their order), seen with docker CLI 28.
Rules   - pulls name a layer by the first 12 digits of its blob's digest, pushes by those of its diff ID.
        - `report` callables are called in the event loop's thread only and must not block.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

_STEP_BYTES = 512 << 10
_STEP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of progress.

    status   Docker's words ("Downloading", "Pull complete", "Digest: sha256:..").
    id       what it is about: a layer's short digest, a tag, or "" for the whole.
    current  bytes done; None where there is nothing to count.
    total    bytes in all; None where unknown.
    aux      facts for programs (the pushed tag, digest and size), or None.
    """

    status: str = ""
    id: str = ""
    current: int | None = None
    total: int | None = None
    aux: dict[str, str | int] | None = None


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """A `Report` for those who do not look."""


class Meter:
    """Turns a count of bytes into progress lines, not more than about ten a second.

    report, status, id, total_bytes as in Progress.
    """

    def __init__(self, report: Report, status: str, id: str, total_bytes: int) -> None:
        self._report, self._status, self._id, self._total = report, status, id, total_bytes
        self._last_bytes, self._last_seconds = -_STEP_BYTES, 0.0

    def at(self, current_bytes: int) -> None:
        """`current_bytes` are done by now."""
        now = time.monotonic()
        moved = current_bytes - self._last_bytes >= _STEP_BYTES and now - self._last_seconds >= _STEP_SECONDS
        if moved or (current_bytes == self._total and current_bytes != self._last_bytes):
            self._last_bytes, self._last_seconds = current_bytes, now
            self._report(Progress(self._status, self._id, current_bytes, self._total))
