"""Push: layers, config, then the manifest, which makes them an image.

Source  OCI distribution-spec, "Pushing"; distribution docs, "Cross repository blob mount"; moby's push (status words).
Rules   - a blob that is there already is not sent (HEAD first); one that lies in another repository of the same
          registry is mounted from it.
        - blobs are streamed from disk with their length known; five at a time.
        - the manifest is put last, so nobody ever pulls half an image; the registry's answer must name its digest.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from minidocker.errors import MinidockerError, Unauthorized, VerificationError
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import Descriptor
from minidocker.registry.client import RegistryClient, in_thread, outlast
from minidocker.registry.progress import Meter, Progress, Report
from minidocker.registry.retry import Attempts, Temporary
from minidocker.registry.transport import error_of

_UPLOADS = 5
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A blob to be pushed.

    label  what progress lines call it (12 digits), or "" for one that nobody is told about.
    path   the file with its bytes, which are `descriptor`'s.
    """

    descriptor: Descriptor
    label: str
    path: Path


Sources = Callable[[Digest], Collection[str]]


async def push_image(
    client: RegistryClient,
    tag: str,
    manifest: bytes,
    media_type: str,
    parts: Collection[Part],
    sources: Sources,
    report: Report,
) -> Descriptor:
    """Send all `parts`, then the manifest under `tag`.

    sources  repositories of the same registry that probably hold a blob.
    Returns  the descriptor of the pushed manifest.
    Raises   Unauthorized, Forbidden, Unavailable: the registry's answer. VerificationError: it stored other bytes.
    """
    for part in parts:
        if part.label:
            report(Progress("Preparing", part.label))
    gate = asyncio.Semaphore(_UPLOADS)
    unique = {part.descriptor.digest: part for part in reversed(list(parts))}
    tasks = [asyncio.ensure_future(_push_part(client, part, sources, gate, report)) for part in unique.values()]
    try:
        await asyncio.gather(*tasks)
    except Unauthorized as error:
        if client.authorizer.lacks_basic:
            raise Unauthorized("no basic auth credentials") from error
        raise
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await outlast(task)
    for part in parts:
        if part.label and unique[part.descriptor.digest] is not part:
            report(Progress("Layer already exists", part.label))
    descriptor = Descriptor(media_type, Digest.of(manifest), len(manifest))
    await put_manifest(client, tag, manifest, descriptor)
    report(Progress(f"{tag}: digest: {descriptor.digest} size: {descriptor.size}"))
    report(Progress(aux={"Tag": tag, "Digest": str(descriptor.digest), "Size": descriptor.size}))
    return descriptor


async def put_manifest(client: RegistryClient, name: str, content: bytes, descriptor: Descriptor) -> None:
    """PUT a manifest or index under a tag or digest. Raises as push_image."""
    attempts = Attempts(client.transport.config.retry)
    headers = {"Content-Type": descriptor.media_type}
    while True:
        try:
            async with client.send("PUT", client.url(f"manifests/{name}"), headers=headers, body=content) as response:
                if response.status not in (200, 201):
                    raise await error_of(response, f"manifest {client.repository}:{name}")
                told = response.headers.get("Docker-Content-Digest", "")
            if told.startswith("sha256:") and told != descriptor.digest:
                raise VerificationError(
                    f"{client.endpoint} stored the manifest as {told[:80]}, sent was {descriptor.digest}"
                )
            return
        except Temporary as failure:
            await attempts.wait(failure)


async def _push_part(
    client: RegistryClient, part: Part, sources: Sources, gate: asyncio.Semaphore, report: Report
) -> None:
    def tell(status: str) -> None:
        if part.label:
            report(Progress(status, part.label))

    if gate.locked():
        tell("Waiting")
    async with gate:
        tell(await push_blob(client, part, sources, report))


async def push_blob(client: RegistryClient, part: Part, sources: Sources, report: Report) -> str:
    """Make the registry hold `part` in this repository, in the cheapest way. Returns Docker's word for how."""
    digest = part.descriptor.digest
    if await client.has_blob(digest):
        return "Layer already exists"
    attempts = Attempts(client.transport.config.retry)
    for source in sources(digest):
        mounted, _ = await _begin(client, digest, source, attempts)
        if mounted:
            return f"Mounted from {source}"
    while True:
        try:
            _, location = await _begin(client, digest, None, attempts)
            assert location is not None
            await _upload(client, part, location, report)
            return "Pushed"
        except Temporary as failure:
            await attempts.wait(failure)
            if await client.has_blob(digest):  # it may have arrived although the answer did not
                return "Pushed"


async def _begin(
    client: RegistryClient, digest: Digest, source: str | None, attempts: Attempts
) -> tuple[bool, URL | None]:
    """POST for an upload address; with `source`, ask for a mount. Returns (mounted, address)."""
    url, scopes = client.url("blobs/uploads/"), client.scopes
    if source is not None:
        url = url.update_query({"mount": str(digest), "from": source})
        scopes = (*scopes, f"repository:{source}:pull")
    while True:
        try:
            async with client.send("POST", url, body=b"", scopes=scopes) as response:
                if response.status == 201 and source is not None:
                    return True, None
                location = response.headers.get("Location", "")
                if response.status == 202 and location:
                    return False, _upload_address(client, response.url, location)
                if source is not None and response.status in (401, 403, 404):
                    return False, None  # no right to read there: send it
                raise await error_of(response, f"blob {digest} to {client.repository}")
        except Temporary as failure:
            await attempts.wait(failure)
        except MinidockerError:
            if source is None:
                raise
            return False, None


def _upload_address(client: RegistryClient, base: URL, location: str) -> URL:
    try:
        target = base.join(URL(location, encoded=True))
    except ValueError:
        raise VerificationError(f"{client.endpoint} gives an upload address that is not an address") from None
    client.transport.check_target(base, target)
    return target


async def _upload(client: RegistryClient, part: Part, location: URL, report: Report) -> None:
    digest, size = part.descriptor.digest, part.descriptor.size
    meter = Meter(report, "Pushing", part.label, size)

    async def body() -> AsyncIterator[bytes]:
        sent = 0
        with part.path.open("rb") as file:
            while piece := await in_thread(file.read, _PIECE_BYTES):
                yield piece
                sent += len(piece)
                if part.label:
                    meter.at(sent)

    query = f"{location.raw_query_string}&digest={digest}" if location.raw_query_string else f"digest={digest}"
    target = URL(f"{location.with_query(None).with_fragment(None)}?{query}", encoded=True)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    async with client.send("PUT", target, headers=headers, body=body) as response:
        if response.status != 201:
            raise await error_of(response, f"blob {digest} to {client.repository}")
