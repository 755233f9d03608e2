"""Sizes, times and durations: read as docker reads them, written as docker writes them.

Source  docker/go-units (size and duration words), Go's time.ParseDuration and strconv; Docker's --cpus.
Rules   - bytes, nanoseconds and billionths of a CPU inside; words only at the edge.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS_LIMIT = 40
_BINARY = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION_NS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def read_bytes(text: str) -> int:
    """`512m`, `1.5g`, `64KiB`, `-1` as bytes. Raises ValueError."""
    number, unit = _split_number(text)
    word = unit.strip().lower()
    word = word.removesuffix("b").removesuffix("i") if len(word) > 1 else word
    if not number or word not in _BINARY or (text.startswith("-") and text != "-1"):
        raise ValueError(f"invalid size: '{text}'")
    return int(float(number) * 1024 ** _BINARY[word])


def _split_number(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and (text[end] in "0123456789." or (end == 0 and text[end] in "+-")):
        end += 1
    number = text[:end]
    if end > _DIGITS_LIMIT:
        return "", text
    try:
        float(number)
    except ValueError:
        return "", text
    return number, text[end:]


def read_duration(text: str) -> int:
    """`1h2m`, `300ms`, `1.5s` as nanoseconds. Raises ValueError."""
    if text == "0":
        return 0
    total, rest = 0.0, text.lstrip("+-")
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    while rest:
        number, rest = _split_number(rest)
        end = 0
        while end < len(rest) and rest[end] not in "0123456789.":
            end += 1
        unit, rest = rest[:end], rest[end:]
        if not number:
            raise ValueError(f'time: invalid duration "{text}"')
        if unit not in _DURATION_NS:
            raise ValueError(f'time: {"unknown unit " + chr(34) + unit + chr(34) if unit else "missing unit"} '
                             f'in duration "{text}"')
        total += float(number) * _DURATION_NS[unit]
    return -round(total) if text.startswith("-") else round(total)


def read_cpus(text: str) -> int:
    """A number of CPUs such as `1.5` as billionths. Raises ValueError."""
    number, rest = _split_number(text)
    if not number or rest:
        raise ValueError(f"failed to parse {text} as a rational number")
    whole, _, fraction = number.partition(".")
    if len(fraction.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    sign = -1 if whole.startswith("-") else 1
    return int(whole or "0") * 10**9 + sign * int((fraction + "0" * 9)[:9])


def read_int(text: str) -> int:
    """A decimal, 0x or 0o number. Raises ValueError in Go's words."""
    try:
        return int(text, 0)
    except ValueError:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def read_uint16(text: str) -> int:
    """A number from 0 to 65535. Raises ValueError."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if number >= 65536:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number


READERS: "dict[str, Callable[[str], int]]" = {
    "bytes": read_bytes,
    "duration": read_duration,
    "decimal": read_cpus,
    "int": read_int,
    "uint16": read_uint16,
}


def human_size(size: float, precision: int = 4) -> str:
    """Bytes in decimal units: `1.23MB`."""
    return _scaled(size, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB", "EB"), precision)


def binary_size(size: float) -> str:
    """Bytes in binary units: `1.2MiB`."""
    return _scaled(size, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 4)


def _scaled(size: float, base: float, units: tuple[str, ...], precision: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{precision}g}{units[index]}"


def human_duration(seconds: float) -> str:
    """Seconds in words, roughly: `About an hour`, `3 days`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"
