"""Times as Docker writes them: RFC 3339 in UTC with nanoseconds.

Source  RFC 3339; Go's time.RFC3339Nano (trailing zeros of the fraction are cut).
"""

import re
import time
from datetime import UTC, datetime

from minidocker.errors import InvalidArgument

NEVER = "0001-01-01T00:00:00Z"
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(Z|z|[+-]\d\d:\d\d)?\Z", re.ASCII
)
_SECONDS = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?\Z", re.ASCII)


def text_of(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as text."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    base = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{base}.{digits}Z" if digits else f"{base}Z"


def now() -> str:
    return text_of(time.time_ns())


def nanoseconds_of(text: str) -> int:
    """Nanoseconds since 1970 of a time that we or another Docker wrote.

    Raises  InvalidArgument: not RFC 3339.
    """
    match = _RFC3339.match(text)
    if match is None:
        raise InvalidArgument(f'parsing time "{text}": not RFC 3339')
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    zone = match[8] or "Z"
    try:
        base = int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError as error:
        raise InvalidArgument(f'parsing time "{text}": {error}') from None
    if zone not in "Zz":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        base += -offset if zone[0] == "+" else offset
    return base * 1_000_000_000 + int((match[7] or "").ljust(9, "0"))


def parse_bound(text: str) -> int | None:
    """A `since` or `until`: unix seconds with fraction, or RFC 3339; "" or "0" is None. Nanoseconds since 1970."""
    if text in ("", "0"):
        return None
    match = _SECONDS.match(text)
    if match:
        return int(match[1]) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
    return nanoseconds_of(text)


def age(seconds: float) -> str:
    """A duration in Docker's rough words: "5 minutes", "About an hour", "3 weeks"."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    for limit, words in (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    ):
        if limit:
            return words
    return f"{hours // 24 // 365} years"


_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?\Z", re.ASCII)


def parse_moment(text: str) -> int:
    """A moment for `until` filters: like `parse_bound`, or a duration back from now ("10m", "1h30m")."""
    match = _DURATION.match(text)
    if text and match:
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return time.time_ns() - ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000
    return parse_bound(text) or 0
