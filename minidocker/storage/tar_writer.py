"""Tar archives, written as a stream: ustar headers, with a PAX header in front where ustar is too narrow.

Source  POSIX pax(1), "ustar Interchange Format" and "pax Extended Header".
Rules   - the same entry gives the same bytes always: no clock, no user names, no order of our own.
        - times are whole seconds, as Docker writes them, unless the caller asks for more.
"""

from collections.abc import Callable

from minidocker.storage.tar import BLOCK, BLOCK_DEVICE, CHARACTER, DIRECTORY, FILE, TarEntry

_PADDING = bytes(BLOCK)
_RECORD_BYTES = 10240


class TarWriter:
    """Writes entries through `write`, which takes all of what it is given."""

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._write = write
        self._written = 0
        self._owed = 0

    def add(self, entry: TarEntry) -> None:
        """Write the header of `entry`; exactly `entry.size` bytes must follow by `data` if it is a file."""
        assert not self._owed, "the entry before this one is not complete"
        head = header(entry)
        self._write(head)
        self._written += len(head)
        self._owed = entry.size if entry.kind == FILE else 0

    def data(self, piece: bytes | memoryview) -> None:
        """Bytes of the file whose header was written last."""
        assert len(piece) <= self._owed, "more bytes than the header told"
        self._write(piece)
        self._written += len(piece)
        self._owed -= len(piece)
        if not self._owed:
            self._pad(BLOCK)

    def add_file(self, entry: TarEntry, content: bytes) -> None:
        """A header and its content in one call."""
        entry.size = len(content)
        self.add(entry)
        if content:
            self.data(content)

    def close(self) -> None:
        """Write the end of the archive: two zero blocks, filled up to a record of 10 KiB."""
        assert not self._owed, "the last entry is not complete"
        self._write(_PADDING * 2)
        self._written += 2 * BLOCK
        self._pad(_RECORD_BYTES)

    def _pad(self, unit: int) -> None:
        missing = -self._written % unit
        if missing:
            self._write(bytes(missing))
            self._written += missing


def header(entry: TarEntry) -> bytes:
    """All header blocks of `entry`, pure."""
    pax: dict[str, bytes] = {}
    name = entry.name + "/" if entry.kind == DIRECTORY and not entry.name.endswith("/") else entry.name
    name_bytes = _fit(name, "path", pax)
    link_bytes = _fit(entry.link, "linkpath", pax)
    size = _fit_number(entry.size if entry.kind == FILE else 0, 0o77777777777, "size", pax)
    uid = _fit_number(entry.uid, 0o7777777, "uid", pax)
    gid = _fit_number(entry.gid, 0o7777777, "gid", pax)
    seconds, rest = divmod(entry.mtime_ns, 1_000_000_000)
    if rest or not 0 <= seconds <= 0o77777777777:
        pax["mtime"] = f"{seconds}.{rest:09d}".rstrip("0").rstrip(".").encode()
        seconds = min(max(seconds, 0), 0o77777777777)
    for key in sorted(entry.xattrs):
        pax[f"SCHILY.xattr.{key}"] = entry.xattrs[key]
    plain = _ustar(name_bytes, entry.kind, entry.mode, uid, gid, size, seconds, link_bytes, _device(entry))
    if not pax:
        return plain
    records = b"".join(_record(key, value) for key, value in pax.items())
    before = _ustar(b"PaxHeaders.0/" + name_bytes[:86], "x", 0o644, 0, 0, len(records), 0, b"", (0, 0))
    return before + records + bytes(-len(records) % BLOCK) + plain


def _device(entry: TarEntry) -> tuple[int, int]:
    return (entry.major, entry.minor) if entry.kind in (CHARACTER, BLOCK_DEVICE) else (0, 0)


def _fit(text: str, key: str, pax: dict[str, bytes]) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > 100 or not encoded.isascii():
        pax[key] = encoded
        return encoded[:100]
    return encoded


def _fit_number(value: int, limit: int, key: str, pax: dict[str, bytes]) -> int:
    if value <= limit:
        return value
    pax[key] = str(value).encode()
    return 0


def _ustar(
    name: bytes, kind: str, mode: int, uid: int, gid: int, size: int, seconds: int, link: bytes, device: tuple[int, int]
) -> bytes:
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0        " % (mode, uid, gid, size, seconds),
            kind.encode(),
            link.ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),
            b"%07o\0%07o\0" % device,
        )
    ).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: str, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits."""
    rest = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest
