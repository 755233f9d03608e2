"""What tar grew beyond ustar: PAX records, large numbers, sparse files.

Source  POSIX pax(1), "pax Extended Header"; GNU tar manual, "Storing Sparse Files"; tar(5) of libarchive.
Rules   - pure: bytes in, values out. `Malformed` says what is wrong; the reader adds which entry.
        - every number is bounded before it is used.
"""

from collections.abc import Callable

SIZE_LIMIT = (1 << 63) - 1
SPARSE_LIMIT = 1 << 16  # pieces; 64 Ki of them are more than any file of an image has
_TIME_LIMIT_NS = (1 << 34) * 1_000_000_000  # as far as ext4 can store

Holes = tuple[tuple[int, int], ...]
Take = Callable[[int], bytes]


class Malformed(Exception):
    """A header that means nothing, or more than one thing."""


def number(field: bytes, name: str, *, signed: bool = False) -> int:
    """A number of a header: octal digits, or base 256 if the first bit is set.

    Raises  Malformed: anything else, or negative although not `signed`.
    """
    if field[0] & 0x80:
        width = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << width) - 1)
        if field[0] & 0x40:
            value -= 1 << width
        if not -SIZE_LIMIT <= value <= SIZE_LIMIT or (value < 0 and not signed):
            raise Malformed(f"{name} is negative or too large")
        return value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        if digits.isdigit():
            return int(digits, 8)
        if signed and digits[:1] == b"-" and digits[1:].isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise Malformed(f"{name} is no octal number: {field!r}")


def decimal(value: bytes, name: str, limit: int) -> int:
    """A decimal number of a PAX record, 0 to `limit`. Raises Malformed."""
    if not value.isdigit() or len(value) > 20 or int(value) > limit:
        raise Malformed(f"{name} is not a number from 0 to {limit}: {value[:40]!r}")
    return int(value)


def timestamp_ns(value: bytes) -> int:
    """`1350244992.023960108` in nanoseconds; digits beyond are cut off. Raises Malformed."""
    whole, _, fraction = value.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 20 or (fraction and not fraction.isdigit()):
        raise Malformed(f"mtime is no time: {value[:40]!r}")
    nanoseconds = int(digits) * 1_000_000_000 + int((fraction[:9]).ljust(9, b"0"))
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def bound_time(nanoseconds: int) -> int:
    """A time that the filesystem can hold; others become 1970, as Docker does."""
    return nanoseconds if 0 <= nanoseconds < _TIME_LIMIT_NS else 0


def parse_pax(content: bytes) -> tuple[dict[str, bytes], list[tuple[str, bytes]]]:
    """The records `<length> <key>=<value>\\n` of an extended header, and those of sparse files again in their order.

    Raises  Malformed: a length that does not fit, no `=`, a zero byte in a key or a path.
    """
    records: dict[str, bytes] = {}
    sparse: list[tuple[str, bytes]] = []
    at = 0
    while at < len(content):
        blank = content.find(b" ", at, at + 8)
        if blank < 0 or not content[at:blank].isdigit():
            raise Malformed("a PAX record without a length")
        end = at + int(content[at:blank])
        if end > len(content) or end <= blank + 1 or content[end - 1] != 0x0A:
            raise Malformed("a PAX record whose length does not fit")
        key_bytes, equals, value = content[blank + 1 : end - 1].partition(b"=")
        key = key_bytes.decode("utf-8", "surrogateescape")
        if not equals or not key or "\0" in key or (key in _PATHS and b"\0" in value):
            raise Malformed("a PAX record with an invalid key or path")
        if key.startswith("GNU.sparse."):
            sparse.append((key, value))
        if value or key.startswith("SCHILY.xattr."):
            records[key] = value
        else:
            records.pop(key, None)  # an empty value gives the plain header its say back
        at = end
    return records, sparse


_PATHS = ("path", "linkpath", "GNU.sparse.name")


def old_gnu_map(block: bytes, take: Take) -> tuple[int, Holes]:
    """Old GNU sparse: four pieces in the header, 21 in each further block. Returns (size with holes, pieces)."""
    size = number(block[483:495], "sparse size")
    fields, more = block[386:482], block[482]
    pieces: list[tuple[int, int]] = []
    while True:
        for at in range(0, len(fields) - 23, 24):
            if fields[at] == 0:
                break
            offset = number(fields[at : at + 12], "sparse offset")
            pieces.append((offset, number(fields[at + 12 : at + 24], "sparse length")))
        if not more:
            return size, _checked(pieces, size)
        if len(pieces) > SPARSE_LIMIT:
            raise Malformed("too many pieces in a sparse file")
        block = take(512)
        fields, more = block[:504], block[504]


def pax_map(
    pax: dict[str, bytes], records: list[tuple[str, bytes]], take: Take, stored: int
) -> tuple[int, Holes | None, int]:
    """GNU sparse 0.0, 0.1 and 1.0. Returns (size with holes, pieces, bytes of the data that the map itself took)."""
    version = (pax.get("GNU.sparse.major"), pax.get("GNU.sparse.minor"))
    size_text = pax.get("GNU.sparse.realsize" if version[0] == b"1" else "GNU.sparse.size")
    if size_text is None:
        if "GNU.sparse.map" in pax or version != (None, None) or any(key == _OFFSET for key, _ in records):
            raise Malformed("a sparse file without its size")
        return stored, None, 0
    size = decimal(size_text, "sparse size", SIZE_LIMIT)
    if version == (b"1", b"0"):
        pieces, used = _map_in_data(take, stored)
        return size, _checked(pieces, size), used
    if version not in ((None, None), (b"0", b"0"), (b"0", b"1")):
        raise Malformed("a sparse file of an unknown version")
    if "GNU.sparse.map" in pax:
        numbers = pax["GNU.sparse.map"].split(b",")
    else:
        numbers = [value for key, value in records if key in (_OFFSET, _LENGTH)]
        keys = [key for key, _ in records if key in (_OFFSET, _LENGTH)]
        if keys != [_OFFSET, _LENGTH] * (len(keys) // 2):
            raise Malformed("a sparse map out of order")
    return size, _checked(_pairs([decimal(text, "sparse map", SIZE_LIMIT) for text in numbers]), size), 0


_OFFSET, _LENGTH = "GNU.sparse.offset", "GNU.sparse.numbytes"


def _map_in_data(take: Take, stored: int) -> tuple[list[tuple[int, int]], int]:
    """Version 1.0: the count and the numbers stand as lines at the beginning of the data, filled up to a block."""
    text, used, wanted = b"", 0, 1
    lines: list[bytes] = []
    while len(lines) < wanted:
        if used + 512 > stored + (-stored % 512) or used > SPARSE_LIMIT * 42:
            raise Malformed("a sparse map that does not end")
        text += take(512)
        used += 512
        *whole, text = text.split(b"\n")
        lines += whole
        if lines and wanted == 1:
            wanted = 1 + 2 * decimal(lines[0], "sparse count", SPARSE_LIMIT)
    return _pairs([decimal(line, "sparse map", SIZE_LIMIT) for line in lines[1:wanted]]), used


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise Malformed("a sparse map with half a piece")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _checked(pieces: list[tuple[int, int]], size: int) -> Holes:
    if len(pieces) > SPARSE_LIMIT:
        raise Malformed("too many pieces in a sparse file")
    at = 0
    for offset, length in pieces:
        if offset < at or offset + length > size:
            raise Malformed("a sparse map with pieces that overlap or lie outside the file")
        at = offset + length
    return tuple(pieces)
