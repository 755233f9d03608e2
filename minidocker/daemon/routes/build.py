"""Build: POST /build and /build/prune.

Source  Docker Engine API 1.44, ImageBuild and BuildPrune; replies recorded from dockerd.
Rules   - what is wrong before the first line is said has a status; after it the error is the stream's last object, with
          the command's exit status as `code`. Line and instruction stand beside it, where Docker's clients do not look.
        - a client that goes away cancels its build.
"""

import asyncio
import contextlib
import os
import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from minidocker import typed
from minidocker.build.builder import StepFailed
from minidocker.build.builds import Builds
from minidocker.build.context import Context
from minidocker.build.options import Limits, Options
from minidocker.build.output import Line, Output
from minidocker.daemon import app as http
from minidocker.daemon import pipes
from minidocker.daemon import progress as lines
from minidocker.daemon.streams import while_connected
from minidocker.engine.containers.config import Ulimit
from minidocker.errors import InvalidArgument, MinidockerError, Unsupported
from minidocker.oci.manifest import Platform
from minidocker.oci.reference import Reference
from minidocker.registry import credentials
from minidocker.registry.credentials import AuthConfig
from minidocker.storage.images import Image

BUILDS: "web.AppKey[Builds]" = web.AppKey("builds")
T = TypeVar("T")
_LINE_END = b"\r\n"
_PRUNE_FILTERS = {"until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"}


def _json(request: web.Request, name: str, kind: type[T], default: T) -> T:
    text = request.query.get(name, "")
    try:
        return (typed.decoder(kind | None).decode(text) or default) if text else default
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"error reading {name}: {error}") from None


def _limits(request: web.Request) -> Limits:
    query = request.query

    def number(name: str) -> int:
        """As Docker reads limits: what is no number is none."""
        text = query.get(name, "")
        return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else 0

    return Limits(
        memory=number("memory"),
        memory_swap=number("memswap"),
        cpu_shares=number("cpushares"),
        cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"),
        cpuset_cpus=query.get("cpusetcpus", ""),
        cpuset_mems=query.get("cpusetmems", ""),
        shm_size=http.query_int(request, "shmsize") or 0,
        ulimits=tuple(_json(request, "ulimits", list[Ulimit], [])),
        cgroup_parent=query.get("cgroupparent", ""),
    )


def options_of(request: web.Request) -> Options:
    """The build that a request asks for. Raises InvalidArgument, Unsupported: squash, BuildKit."""
    query = request.query
    if query.get("version", "1") not in ("", "1"):
        raise Unsupported("BuildKit is not supported: use the classic builder (DOCKER_BUILDKIT=0)")
    if http.query_flag(request, "squash"):
        raise InvalidArgument(
            "squash is only supported with experimental mode: here each step stays a layer, as the cache needs it"
        )
    if query.get("isolation", "") not in ("", "default"):
        raise InvalidArgument(f"Unsupported isolation: \"{query['isolation']}\"")
    if query.get("outputs"):
        raise Unsupported("outputs are not supported: they need BuildKit")
    if query.get("platform"):
        Platform.parse(query["platform"])
    force_remove = http.query_flag(request, "forcerm")
    return Options(
        tags=_tags(request),
        dockerfile=query.get("dockerfile", ""),
        target=query.get("target", ""),
        build_args=_json(request, "buildargs", dict[str, str | None], {}),
        labels=_json(request, "labels", dict[str, str], {}),
        cache_from=tuple(_json(request, "cachefrom", list[str], [])),
        no_cache=http.query_flag(request, "nocache"),
        pull=http.query_flag(request, "pull"),
        remove=force_remove or not query.get("rm") or http.query_flag(request, "rm"),
        force_remove=force_remove,
        platform=query.get("platform", ""),
        network_mode=query.get("networkmode", ""),
        extra_hosts=tuple(query.getall("extrahosts", [])),
        security_options=tuple(_json(request, "securityopt", list[str], [])),
        limits=_limits(request),
        credentials=_credentials(request),
        explain=http.query_flag(request, "explain"),
    )


def _credentials(request: web.Request) -> dict[str, AuthConfig]:
    """What `FROM` may use. A header that cannot be read is none, as for Docker."""
    try:
        return credentials.all_from_header(request.headers.get("X-Registry-Config"))
    except InvalidArgument:
        return {}


def _tags(request: web.Request) -> tuple[Reference, ...]:
    found: list[Reference] = []
    for text in request.query.getall("t", []):
        if not text:
            continue
        reference = Reference.parse(text)
        if reference.digest is not None:
            raise InvalidArgument("build tag cannot contain a digest")
        if reference not in found:
            found.append(reference)
    return tuple(found)


