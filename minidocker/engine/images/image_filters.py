"""Which images a listing shows. Pure.

Source  Docker Engine API 1.44, ImageList and ImagePrune (filters); Go's path.Match (patterns of `reference`).
"""

import re
from collections.abc import Callable, Sequence

from minidocker.engine import clock
from minidocker.errors import InvalidArgument
from minidocker.oci.reference import Reference
from minidocker.storage.images import Image

LIST_FILTERS = {"dangling", "label", "before", "since", "reference", "until"}
PRUNE_FILTERS = {"dangling", "label", "label!", "until"}
Filters = dict[str, list[str]]


def check(filters: Filters, known: set[str]) -> None:
    """Raises InvalidArgument: a filter that this call does not have."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"Invalid filter '{name}'")


def flag(filters: Filters, name: str, *, default: bool | None) -> bool | None:
    """A filter that is true or false. Raises InvalidArgument: anything else."""
    values = filters.get(name)
    if not values:
        return default
    truths = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    try:
        found = {truths[value.lower()] for value in values}
    except KeyError:
        raise InvalidArgument(f"Invalid filter '{name}=[{' '.join(values)}]'") from None
    if len(found) > 1:
        raise InvalidArgument(f"Invalid filter '{name}=[{' '.join(values)}]'")
    return found.pop()


def has_labels(image: Image, wanted: Sequence[str]) -> bool:
    """True if the image has all of `wanted` ("key" or "key=value")."""
    labels = image.config.execution.labels or {}
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def created_nanoseconds(image: Image) -> int:
    """Since the epoch; 0 where the config does not say or is not readable."""
    try:
        return clock.nanoseconds_of(image.config.created or "")
    except InvalidArgument:
        return 0


def created_seconds(image: Image) -> int:
    """Unix time; 0 where the config does not say or is not readable."""
    return created_nanoseconds(image) // 1_000_000_000


def pattern(text: str) -> "re.Pattern[str]":
    """A reference pattern: `*` and `?` do not match a slash, `[a-z]` and `[^a]` are classes, a backslash quotes.

    Raises  InvalidArgument: not a pattern.
    """
    out, at = "", 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[":
            end = text.find("]", at + 1 + text.startswith("^", at))
            if end < 0:
                raise InvalidArgument(f"invalid filter 'reference={text[:200]}': syntax error in pattern")
            negated = text.startswith("^", at)
            body = text[at + negated : end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out += f"[{'^' if negated else ''}{body}]"
            at = end + 1
        else:
            if character == "\\" and at < len(text):
                character, at = text[at], at + 1
            out += re.escape(character)
    try:
        return re.compile(out + r"\Z")
    except re.error:
        raise InvalidArgument(f"invalid filter 'reference={text[:200]}': syntax error in pattern") from None


def reference_filter(wanted: Sequence[str]) -> Callable[[Reference], bool]:
    """A test of one name against patterns, by its familiar form with and without tag."""
    patterns = [pattern(text) for text in wanted]
    return lambda name: not patterns or any(p.match(name.familiar) or p.match(name.familiar_name) for p in patterns)


def until_seconds(filters: Filters) -> float | None:
    """The bound of `until`: a Unix time, RFC 3339, or a duration before now ("24h")."""
    values = filters.get("until")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return clock.parse_moment(values[0]) / 1e9
