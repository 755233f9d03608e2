"""Images: list, inspect, pull, push, tag, remove, history, save, load, prune; login and distribution.

Source  Docker Engine API 1.44, "Image", "Distribution", SystemAuth.
Rules   - a pull, push or load that fails before its first line of progress is answered by a status; after it, by a last
          object with `error` in a stream of status 200.
        - names hold slashes and colons, unescaped: the routes match whole paths.
        - a client that goes away cancels its pull.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from minidocker.build import changes, fetching
from minidocker.daemon import app as http
from minidocker.daemon import pipes
from minidocker.daemon import progress as lines
from minidocker.daemon.streams import while_connected
from minidocker.engine.images import commit as committing
from minidocker.engine.images.images import Images
from minidocker.errors import InvalidArgument, MinidockerError, Unsupported
from minidocker.oci.manifest import Platform
from minidocker.oci.reference import Reference
from minidocker.registry import credentials
from minidocker.registry.credentials import AuthConfig
from minidocker.registry.progress import Progress
from minidocker.storage.archive import Loaded
from minidocker.storage.compression import Readable

_LINE_END = b"\r\n"
_PIPE_BYTES = 1 << 20


def _images(request: web.Request) -> Images:
    images = request.app[http.ENGINE].images
    assert isinstance(images, Images)
    return images


def _credentials(request: web.Request) -> AuthConfig:
    return credentials.from_header(request.headers.get("X-Registry-Auth"))


def _credentials_if_readable(request: web.Request) -> AuthConfig:
    """For pull and push, where Docker takes a header that it cannot read for none."""
    try:
        return _credentials(request)
    except InvalidArgument:
        return credentials.ANONYMOUS


class _Lines:
    """A stream of JSON objects whose headers wait for the first one."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.response: web.StreamResponse | None = None

    def put(self, line: dict[str, Any]) -> None:
        """From the loop's thread."""
        self._queue.put_nowait(line)

    def report(self, progress: Progress) -> None:
        """A `Report`."""
        self.put(lines.as_json(progress))

    async def send(self) -> None:
        """Write what is put until `end`."""
        while (line := await self._queue.get()) is not None:
            if self.response is None:
                self.response = web.StreamResponse(headers={"Content-Type": "application/json"})
                self.response.enable_chunked_encoding()
                await self.response.prepare(self._request)
            await self.response.write(msgspec.json.encode(line) + _LINE_END)

    def end(self) -> None:
        self._queue.put_nowait(None)


async def _streamed(request: web.Request, work: Callable[["_Lines"], Awaitable[object]]) -> web.StreamResponse:
    """Run `work`, which puts lines; see the module's first rule."""
    stream = _Lines(request)

    async def both() -> MinidockerError | None:
        sending = asyncio.ensure_future(stream.send())
        failure: MinidockerError | None = None
        try:
            await work(stream)
        except MinidockerError as error:
            failure = error
        finally:
            if failure is not None and (stream.response is not None or not stream._queue.empty()):
                stream.put(lines.error_json(str(failure)))
            stream.end()
            await sending
        return failure

    failure = await while_connected(request, both())
    if stream.response is None:
        if failure is not None:
            raise failure
        return web.Response(content_type="application/json")
    await stream.response.write_eof()
    return stream.response


async def list_images(request: web.Request) -> web.Response:
    filters = http.filters_of(request)
    if request.query.get("filter") and http.api_version(request) < (1, 41):  # one reference
        filters.setdefault("reference", []).append(request.query["filter"])
    shown = _images(request).listing(
        filters,
        http.api_version(request),
        all=http.query_flag(request, "all"),
        shared_size=http.query_flag(request, "shared-size"),
    )
    return http.json_response(shown)


async def inspect(request: web.Request) -> web.Response:
    return http.json_response(_images(request).inspect(http.path_name(request), http.api_version(request)))


async def history(request: web.Request) -> web.Response:
    return http.json_response(_images(request).history(http.path_name(request)))


