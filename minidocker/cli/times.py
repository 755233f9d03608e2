"""Moments on the command line: unix seconds, RFC 3339, or so long ago.

Source  docker's "--since"; RFC 3339.
"""

from datetime import datetime
from time import time

from minidocker.cli.session import CommandFailure
from minidocker.cli.values import read_duration


def timestamp(text: str) -> str:
    """`text` as the API's "seconds.nanoseconds"; empty stays empty. Raises CommandFailure."""
    if not text or text.replace(".", "", 1).isdigit():
        return text
    try:
        return f"{time() - read_duration(text) / 1e9:.9f}"
    except ValueError:
        pass
    try:
        # astimezone: a moment without a zone is meant in this machine's zone
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise CommandFailure(f'invalid value for time: failed to parse value as time or duration: "{text}"') from None
    fraction = text.partition(".")[2]
    digits = "".join(char for char in fraction.partition("+")[0].partition("-")[0] if char.isdigit()) or "0"
    return f"{int(moment.timestamp())}.{digits[:9].ljust(9, '0')}"


def seconds(text: str) -> float:
    """An RFC 3339 moment as unix seconds; 0 for "never" (year 1) or nothing."""
    if not text or text.startswith("0001-"):
        return 0.0
    head, dot, rest = text.partition(".")
    if dot:
        end = next((index for index, char in enumerate(rest) if not char.isdigit()), len(rest))
        text = f"{head}.{rest[:end][:6].ljust(6, '0')}{rest[end:]}"
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
