"""The HTTP application: errors to statuses, headers, JSON in and out; what every route module shares.

Source  Docker Engine API 1.44 (docs.docker.com/reference/api/engine/); replies recorded from dockerd.
Rules   - a route module has `add_routes(app)`, adds unversioned paths and finds the engine at `request.app[ENGINE]`.
        - the version prefix is taken off by `streams.Connection`; `api_version(request)` tells what the client speaks.
        - kinds of failure become statuses here and nowhere else.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import msgspec
from aiohttp import hdrs, web

from minidocker import __version__, errors, typed
from minidocker.daemon.streams import Connection, Hijacked

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ENGINE: "web.AppKey[Engine]" = web.AppKey("engine")
API_VERSION = (1, 44)
MIN_API_VERSION = (1, 24)
VERSION_HEADER = "Api-Version"
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\Z")

# The first class that matches wins, so a subclass stands before its base.
STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NotModified, 304),
    (errors.InvalidArgument, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unsupported, 501),
    (errors.Unanswered, 500),
    (errors.Unavailable, 503),
    (errors.MinidockerError, 500),
)


def version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def api_version(request: web.Request) -> tuple[int, int]:
    """The API version that this request is written in; the daemon's own when its path names none."""
    match = _VERSION.match(request.headers.get(VERSION_HEADER, ""))
    return (int(match[1]), int(match[2])) if match else API_VERSION  # a client's own header of that name means nothing


def check_version(request: web.Request) -> None:
    """Raise InvalidArgument, in Docker's words, for a version outside of what this daemon speaks."""
    version = api_version(request)
    if version > API_VERSION:
        newest = version_text(API_VERSION)
        raise errors.InvalidArgument(
            f"client version {version_text(version)} is too new. Maximum supported API version is {newest}"
        )
    if version < MIN_API_VERSION:
        oldest = version_text(MIN_API_VERSION)
        raise errors.InvalidArgument(
            f"client version {version_text(version)} is too old. Minimum supported API version is {oldest}, "
            "please upgrade your client to a newer version"
        )


def status_of(error: BaseException) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def json_response(value: object, status: int = 200) -> web.Response:
    """`value` (anything msgspec encodes) as a JSON reply, ended by a newline as Docker's are."""
    return web.Response(body=msgspec.json.encode(value) + b"\n", status=status, content_type="application/json")


def error_response(message: str, status: int) -> web.Response:
    if status == 304:
        return web.Response(status=304)
    return json_response({"message": message}, status)


async def read_json(request: web.Request, kind: type[T], *, default: T | None = None) -> T:
    """The request's body as `kind`.

    default  what an empty body means; None: an empty body is refused.
    Raises   InvalidArgument: another content type, malformed JSON, a wrong type (the text names the field).
    """
    body = await request.read()
    if not body.strip():
        if default is not None:
            return default
        raise errors.InvalidArgument("invalid JSON: got EOF while reading request body")
    content_type = request.headers.get(hdrs.CONTENT_TYPE, "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise errors.InvalidArgument(f"Content-Type specified ({content_type}) must be 'application/json'")
    try:
        return typed.convert_loosely(typed.decode(body, object), kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise errors.InvalidArgument(f"invalid JSON: {error}") from error


def query_flag(request: web.Request, name: str, *, default: bool = False) -> bool:
    """A boolean of the query as Docker reads it: absent is `default`; "", 0, no, false, none are false."""
    if name not in request.query:
        return default
    return request.query[name].strip().lower() not in ("", "0", "no", "false", "none")


def query_int(request: web.Request, name: str, default: int | None = None) -> int | None:
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise errors.InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def filters_of(request: web.Request) -> dict[str, list[str]]:
    """The `filters` of the query, in both of Docker's shapes: {"k": ["v"]} and {"k": {"v": true}}."""
    text = request.query.get("filters", "")
    if text in ("", "null"):
        return {}
    try:
        raw = typed.decode(text, dict[str, list[str] | dict[str, bool]])
    except msgspec.MsgspecError as error:
        raise errors.InvalidArgument(f"invalid filter: {error}") from error
    return {
        key: [v for v, on in value.items() if on] if isinstance(value, dict) else value for key, value in raw.items()
    }


def path_name(request: web.Request, key: str = "name") -> str:
    """A name or ID of the path, unquoted, without the leading slash that Docker's own names have."""
    return unquote(request.match_info[key]).removeprefix("/")


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into Docker's `{"message": ...}`."""
    try:
        check_version(request)
        return await handler(request)
    except web.HTTPException as error:
        if error.status in (404, 405):
            return error_response("page not found", 404)
        return error_response(error.text or error.reason, error.status)
    except errors.MinidockerError as error:
        return error_response(str(error), status_of(error))
    except ConnectionResetError:
        return Hijacked()  # the client is gone: there is nobody to answer
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            return Hijacked()  # aiohttp's own word for it
        log.exception("request failed", extra={"method": request.method, "path": request.path})
        return error_response(f"internal error: {type(error).__name__}: {error}", 500)
    finally:
        connection = request.transport.get_protocol() if request.transport is not None else None
        if isinstance(connection, Connection):
            connection.release()


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(COMMON_HEADERS)


COMMON_HEADERS = {
    VERSION_HEADER: version_text(API_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Docker/{__version__} (linux)",
}


def make_app(engine: Any, *inner: Any) -> web.Application:
    """The whole API on one engine. Bodies are bounded where they are read; archives and contexts are streamed.

    inner  middlewares between the one that turns failures into answers and the routes.
    """
    from minidocker.daemon import routes

    app = web.Application(middlewares=[failures, *inner], client_max_size=16 << 20)
    app[ENGINE] = engine
    app.on_response_prepare.append(add_headers)
    routes.add_all(app)
    return app
