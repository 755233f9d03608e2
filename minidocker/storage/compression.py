"""Compressed streams: gzip, zstd, xz, bzip2 or plain, told by their first bytes.

Source  RFC 1952 (gzip: several members are one stream); RFC 8878 (zstd); moby's archive package for what is accepted.
Rules   - the first bytes decide. A media type that names another compression than the bytes show is an error.
        - memory is bounded: pieces of at most 1 MiB come out, a zstd window or xz dictionary above 128 MiB is refused.
        - a stream that ends early (but see _zstd), or whose checksum is wrong, is a VerificationError.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol, cast

import zstandard
from isal import igzip_lib  # type: ignore[import-not-found, unused-ignore]

from minidocker.errors import VerificationError
from minidocker.oci.manifest import LAYER_COMPRESSIONS

PIECE_BYTES = 1 << 20
_IgzipError: type[Exception] = cast(type[Exception], igzip_lib.error)
_READ_BYTES = 256 << 10
_WINDOW_LIMIT_BYTES = 128 << 20
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}


class Readable(Protocol):
    """What is read from: at most `count` bytes, b"" at the end."""

    def read(self, count: int, /) -> bytes: ...


class _Decompressor(Protocol):
    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def detect(head: bytes) -> str:
    """The compression that the first bytes show: "gzip", "zstd", "xz", "bzip2" or "" (plain)."""
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"  # a skippable frame in front
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def decompress(source: Readable, media_type: str | None = None, *, name: str = "stream") -> Iterator[bytes]:
    """The plain bytes of `source`, in pieces.

    media_type  what the stream is called; None: nobody said.
    name        names the stream in errors.
    Raises      VerificationError: damaged, cut off, or of another compression than `media_type` says.
    """
    head = source.read(_READ_BYTES)
    while 0 < len(head) < 6 and (more := source.read(_READ_BYTES)):
        head += more
    found = detect(head)
    declared = LAYER_COMPRESSIONS.get(media_type or "", "")
    if declared and found and declared != found:
        raise VerificationError(f"{name} is {found}, but its media type {media_type} says {declared}")
    raw = _raw(head, source)
    try:
        if found == "":
            yield from raw
        elif found == "zstd":
            yield from _zstd(raw)
        else:
            yield from _members(raw, _MAKERS[found], found)
    except (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError, _IgzipError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise VerificationError(f"{name} is damaged or cut off: {error}") from None


def _raw(head: bytes, source: Readable) -> Iterator[bytes]:
    while head:
        yield head
        head = source.read(_READ_BYTES)


_MAKERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_LIMIT_BYTES),
}


def _members(raw: Iterator[bytes], make: Callable[[], _Decompressor], kind: str) -> Iterator[bytes]:
    """Members one after the other; zero bytes after the last one are padding."""
    rest = b""
    first = True
    while True:
        while not rest.lstrip(b"\0") or first:
            rest = next(raw, b"")
            first = False
            if not rest:
                return
        member = make()
        if kind == "gzip" and not rest.startswith(b"\x1f"):
            raise EOFError("bytes after the last member")
        piece = member.decompress(rest, PIECE_BYTES)
        while not member.eof:
            if piece:
                yield piece
            if member.needs_input:
                data = next(raw, b"")
                if not data:
                    raise EOFError("it ends too early")
                piece = member.decompress(data, PIECE_BYTES)
            else:
                piece = member.decompress(b"", PIECE_BYTES)
        if piece:
            yield piece
        rest = member.unused_data


def _zstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    """zstd frames one after the other.

    A cut inside the last frame shows only as fewer bytes; the archive's end and its diff ID tell.
    """
    maker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT_BYTES)
    source = _Refill(raw)
    with maker.stream_reader(cast(IO[bytes], source), read_size=_READ_BYTES, read_across_frames=True) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield piece


class _Refill:
    """An iterator of pieces as the `read` that zstandard wants (it takes more or less than it asks for)."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, count: int = -1) -> bytes:
        return next(self._pieces, b"")