class _Stream:
    """The answer, whose head waits for the first line. quiet: lines are kept, and shown only if the build fails."""

    def __init__(self, request: web.Request, *, quiet: bool) -> None:
        self._request, self._quiet = request, quiet
        self._queue: asyncio.Queue[Line | None] = asyncio.Queue()
        self._held: list[Line] = []
        self.response: web.StreamResponse | None = None

    @property
    def said(self) -> bool:
        """Whether anything goes out."""
        return self.response is not None or not self._queue.empty() or bool(self._held)

    def put(self, line: Line) -> None:
        """From the loop's thread."""
        if self._quiet:
            self._held.append(line)
        else:
            self._queue.put_nowait(line)

    def succeed(self, image: Image) -> None:
        """The build's end: a quiet one says the image's ID alone."""
        if self._quiet:
            self._queue.put_nowait({"stream": f"{image.id}\n"})

    def fail(self, error: MinidockerError) -> None:
        """The last object of a build that failed."""
        for line in self._held:
            self._queue.put_nowait(line)
        self._queue.put_nowait(error_line(error))

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def send(self) -> None:
        """Write what is put, until `end`."""
        ended = False
        while not ended:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            ended = batch[-1] is None
            content = b"".join(msgspec.json.encode(line) + _LINE_END for line in batch if line is not None)
            if not content:
                continue
            if self.response is None:
                self.response = web.StreamResponse(headers={"Content-Type": "application/json"})
                self.response.enable_chunked_encoding()
                await self.response.prepare(self._request)
            await self.response.write(content)


def error_line(error: MinidockerError) -> dict[str, Any]:
    """A failure as the stream's last object."""
    line = lines.error_json(str(error))
    if isinstance(error, StepFailed):
        detail = line["errorDetail"]
        if error.code:
            line["errorDetail"] = detail = {"code": error.code, **detail}
        detail |= {"line": error.line, "instruction": error.instruction}
    return line


async def build(request: web.Request) -> web.StreamResponse:
    """POST /build: the body is the context, unless `remote` says where it is."""
    options, remote = options_of(request), request.query.get("remote", "")
    builds = request.app[BUILDS]
    context = None if remote else await _received(request, builds)
    stream = _Stream(request, quiet=http.query_flag(request, "q"))
    output = Output(stream.put, lines.as_json)

    async def work() -> MinidockerError | None:
        sending = asyncio.ensure_future(stream.send())
        failure: MinidockerError | None = None
        try:
            found = context if context is not None else await builds.fetch(remote, options.dockerfile, output)
            stream.succeed(await builds.build(options, found, output))
        except MinidockerError as error:
            failure = error
            if stream.said:
                stream.fail(error)
        finally:
            stream.end()
            await sending
        return failure

    try:
        failure = await while_connected(request, work())
    finally:
        if context is not None:
            context.close()
    if stream.response is None:
        if failure is not None:
            raise failure
        return web.Response(content_type="application/json")
    await stream.response.write_eof()
    return stream.response


async def _received(request: web.Request, builds: Builds) -> Context:
    """The context in the request's body."""
    found: list[Context] = []

    async def work(fd: int) -> None:
        with os.fdopen(fd, "rb", buffering=0, closefd=False) as source:
            found.append(await asyncio.to_thread(builds.receive, source))

    try:
        await pipes.receive(request, work)
    except BaseException:
        for context in found:
            context.close()
        raise
    return found[0]


async def prune(request: web.Request) -> web.Response:
    """POST /build/prune: the cache is images, which `images/prune` removes; there is nothing else."""
    if (keep := request.query.get("keep-storage", "")) and not keep.removeprefix("-").isdecimal():
        raise InvalidArgument(f"keep-storage is in bytes and expects an integer, got {keep}")
    for name in http.filters_of(request):
        if name not in _PRUNE_FILTERS:
            raise InvalidArgument(f"failed to prune build cache: invalid filter '{name}'")
    return http.json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


async def cancel(request: web.Request) -> web.Response:
    """POST /build/cancel: builds here have no ID; they end with their client."""
    return web.Response(status=204)


def add_routes(app: web.Application) -> None:
    with contextlib.suppress(AttributeError):  # tests of other routes have no engine
        app[BUILDS] = Builds(app[http.ENGINE])
    app.router.add_post("/build", build)
    app.router.add_post("/build/prune", prune)
    app.router.add_post("/build/cancel", cancel)
