"""Tar archives, read as a stream: the form in which layers, build contexts and copied files travel.

Source  POSIX pax(1), "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
Rules   - strict, since strangers write what we read: a wrong checksum, a negative or overflowing number, a missing byte
          is an error that names the entry. Two readers must never see two different archives in the same bytes.
        - no entry is trusted for a size in memory: extended headers are bounded, data comes in pieces.
        - a global PAX header is skipped, as Docker does: it cannot change the entries after it.
        - an archive ends at its two zero blocks, or where the stream ends between two entries, as in Go's reader.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from minidocker.errors import InvalidArgument
from minidocker.storage import tar_extensions
from minidocker.storage.streams import ByteStream, Truncated

BLOCK = 512
EXTENDED_LIMIT_BYTES = 1 << 20
UID_LIMIT = (1 << 32) - 2  # 2^32-1 is chown's "leave it", so root would keep the file
_ZERO_BLOCK = bytes(BLOCK)

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_KINDS = {ord(kind): kind for kind in (FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)}
_KINDS |= {0: FILE, ord("7"): FILE, ord("S"): FILE}
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _OLD_SPARSE = (ord(letter) for letter in "xgLKS")


class TarError(InvalidArgument):
    """The bytes are no archive that we read; the text names the entry."""


class TarEntry(msgspec.Struct):
    """One member of an archive.

    name, link   as written, undecodable bytes escaped (surrogateescape); `link` is a link's target, else "".
    mode         permission bits with setuid, setgid and sticky; no file type.
    size         bytes of the file (of a sparse file: with its holes). 0 for what holds no data.
    mtime_ns     nanoseconds since 1970.
    stored       bytes that follow in the archive.
    holes        None, or the (offset, length) of the pieces of a sparse file that the archive holds.
    """

    name: str
    kind: str = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = {}
    stored: int = 0
    holes: tuple[tuple[int, int], ...] | None = None


class TarReader:
    """Iterate over the entries; between two of them, `data()` gives the bytes of the one last returned."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._unread = 0
        self._padding = 0
        self._entry: TarEntry | None = None

    def __iter__(self) -> Iterator[TarEntry]:
        """Raises TarError: not a valid archive."""
        name = "the first entry"
        try:
            while (entry := self._next()) is not None:
                name = repr(entry.name[:300])
                yield entry
                self._skip_rest()
        except Truncated:
            raise TarError(f"archive is cut off in or after {name}") from None
        except tar_extensions.Malformed as error:
            raise TarError(f"archive is malformed after {name}: {error}") from None

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """The current entry's bytes, as (offset in the file, piece); what lies between the pieces is zero.

        Raises  TarError: the archive is cut off.
        """
        entry = self._entry
        assert entry is not None, "data() before the first entry"
        spans = ((0, self._unread),) if entry.holes is None else entry.holes
        try:
            for offset, length in spans:
                for piece in self._stream.pieces(length):
                    self._unread -= len(piece)
                    yield offset, piece
                    offset += len(piece)
        except Truncated:
            raise TarError(f"archive is cut off in {entry.name[:300]!r}") from None

    def read(self, limit_bytes: int) -> bytes:
        """The current entry whole. Raises TarError: larger than `limit_bytes`."""
        entry = self._entry
        assert entry is not None, "read() before the first entry"
        if entry.size > limit_bytes:
            raise TarError(f"{entry.name[:300]!r} has {entry.size} bytes; at most {limit_bytes} are read")
        content = bytearray(entry.size)
        for offset, piece in self.data():
            content[offset : offset + len(piece)] = piece
        return bytes(content)

    def _skip_rest(self) -> None:
        unread, padding = self._unread, self._padding
        self._unread = self._padding = 0
        if unread:
            self._stream.skip(unread)
        if padding:
            # Some writers (docker build -f elsewhere) end with the last file's last byte: nothing of it is missing.
            with contextlib.suppress(Truncated):
                self._stream.skip(padding)

    def _next(self) -> TarEntry | None:
        """The next entry with all extended headers before it applied; None at the end."""
        pax: dict[str, bytes] = {}
        sparse_records: list[tuple[str, bytes]] = []
        long_name = long_link = None
        pending = False
        while True:
            block = self._stream.take_or_end(BLOCK)
            if block is None or block == _ZERO_BLOCK:
                if pending:
                    raise tar_extensions.Malformed("the archive ends after an extended header")
                if block is not None:
                    self._end()
                return None
            _check_sum(block)
            kind = block[156]
            if kind == _PAX:
                pax, sparse_records = tar_extensions.parse_pax(self._extended(block))
            elif kind == _PAX_GLOBAL:
                self._extended(block)
                continue
            elif kind == _LONG_NAME:
                long_name = self._extended(block).partition(b"\0")[0]
            elif kind == _LONG_LINK:
                long_link = self._extended(block).partition(b"\0")[0]
            else:
                break
            pending = True
        entry = _parse(block, long_name, long_link)
        if pax or sparse_records:
            _apply_pax(entry, pax)
        self._begin(entry, block, pax, sparse_records)
        return entry

    def _begin(self, entry: TarEntry, block: bytes, pax: dict[str, bytes], sparse: list[tuple[str, bytes]]) -> None:
        if entry.kind != FILE:
            entry.size = entry.stored = 0
        self._padding = -entry.stored % BLOCK
        self._unread = entry.stored
        self._entry = entry
        if block[156] == _OLD_SPARSE:
            entry.size, entry.holes = tar_extensions.old_gnu_map(block, self._stream.take)
        elif entry.kind == FILE and sparse:
            found = tar_extensions.pax_map(pax, sparse, self._stream.take, entry.stored)
            entry.size, entry.holes, map_bytes = found
            self._unread -= map_bytes
        if entry.holes is not None and sum(length for _, length in entry.holes) != self._unread:
            raise tar_extensions.Malformed(f"the sparse map of {entry.name[:300]!r} does not add up to its data")

    def _end(self) -> None:
        """After the first zero block: the second one, the end of the stream, or damage."""
        block = self._stream.take_or_end(BLOCK)
        if block is not None and block != _ZERO_BLOCK:
            raise tar_extensions.Malformed("a lone zero block")

    def _extended(self, block: bytes) -> bytes:
        size = tar_extensions.number(block[124:136], "size")
        if size > EXTENDED_LIMIT_BYTES:
            raise tar_extensions.Malformed(f"an extended header of {size} bytes: too large")
        content = self._stream.take(size)
        self._stream.skip(-size % BLOCK)
        return content


