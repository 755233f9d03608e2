"""A repository at a registry: its manifests and blobs, read and verified.

Source  OCI distribution-spec v1.1 ("Pulling", "Pushing", "Content discovery"); distribution docs, "HTTP API V2".
Rules   - what comes in is checked against what was asked for: digest, size, media type; then only is it handed on.
        - blobs are streamed into the blob store, a piece at a time; documents have limits.
        - a transfer that breaks goes on where it stopped (Range), as long as the registry's Content-Range agrees.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec
from yarl import URL

from minidocker.errors import InvalidArgument, VerificationError
from minidocker.oci import manifest as manifests
from minidocker.oci.codec import decode
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import Descriptor, Index, Manifest
from minidocker.registry.auth import Authorizer
from minidocker.registry.credentials import ANONYMOUS, AuthConfig
from minidocker.registry.hosts import Endpoint
from minidocker.registry.retry import Attempts, Temporary
from minidocker.registry.transport import Body, Transport, error_of, read_limited

_PIECE_BYTES = 1 << 20
_ACCEPT = ", ".join((*manifests.ACCEPTED_TYPES, *manifests.SCHEMA1))
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
_TAG_PAGES_LIMIT = 100
_SCOPE = "repository:{}:{}"
T = TypeVar("T")


class Sink(Protocol):
    """Where a blob's bytes go (storage's Ingest)."""

    offset: int

    def write(self, content: bytes | bytearray | memoryview) -> None: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or an index as it came. content  its exact bytes, whose digest names it."""

    content: bytes
    media_type: str
    digest: Digest
    document: Manifest | Index

    @property
    def descriptor(self) -> Descriptor:
        """Points to it."""
        return Descriptor(self.media_type, self.digest, len(self.content))


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run blocking `work` in a thread; when cancelled, wait for its end first: its files must not go from under it."""
    future = asyncio.get_running_loop().run_in_executor(None, lambda: work(*arguments))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await outlast(future)
        raise


async def outlast(future: "asyncio.Future[Any]") -> None:
    """Return when `future` is done, however often we are cancelled meanwhile. For clean-up, before raising on."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # marks it as seen


