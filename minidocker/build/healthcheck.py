"""HEALTHCHECK: its options, and how Docker's history tells of it.

Source  Dockerfile reference, HEALTHCHECK; Go's time.ParseDuration and Duration.String.
"""

import re
from collections.abc import Mapping

import msgspec

from minidocker.build.dockerfile import json_words
from minidocker.build.expansion import go_quoted, go_quoted_list
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import Healthcheck

FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")
_UNITS_NS = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([^\d.]*)")
_LEAST_NS = 10**6


def duration_ns(text: str) -> int:
    """`1h2m`, `300ms`, `1.5s` in nanoseconds. Raises InvalidArgument in Go's words."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, at = 0.0, 0
    while at < len(rest) or not rest:
        match = _PART.match(rest, at)
        if match is None:
            raise InvalidArgument(f"time: invalid duration {go_quoted(text)}")
        if not match[2]:
            raise InvalidArgument(f"time: missing unit in duration {go_quoted(text)}")
        if match[2] not in _UNITS_NS:
            raise InvalidArgument(f"time: unknown unit {go_quoted(match[2])} in duration {go_quoted(text)}")
        total += float(match[1]) * _UNITS_NS[match[2]]
        at = match.end()
    return sign * round(total)


def duration_text(nanoseconds: int) -> str:
    """A duration as Go shows it.

    >>> duration_text(3_000_000_000), duration_text(90_500_000_000), duration_text(1_500_000)
    ('3s', '1m30.5s', '1.5ms')
    """
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        unit = next(name for name in ("ms", "µs", "ns") if nanoseconds >= _UNITS_NS[name])
        return f"{nanoseconds / _UNITS_NS[unit]:.9g}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    seconds = f"{rest // 10**9}.{rest % 10**9:09d}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else "") + seconds


def read(rest: str, flags: Mapping[str, str]) -> Healthcheck:
    """`NONE`, or `CMD command` with its flags. Raises InvalidArgument."""
    kind, _, command = rest.partition(" ")
    kind, command = kind.upper(), command.strip()
    if kind == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(test=["NONE"])
    if kind != "CMD":
        raise InvalidArgument(f"Unknown type {go_quoted(kind)} in HEALTHCHECK (try CMD)")
    words = json_words(command)
    if not command or words == []:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    return Healthcheck(
        test=["CMD-SHELL", command] if words is None else ["CMD", *words],
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.get("retries", "")),
    )


def _interval(flags: Mapping[str, str], name: str) -> int:
    text = flags.get(name, "")
    if not text:
        return 0
    nanoseconds = duration_ns(text)
    if nanoseconds and nanoseconds < _LEAST_NS:
        raise InvalidArgument(f"Interval {go_quoted(name)} cannot be less than 1ms")
    return nanoseconds


def _retries(text: str) -> int:
    if not text:
        return 0
    try:
        retries = int(text)
    except ValueError:
        raise InvalidArgument(f"strconv.ParseInt: parsing {go_quoted(text)}: invalid syntax") from None
    if retries < 1:
        raise InvalidArgument(f"--retries must be at least 1 (not {retries})")
    return retries


def over(check: Healthcheck, before: Healthcheck | None) -> Healthcheck:
    """`check` with the times of the one before where it gives none, as Docker does even for NONE."""
    if before is None:
        return check
    fields = ("interval", "timeout", "start_period", "start_interval", "retries")
    return msgspec.structs.replace(check, **{name: getattr(check, name) or getattr(before, name) for name in fields})


def shown(check: Healthcheck) -> str:
    """The check in an image's history: the fields of Docker's record, as Go's %q prints them."""
    times = [check.interval, check.timeout, check.start_period]
    if check.start_interval:
        times.append(check.start_interval)
    fields = [go_quoted_list(check.test or []), *(go_quoted(duration_text(time)) for time in times)]
    retries = "'\\x00'" if not check.retries else _rune(check.retries)
    return "&{" + " ".join([*fields, retries]) + "}"


def _rune(number: int) -> str:
    """A number as %q takes it: for a character."""
    char = chr(number) if number < 0x110000 else "\ufffd"
    return "'" + ("\\'" if char == "'" else go_quoted(char)[1:-1].replace('\\"', '"')) + "'"