def _check_sum(block: bytes) -> None:
    """The header's own checksum: the sum of its bytes, the checksum field counted as eight blanks."""
    stored = tar_extensions.number(block[148:156], "checksum")
    total = sum(block) - sum(block[148:156]) + 256
    if stored != total:
        # Some old writers summed signed bytes.
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if stored != signed:
            raise tar_extensions.Malformed(f"header checksum is {stored}, its bytes add up to {total}")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _parse(block: bytes, long_name: bytes | None, long_link: bytes | None) -> TarEntry:
    """A plain header. The magic tells where the prefix of a long name is; GNU uses that place for times."""
    number = tar_extensions.number
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    if long_name is not None:
        name = long_name.decode("utf-8", "surrogateescape")
    kind = _KINDS.get(block[156])
    if kind is None:
        raise tar_extensions.Malformed(f"entry {name[:300]!r} has the unknown type {block[156:157]!r}")
    if block[156] == 0 and name.endswith("/"):
        kind = DIRECTORY
    link = ""
    if kind in (HARDLINK, SYMLINK):
        link = _text(block[157:257]) if long_link is None else long_link.decode("utf-8", "surrogateescape")
    entry = TarEntry(name, kind, number(block[100:108], "mode") & 0o7777, 0, 0, 0, 0, link)
    entry.uid = _owner(number(block[108:116], "uid"), "uid")
    entry.gid = _owner(number(block[116:124], "gid"), "gid")
    entry.size = entry.stored = number(block[124:136], "size")
    entry.mtime_ns = tar_extensions.bound_time(number(block[136:148], "mtime", signed=True) * 1_000_000_000)
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = number(block[329:337], "major"), number(block[337:345], "minor")
        if entry.major > 0xFFF or entry.minor > 0xFFFFF:
            raise tar_extensions.Malformed(f"entry {name[:300]!r} has no device number that Linux knows")
    return entry


def _owner(value: int, field: str) -> int:
    if value > UID_LIMIT:
        raise tar_extensions.Malformed(f"{field} {value} is out of range")
    return value


def _apply_pax(entry: TarEntry, pax: dict[str, bytes]) -> None:
    """What the extended header says wins over the plain one; an empty value takes nothing away."""
    decimal = tar_extensions.decimal
    for key, value in pax.items():
        if key == "path":
            entry.name = value.decode("utf-8", "surrogateescape")
        elif key == "linkpath" and entry.kind in (HARDLINK, SYMLINK):
            entry.link = value.decode("utf-8", "surrogateescape")
        elif key == "size":
            entry.size = entry.stored = decimal(value, "size", tar_extensions.SIZE_LIMIT)
        elif key == "uid":
            entry.uid = decimal(value, "uid", UID_LIMIT)
        elif key == "gid":
            entry.gid = decimal(value, "gid", UID_LIMIT)
        elif key == "mtime":
            entry.mtime_ns = tar_extensions.bound_time(tar_extensions.timestamp_ns(value))
        elif key == "GNU.sparse.name":
            entry.name = value.decode("utf-8", "surrogateescape")
    entry.xattrs = {key[13:]: value for key, value in pax.items() if key.startswith("SCHILY.xattr.")}