async def create(request: web.Request) -> web.StreamResponse:
    """POST /images/create: pull, or import of a filesystem's archive."""
    query = request.query
    if query.get("fromSrc"):
        return await _import(request)
    name, tag = query.get("fromImage", ""), query.get("tag", "")
    if not name:
        raise InvalidArgument("invalid reference format: fromImage is empty")
    reference, all_tags = _pull_reference(name, tag)
    platform = Platform.parse(query["platform"]) if query.get("platform") else None
    auth = _credentials_if_readable(request)

    async def work(stream: _Lines) -> None:
        await _images(request).pull(
            reference, all_tags=all_tags, platform=platform, credentials=auth, report=stream.report
        )

    return await _streamed(request, work)


async def _import(request: web.Request) -> web.StreamResponse:
    """A filesystem's archive, plain or compressed: the body (`fromSrc=-`), or what is at a URL."""
    query, engine = request.query, request.app[http.ENGINE]
    origin = query["fromSrc"] if query["fromSrc"] == "-" else _import_url(query["fromSrc"])
    wanted = committing.Wanted(
        committing.reference_of(query.get("repo", ""), query.get("tag", ""), "import"),
        partial(changes.apply, changes=query.getall("changes", [])),
        query.get("message", "") or f"Imported from {origin}",
    )

    async def work(stream: _Lines) -> None:
        async def keep(archive: Readable) -> None:
            image = await engine.committing.import_archive(archive, wanted, query.get("platform", ""))
            stream.put({"status": str(image.id)})

        async def read(archive: int) -> None:
            with open(archive, "rb", buffering=0, closefd=False) as source:
                await keep(source)

        if origin == "-":
            await pipes.receive(request, read)
            return
        fetched = await fetching.fetch(origin, engine.settings.data_root)
        try:
            stream.put({"status": f"Downloading from {origin}"})
            await keep(fetched.file)
        finally:
            fetched.close()

    return await _streamed(request, work)


def _import_url(text: str) -> str:
    """Where an import comes from; without a scheme it is http. Raises MinidockerError: no host."""
    url = text if "://" in text else f"http://{text}"
    if not urlsplit(url).hostname:
        raise MinidockerError(f'Get "{url}": http: no Host in request URL')
    return url


def _pull_reference(name: str, tag: str) -> tuple[Reference, bool]:
    """What to pull, and whether it is all tags: so it is if neither `fromImage` nor `tag` has one."""
    reference = Reference.parse(name)
    if ":" in tag:
        return Reference.parse(f"{reference.name}@{tag}"), False
    if tag:
        return reference.with_tag(tag), False
    return reference, "@" not in name and ":" not in name.rpartition("/")[2]


async def push(request: web.Request) -> web.StreamResponse:
    name, tag = http.path_name(request), request.query.get("tag", "")
    repository = Reference.parse(name)
    if repository.digest is not None:
        raise InvalidArgument("cannot push a digest reference")
    explicit = ":" in name.rpartition("/")[2]
    wanted = tag or (repository.tag if explicit else None)
    if wanted:
        repository.with_tag(wanted)
    auth = _credentials_if_readable(request)

    async def work(stream: _Lines) -> None:
        await _images(request).push(repository, wanted, auth, stream.report)

    return await _streamed(request, work)


async def tag(request: web.Request) -> web.Response:
    repository = request.query.get("repo", "")
    if not repository:
        raise InvalidArgument("invalid reference format: repo is empty")
    _images(request).tag(http.path_name(request), repository, request.query.get("tag", ""))
    return web.Response(status=201)


async def remove(request: web.Request) -> web.Response:
    gone = await _images(request).remove(
        http.path_name(request), force=http.query_flag(request, "force"), prune=not http.query_flag(request, "noprune")
    )
    return http.json_response([_gone_json(one) for one in gone])


def _gone_json(gone: Any) -> dict[str, str]:
    return {"Untagged": gone.untagged} if gone.untagged else {"Deleted": gone.deleted}


async def prune(request: web.Request) -> web.Response:
    gone, freed = await _images(request).prune(http.filters_of(request))
    return http.json_response({"ImagesDeleted": [_gone_json(one) for one in gone] or None, "SpaceReclaimed": freed})


async def save(request: web.Request) -> web.StreamResponse:
    """GET /images/get?names=... and /images/{name}/get: a tar."""
    names = [http.path_name(request)] if "name" in request.match_info else request.query.getall("names", [])
    if not names:
        raise InvalidArgument("no image names were given")
    images = _images(request)
    images.saved(names)  # a name that is not here is a 404, before the stream begins
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()

    def output(piece: bytes | memoryview) -> None:
        if gone.is_set():
            raise ConnectionResetError("the client is gone")
        # The thread waits until the piece is on its way: memory stays bounded.
        asyncio.run_coroutine_threadsafe(response.write(bytes(piece)), loop).result()

    try:
        await while_connected(request, images.save(names, output))
        await response.write_eof()
    finally:
        gone.set()
    return response


