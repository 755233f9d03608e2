"""Files and archives by URL: ADD's sources, and a build's remote context.

Source  Dockerfile reference, "ADD" (name and time of what comes by a URL, --checksum); RFC 9110.
Rules   - http and https only; every redirect is held to it, too.
        - what a checksum was given for is compared before anyone uses it.
"""

import asyncio
import hashlib
import io
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import aiohttp

from minidocker.errors import InvalidArgument, NotFound, Unanswered, VerificationError
from minidocker.oci.digest import Digest
from minidocker.storage.compression import Readable
from minidocker.storage.tar import TarEntry
from minidocker.storage.tar_writer import TarWriter

_PIECE_BYTES = 1 << 18
_TIMEOUT_SECONDS = 300.0


class Fetched:
    """A downloaded file; `close()` removes it. `name` from the URL, "" if it has none; `mtime_ns` 0 if unknown."""

    def __init__(self, file: IO[bytes], name: str, mtime_ns: int, size: int) -> None:
        self.file, self.name, self.mtime_ns, self.size = file, name, mtime_ns, size

    def close(self) -> None:
        self.file.close()


class _Packed:
    """A fetched file as an archive of one entry, to be read."""

    def __init__(self, entry: TarEntry, file: IO[bytes]) -> None:
        head = io.BytesIO()
        TarWriter(head.write).add(entry)
        self._head, self._file = head.getvalue(), file
        self._tail = bytes(-entry.size % 512 + 1024)

    def read(self, count: int, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:count], self._head[count:]
            return piece
        piece = self._file.read(count)
        if not piece:
            piece, self._tail = self._tail[:count], self._tail[count:]
        return piece


def as_archive(fetched: Fetched, name: str, mode: int) -> Readable:
    """What was fetched, as an archive in which it is called `name`."""
    return _Packed(TarEntry(name, mode=mode, size=fetched.size, mtime_ns=fetched.mtime_ns), fetched.file)


def is_url(text: str) -> bool:
    """Whether it is fetched from here."""
    return text.startswith(("http://", "https://"))


def name_of(url: str) -> str:
    """The file's name in a URL: the last part of its path; "" if that ends in a slash."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


async def fetch(url: str, directory: Path, checksum: str = "") -> Fetched:
    """Download `url` into an unnamed file of `directory`.

    checksum  a digest ("sha256:..."), or "".
    Raises    InvalidArgument: not a URL or not a digest. NotFound, Unavailable: the server's answer.
              VerificationError: another checksum.
    """
    wanted = _digest(checksum)
    file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (handed over)
    try:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_SECONDS, sock_read=_TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as session,
            session.get(url, max_redirects=10, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.status >= 400:
                kind = NotFound if response.status == 404 else Unanswered
                raise kind(f"failed to GET {url} with status {response.status} {response.reason}")
            found, size = await _save(response, file)
            modified = response.headers.get("Last-Modified", "")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        file.close()
        raise Unanswered(f'Get "{url}": {error or type(error).__name__}') from None
    except BaseException:
        file.close()
        raise
    if wanted is not None and found != wanted:
        file.close()
        raise VerificationError(f"digest mismatch {url}: expected {wanted}, got {found}")
    file.seek(0)
    return Fetched(file, name_of(url), _time_ns(modified), size)


async def _save(response: aiohttp.ClientResponse, file: IO[bytes]) -> tuple[Digest, int]:
    hasher, size = hashlib.sha256(), 0
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        hasher.update(piece)
        size += len(piece)
        await asyncio.to_thread(file.write, piece)
    await asyncio.to_thread(file.flush)
    return Digest.finish(hasher), size


def _digest(text: str) -> Digest | None:
    try:
        return Digest(text) if text else None
    except ValueError as error:
        raise InvalidArgument(f"invalid checksum: {error}") from None


def _time_ns(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 1_000_000_000 if text else 0
    except (ValueError, TypeError):
        return 0
