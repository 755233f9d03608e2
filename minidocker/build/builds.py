"""Builds of one engine: from a request's context and options to a named image.

Source  Docker Engine API, ImageBuild; moby builder/remotecontext (where the Dockerfile is, what a remote may be).
Rules   - all that builds need on disk lies below `data-root/build`; what a crash left there is removed at start.
        - nothing is built before the whole Dockerfile is known to be right.
        - blobs and layers of a build are safe from the sweeper until its end, then what no image names is swept.
"""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minidocker.build import dockerfile, fetching, repository, stages
from minidocker.build.builder import Build
from minidocker.build.context import Context
from minidocker.build.dockerfile import DOCKERFILE_LIMIT_BYTES
from minidocker.build.options import Options
from minidocker.build.output import Output
from minidocker.build.stages import Plan
from minidocker.errors import Breakout, InvalidArgument, NotFound
from minidocker.patterns import BadPattern, IgnoreList, clean, read_ignore_file
from minidocker.registry.client import in_thread
from minidocker.storage import trees
from minidocker.storage.assembly import Section
from minidocker.storage.compression import Readable, decompress, detect
from minidocker.storage.images import Image
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import TarError, TarReader

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

DEFAULT_NAME = "Dockerfile"
IGNORE_FILE = ".dockerignore"
_IGNORE_LIMIT_BYTES = 1 << 20


class Builds:
    """The builds of one engine; several run side by side."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._directory = engine.settings.data_root / "build"
        trees.remove(self._directory)

    def receive(self, source: Readable) -> Context:
        """Read a client's archive. Blocks. Raises as Context."""
        return Context(source, self._ready())

    def _ready(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._directory

    async def fetch(self, remote: str, dockerfile: str, output: Output) -> Context:
        """A remote context: a git repository, an archive or a lone Dockerfile by URL.

        Raises  InvalidArgument: no such URL. NotFound, Unavailable: it cannot be had.
        """
        directory = self._ready()
        if repository.is_repository(remote):
            return await in_thread(repository.fetch, remote, directory)
        if not fetching.is_url(remote):
            raise InvalidArgument(f"remote URL {remote[:300]} could not be parsed: http, https or a git repository")
        fetched = await fetching.fetch(remote, directory)
        output.say(f"Downloading build context from remote url: {remote}\n")
        try:
            if await in_thread(_is_archive, fetched.file.fileno(), fetched.size):
                return await in_thread(self.receive, fetched.file)
            return await in_thread(self.receive, fetching.as_archive(fetched, dockerfile or DEFAULT_NAME, 0o644))
        finally:
            fetched.close()

    async def build(self, options: Options, context: Context, output: Output) -> Image:
        """Build and name an image. `context` is closed at the end.

        Raises  InvalidArgument (ParseError), NotFound: before anything was said. StepFailed: a step.
        """
        try:
            plan, options = await in_thread(prepare, options, context)
            async with self._engine.images.making():
                return await self._built(options, plan, context, output)
        finally:
            context.close()

    async def _built(self, options: Options, plan: Plan, context: Context, output: Output) -> Image:
        directory = Path(tempfile.mkdtemp(dir=self._ready()))
        try:
            build = Build(self._engine, options, plan, context, directory, output)
            image = await build.run()
        finally:
            await in_thread(trees.remove, directory)
        output.say(f"Successfully built {image.id.short}\n")
        for reference in options.tags:
            await asyncio.to_thread(self._engine.image_store.tag, reference, image.id)
            self._engine.events.emit("image", "tag", str(image.id), {"name": reference.familiar})
            output.say(f"Successfully tagged {reference.familiar}\n")
        return image


def prepare(options: Options, context: Context) -> tuple[Plan, Options]:
    """The Dockerfile of a context, read and checked; what its .dockerignore names of the two is taken out."""
    name = options.dockerfile or DEFAULT_NAME
    path = clean(name.lstrip("/"))
    if path == ".." or path.startswith("../"):
        raise Breakout(f"forbidden path outside the build context: {name} ()")
    try:
        content = context.read(path, DOCKERFILE_LIMIT_BYTES)
    except NotFound:
        if options.dockerfile not in ("", DEFAULT_NAME):
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}") from None
        path = DEFAULT_NAME.lower()
        try:
            content = context.read(path, DOCKERFILE_LIMIT_BYTES)
        except NotFound:
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}") from None
    if not content:
        raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
    plan = stages.plan(dockerfile.parse(content))
    if options.target:
        plan = plan.until(options.target)
    _leave_out(context, (IGNORE_FILE, path))
    return plan, replace(options, dockerfile=path)


def _leave_out(context: Context, names: tuple[str, ...]) -> None:
    """Clients send these two even if they are ignored, since the daemon reads them; steps then do not see them."""
    try:
        ignored = IgnoreList(read_ignore_file(context.read(IGNORE_FILE, _IGNORE_LIMIT_BYTES)))
    except (NotFound, InvalidArgument):
        return
    except BadPattern as error:
        raise InvalidArgument(f"invalid .dockerignore: {error}") from None
    for name in names:
        if ignored.ignores(name):
            context.remove(name)


def _is_archive(fd: int, size: int) -> bool:
    head = Section(fd, 0, size).read(512)
    if detect(head):
        return True
    try:
        return next(iter(TarReader(ByteStream(decompress(Section(fd, 0, size))))), None) is not None
    except TarError:
        return False
