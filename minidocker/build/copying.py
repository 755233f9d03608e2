"""What a COPY or ADD copies, collected: from the context, another image, here-documents and URLs.

Source  Dockerfile reference, "COPY" and "ADD".
Rules   - what must be fetched first is fetched into a small context of its own, which ends with the step.
"""

import io
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from minidocker.build import configuration, fetching, sources
from minidocker.build.context import Context
from minidocker.build.instructions import Copy
from minidocker.build.sources import Source, owner_of
from minidocker.errors import InvalidArgument, MinidockerError
from minidocker.oci.image_config import ExecutionConfig
from minidocker.registry.client import in_thread
from minidocker.storage.assembly import Put
from minidocker.storage.images import Image
from minidocker.storage.tar import TarEntry
from minidocker.storage.tar_writer import TarWriter
from minidocker.storage.worker import Stopped, Worker

__all__ = ["Copied", "collect", "owner_of"]
_COPIED_MODE, _FETCHED_MODE = 0o644, 0o600


@dataclass(frozen=True, slots=True)
class Copied:
    """The sources of one instruction, and the image that those without a context are in."""

    sources: Sequence[Source]
    image: Image | None

    @property
    def sum(self) -> str:
        """What the cache knows them by."""
        return sources.sum_of(self.sources)

    def plan(
        self, instruction: Copy, config: ExecutionConfig, owner: tuple[int, int] | None
    ) -> tuple[list[Put], list[Context]]:
        """How they get into the layer. Blocks: ADD looks into files."""
        return sources.plan(
            self.sources,
            configuration.destination(instruction.destination, config),
            owner=owner,
            mode=configuration.chmod_bits(instruction.chmod),
            unpack=instruction.name == "ADD",
        )


async def collect(
    instruction: Copy,
    context: Context | None,
    image: Image | None,
    place: Stopped,
    worker: Worker,
    directory: Path,
    scope: AsyncExitStack,
) -> Copied:
    """Find all that an instruction copies.

    image, place  of --from; image None: the sources are in `context`.
    directory     for what is fetched; `scope` ends it.
    Raises        NotFound, InvalidArgument in Docker's words.
    """
    found: list[Source] = []
    try:
        if image is not None:
            seen = await in_thread(worker.look, place, instruction.sources)
            found = [source for one in seen for source in sources.in_image(one)]
        else:
            for text in instruction.sources:
                found += await _of_word(instruction, text, context, directory, scope)
    except MinidockerError as error:
        raise type(error)(f"{instruction.name} failed: {error}") from None
    if instruction.documents:
        found += await in_thread(_documents, instruction, directory, scope)
    sources.check(found, instruction.destination, instruction.name)
    return Copied(found, image)


async def _of_word(
    instruction: Copy, text: str, context: Context | None, directory: Path, scope: AsyncExitStack
) -> list[Source]:
    if fetching.is_url(text):
        if instruction.name == "COPY":
            raise InvalidArgument("source can't be a URL for COPY")
        return [await _fetched(instruction, text, directory, scope)]
    if instruction.checksum:
        raise InvalidArgument("checksum can't be specified for non-HTTP(S) sources")
    if "://" in text and instruction.name == "ADD":
        raise InvalidArgument(f"source {text} is not supported: only http and https URLs are fetched")
    if context is None:
        raise InvalidArgument("missing build context")
    return await in_thread(sources.in_context, context, text)


async def _fetched(instruction: Copy, url: str, directory: Path, scope: AsyncExitStack) -> Source:
    name = fetching.name_of(url)
    if not name and instruction.destination.endswith("/"):
        raise InvalidArgument(f"cannot determine filename for source {url}")
    file = await fetching.fetch(url, directory, instruction.checksum)
    try:
        name = name or "__unnamed__"
        context = await in_thread(Context, fetching.as_archive(file, name, _FETCHED_MODE), directory)
    finally:
        file.close()
    scope.callback(context.close)
    node = context.find(name)
    return Source(name, f"file:{node.sum}", False, node, context, packed=True)


def _documents(instruction: Copy, directory: Path, scope: AsyncExitStack) -> list[Source]:
    """Here-documents as files of a context of their own."""
    packed = io.BytesIO()
    writer = TarWriter(packed.write)
    for document in instruction.documents:
        now_ns = time.time_ns() // 1_000_000_000 * 1_000_000_000
        writer.add_file(TarEntry(document.name, mode=_COPIED_MODE, mtime_ns=now_ns), document.content.encode())
    writer.close()
    packed.seek(0)
    context = Context(packed, directory)
    scope.callback(context.close)
    found = []
    for document in instruction.documents:
        node = context.find(document.name)
        found.append(Source(document.name, f"file:{node.sum}", False, node, context, packed=True))
    return found
