"""Trying again: which failures of a transfer pass by themselves, and how long to wait for that.

Source  RFC 9110, Retry-After; Docker's pull (five attempts a layer).
Rules   - only a failure that may pass is tried again: a cut, a stall, 5xx, 429. A wrong digest or a refusal never is.
        - attempts are bounded twice: those in a row that moved nothing, and all together.
        - a registry that asks for more patience than the bound is an error that names its wish.
"""

import asyncio
import email.utils
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from minidocker.errors import Unanswered


class Temporary(Unanswered):
    """A failure that may pass. `retry_after_seconds`: what the registry asked for, or None."""

    def __init__(self, text: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Retry:
    """Bounds of patience.

    attempts                     tries in a row without a byte of progress.
    attempts_in_all              tries of one transfer, progress or not.
    first_delay_seconds          wait after the first failure; doubled each time.
    longest_delay_seconds        bound of that doubling.
    longest_retry_after_seconds  bound of what a registry may ask for.
    sleep                        waits; tests give one that does not.
    """

    attempts: int = 5
    attempts_in_all: int = 30
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 15.0
    longest_retry_after_seconds: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Attempts:
    """Counts the failures of one transfer."""

    def __init__(self, retry: Retry) -> None:
        self._retry, self._in_row, self._in_all = retry, 0, 0

    def progressed(self) -> None:
        """Bytes arrived: the row of failures is over."""
        self._in_row = 0

    def delay_seconds(self, failure: Temporary) -> float:
        """How long to wait before the next try. Raises `failure` itself, or Unavailable, if patience is at its end."""
        self._in_row += 1
        self._in_all += 1
        if self._in_row >= self._retry.attempts or self._in_all >= self._retry.attempts_in_all:
            raise failure
        asked = failure.retry_after_seconds
        if asked is not None:
            if asked > self._retry.longest_retry_after_seconds:
                raise Unanswered(
                    f"{failure}; it asks to wait {asked:.0f} seconds, which is longer than minidocker waits"
                ) from failure
            return asked
        delay: float = self._retry.first_delay_seconds * 2 ** (self._in_row - 1)
        return min(delay, self._retry.longest_delay_seconds)

    async def wait(self, failure: Temporary) -> None:
        """Sleep `delay_seconds`. Raises as that does."""
        await self._retry.sleep(self.delay_seconds(failure))


def retry_after_seconds(header: str | None) -> float | None:
    """Read `Retry-After`: seconds or a date; None if absent or not readable."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