class RegistryClient:
    """One user at one repository of one registry endpoint."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        repository: str,
        credentials: AuthConfig = ANONYMOUS,
        *,
        push: bool = False,
    ) -> None:
        """repository  path within the registry ("library/busybox"). push  ask for the right to write as well."""
        self.transport, self.endpoint, self.repository = transport, endpoint, repository
        self.authorizer = Authorizer(transport, endpoint, credentials)
        self.scopes: tuple[str, ...] = (
            (_SCOPE.format(repository, "pull,push" if push else "pull"),) if repository else ()
        )

    def url(self, rest: str) -> URL:
        """The address of something in this repository."""
        return self.endpoint.base.with_path(f"/v2/{self.repository}/{rest}")

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        scopes: tuple[str, ...] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request with what the registry wants to see of our credentials; a 401 is answered once.

        Raises  as Transport.request and Authorizer.header do. Statuses are the caller's to read.
        """
        own = url.origin() == self.endpoint.base.origin()
        scopes = scopes or self.scopes
        for last in (False, True):
            sent = dict(headers or {})
            # An upload address at another host gets no credentials.
            authorization = await self.authorizer.header(scopes) if own else None
            if authorization:
                sent["Authorization"] = authorization
            async with self.transport.request(method, url, self.endpoint, headers=sent, body=body) as response:
                # Only the registry itself may ask, not a host that it redirected us to.
                asked = response.status == 401 and own and response.url.origin() == url.origin()
                if last or not asked or not self._learn(response, authorization):
                    yield response
                    return

    def _learn(self, response: aiohttp.ClientResponse, refused: str | None) -> bool:
        return self.authorizer.learn(response.headers.getall("WWW-Authenticate", []), refused)

    async def fetch(
        self, url: URL, limit_bytes: int, what: str, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """GET a bounded document, with retries. Returns its bytes and headers. Raises what `error_of` makes."""
        attempts = Attempts(self.transport.config.retry)
        while True:
            try:
                async with self.send("GET", url, headers=headers) as response:
                    if response.status != 200:
                        raise await error_of(response, what)
                    return await read_limited(response, limit_bytes, what), response.headers
            except Temporary as failure:
                await attempts.wait(failure)

    async def ping(self) -> None:
        """Ask whether a registry is there; learns its challenge. Raises Unreachable, Unavailable, what it answers."""
        url = self.endpoint.base.with_path("/v2/")
        attempts = Attempts(self.transport.config.retry)
        while True:
            try:
                async with self.transport.request("GET", url, self.endpoint) as response:
                    if response.status == 401:
                        self.authorizer.learn(response.headers.getall("WWW-Authenticate", []), None)
                    elif response.status != 200:
                        raise await error_of(response, f"registry {self.endpoint}")
                return
            except Temporary as failure:
                await attempts.wait(failure)

    async def manifest(self, name: str, expected: Descriptor | None = None) -> Fetched:
        """Fetch and verify a manifest or index.

        name      tag or digest.
        expected  what an index says about it.
        Raises    VerificationError: digest, size or type are not as promised. NotFound, Unauthorized, Forbidden,
                  Unavailable: the registry's answer. Unsupported: schema 1.
        """
        what = f"manifest {self.repository}{'@' if ':' in name else ':'}{name}"
        content, headers = await self.fetch(
            self.url(f"manifests/{name}"), manifests.DOCUMENT_LIMIT_BYTES, what, {"Accept": _ACCEPT}
        )
        media_type = headers.get("Content-Type", "").split(";")[0].strip()
        digest = Digest.of(content)
        wanted = expected.digest if expected else Digest(name) if ":" in name else None
        if wanted is not None and digest != wanted:
            raise VerificationError(f"{what} has the digest {digest}: not what was asked for")
        told = headers.get("Docker-Content-Digest", "")
        if told.startswith("sha256:") and told != digest:
            raise VerificationError(f"{what} has the digest {digest}, but the registry calls it {told[:80]}")
        if expected is not None and len(content) != expected.size:
            raise VerificationError(f"{what} has {len(content)} bytes, its index promises {expected.size}")
        document = manifests.parse(content, media_type or None, what)
        kind = document.media_type or (media_type if media_type in manifests.ACCEPTED_TYPES else _oci_type(document))
        if expected is not None and kind != expected.media_type:
            raise VerificationError(f"{what} is {kind}, its index promises {expected.media_type}")
        return Fetched(content, kind, digest, document)

    async def blob(self, descriptor: Descriptor, limit_bytes: int, what: str) -> bytes:
        """A small blob, verified, in memory. Raises VerificationError: wrong digest or size, or over `limit_bytes`."""
        if descriptor.size > limit_bytes:
            raise VerificationError(f"{what} is {descriptor.size} bytes, more than the {limit_bytes} that it may have")
        content, _ = await self.fetch(self.url(f"blobs/{descriptor.digest}"), min(limit_bytes, descriptor.size), what)
        if len(content) != descriptor.size or Digest.of(content) != descriptor.digest:
            raise VerificationError(
                f"{what} is not the {descriptor.size} bytes of digest {descriptor.digest} that were promised"
            )
        return content

    async def download(
        self,
        descriptor: Descriptor,
        sink: Sink,
        moved: Callable[[int], None],
        waiting: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Stream a blob into `sink`, from `sink.offset` on, until `descriptor.size` bytes are there.

        moved    told the bytes that are there so far. waiting  told the seconds before another try.
        Raises   VerificationError: the registry sends more than promised, or another part. Unavailable: it broke too
                 often.
                 The digest is for the sink's commit to verify.
        """
        attempts = Attempts(self.transport.config.retry)
        while sink.offset < descriptor.size:
            before = sink.offset
            try:
                await self._download_part(descriptor, sink, moved)
                if sink.offset < descriptor.size:
                    raise Temporary(
                        f"{self.endpoint} ended blob {descriptor.digest} after {sink.offset} of {descriptor.size} bytes"
                    )
            except Temporary as failure:
                if sink.offset > before:
                    attempts.progressed()
                seconds = attempts.delay_seconds(failure)
                waiting(seconds)
                await self.transport.config.retry.sleep(seconds)

    async def _download_part(self, descriptor: Descriptor, sink: Sink, moved: Callable[[int], None]) -> None:
        start = sink.offset
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self.send("GET", self.url(f"blobs/{descriptor.digest}"), headers=headers) as response:
            if response.status not in (200, 206):
                raise await error_of(response, f"blob {descriptor.digest} of {self.repository}")
            skip = _bytes_to_skip(response, start, descriptor)
            piece = bytearray()
            async for part in response.content.iter_any():
                if skip >= len(part):
                    skip -= len(part)
                    continue
                piece += part[skip:] if skip else part
                skip = 0
                if sink.offset + len(piece) > descriptor.size:
                    raise VerificationError(
                        f"blob {descriptor.digest} is longer than the {descriptor.size} bytes that were promised"
                    )
                if len(piece) >= _PIECE_BYTES:
                    piece = await _flush(sink, piece, moved)
            await _flush(sink, piece, moved)

    async def has_blob(self, digest: Digest) -> bool:
        """HEAD: does the registry hold that blob here? Raises Unauthorized, Forbidden, Unavailable."""
        attempts = Attempts(self.transport.config.retry)
        while True:
            try:
                async with self.send("HEAD", self.url(f"blobs/{digest}")) as response:
                    if response.status == 404:
                        return False
                    if response.status != 200:
                        raise await error_of(response, f"blob {digest} of {self.repository}")
                    return True
            except Temporary as failure:
                await attempts.wait(failure)

    async def tags(self) -> list[str]:
        """All tags, following the registry's pages (bounded)."""
        url, found = self.url("tags/list"), list[str]()
        for _ in range(_TAG_PAGES_LIMIT):
            content, headers = await self.fetch(url, manifests.DOCUMENT_LIMIT_BYTES, f"tags of {self.repository}")
            found += decode(content, _Tags, "tag list").tags or []
            following = re.match(r'\s*<([^>]*)>\s*;\s*rel="?next"?', headers.get("Link", ""))
            if not following:
                return found
            target = url.join(URL(following[1]))
            if target.origin() != self.endpoint.base.origin():
                raise VerificationError(f"{self.endpoint} continues its tag list at another host; refused")
            url = target
        raise InvalidArgument(f"{self.repository} has more pages of tags than minidocker reads")


async def _flush(sink: Sink, piece: bytearray, moved: Callable[[int], None]) -> bytearray:
    if piece:
        await in_thread(sink.write, piece)
        moved(sink.offset)
    return bytearray()


def _bytes_to_skip(response: aiohttp.ClientResponse, start: int, descriptor: Descriptor) -> int:
    """How many bytes at its head we have already. Raises VerificationError: it is another part or size."""
    expected = descriptor.size
    if response.status == 206:
        told = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if not told or int(told[1]) != start or int(told[2]) != expected - 1 or told[3] not in ("*", str(expected)):
            raise VerificationError(
                f"blob {descriptor.digest}: asked for bytes {start}-{expected - 1}/{expected}, "
                f"got {response.headers.get('Content-Range', 'no Content-Range')[:100]}"
            )
        expected -= start
        start = 0
    if response.content_length is not None and response.content_length != expected:
        raise VerificationError(
            f"blob {descriptor.digest}: {response.content_length} bytes are announced, {expected} were promised"
        )
    return start


def _oci_type(document: Manifest | Index) -> str:
    return manifests.OCI_INDEX if isinstance(document, Index) else manifests.OCI_MANIFEST