async def load(request: web.Request) -> web.StreamResponse:
    """POST /images/load: the body is a tar, compressed or not."""
    quiet = http.query_flag(request, "quiet")
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    source = os.fdopen(read_end, "rb", buffering=0)

    async def work(stream: _Lines) -> None:
        loop = asyncio.get_running_loop()

        def moved(name: str, done_bytes: int) -> None:
            if not quiet:
                short = name.removeprefix("sha256:")[:12]
                loop.call_soon_threadsafe(stream.report, Progress("Loading layer", short, done_bytes, 0))

        feeding = asyncio.ensure_future(_feed(request, write_end))
        loaded: list[Loaded] = []
        try:
            loaded = await _images(request).load(source, moved)
        except MinidockerError as error:
            stream.put(lines.error_json(str(error)))  # as Docker: a load has no other status than 200
        finally:
            source.close()  # whoever still writes gets EPIPE
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        for image in loaded:
            names = [name.familiar for name in image.references]
            for name in names:
                stream.put({"stream": f"Loaded image: {name}\n"})
            if not names:
                stream.put({"stream": f"Loaded image ID: {image.id}\n"})

    return await _streamed(request, work)


async def _feed(request: web.Request, write_end: int) -> None:
    """The request's body into a pipe; its end closes the pipe."""
    try:
        async for piece in request.content.iter_chunked(_PIPE_BYTES):
            await asyncio.get_running_loop().run_in_executor(None, _write_all, write_end, piece)
    except BrokenPipeError:
        return
    finally:
        os.close(write_end)


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


async def login(request: web.Request) -> web.Response:
    auth = await http.read_json(request, AuthConfig)
    token = await _images(request).transfer.login(auth)
    return http.json_response({"Status": "Login Succeeded", "IdentityToken": token})


async def distribution(request: web.Request) -> web.Response:
    """GET /distribution/{name}/json: what the registry has, without pulling it."""
    descriptor, platforms = await _images(request).transfer.describe(
        Reference.parse(http.path_name(request)), _credentials(request)
    )
    shown = {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
    return http.json_response({"Descriptor": shown, "Platforms": [_platform_json(one) for one in platforms]})


def _platform_json(platform: Platform) -> dict[str, Any]:
    shown: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        shown["variant"] = platform.variant
    return shown


async def search(request: web.Request) -> web.Response:
    """GET /images/search: refused; what is wrong with the question is said first."""
    limit = http.query_int(request, "limit", 25)
    if limit is not None and not 0 <= limit <= 100:
        raise InvalidArgument(f"Limit {limit} is outside the range of [1, 100]")
    for name, values in http.filters_of(request).items():
        if name not in ("is-automated", "is-official", "stars"):
            raise InvalidArgument(f"invalid filter '{name}'")
        for value in values:
            if not value.isdecimal() if name == "stars" else value not in ("true", "false", "1", "0"):
                raise InvalidArgument(f"invalid filter '{name}={value}'")
    raise Unsupported("searching Docker Hub is not supported: minidocker works offline and has no search index")


def add_routes(app: web.Application) -> None:
    router = app.router
    router.add_get("/images/json", list_images, allow_head=False)
    router.add_get("/images/search", search, allow_head=False)
    router.add_get("/images/get", save, allow_head=False)
    router.add_post("/images/create", create)
    router.add_post("/images/load", load)
    router.add_post("/images/prune", prune)
    router.add_get("/images/{name:.+}/json", inspect, allow_head=False)
    router.add_get("/images/{name:.+}/history", history, allow_head=False)
    router.add_get("/images/{name:.+}/get", save, allow_head=False)
    router.add_post("/images/{name:.+}/push", push)
    router.add_post("/images/{name:.+}/tag", tag)
    router.add_delete("/images/{name:.+}", remove)
    router.add_get("/distribution/{name:.+}/json", distribution, allow_head=False)
    router.add_post("/auth", login)
