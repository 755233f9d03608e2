"""HTTP to registries: one request, its redirects, and errors with a reason.

Source  RFC 9110 (redirects, status codes); OCI distribution-spec, "Error codes".
Rules   - redirects are followed here, never by the library: GET and HEAD only, at most 10, http(s) only, never from
          https to http, http only where that host may speak it; Authorization is dropped when host or port changes.
        - nothing of the environment is used: no proxy variables, no netrc, no cookies.
        - bodies are streamed; what is kept in memory has a limit.
"""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from minidocker import __version__
from minidocker.errors import (
    Forbidden,
    InvalidArgument,
    MinidockerError,
    NotFound,
    Unanswered,
    Unauthorized,
    VerificationError,
)
from minidocker.registry.hosts import Endpoint, RegistryConfig, tls_context
from minidocker.registry.retry import Temporary, retry_after_seconds

REDIRECT_LIMIT = 10
ERROR_BODY_LIMIT_BYTES = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_HEADERS = {"User-Agent": f"minidocker/{__version__}", "Accept-Encoding": "identity"}

Body = Callable[[], AsyncIterable[bytes]] | bytes | None


class RegistryRefusal(MinidockerError):
    """Mixed into the errors made of a registry's answer. Attributes: `status` (HTTP), `code` ("MANIFEST_UNKNOWN")."""

    status: int = 0
    code: str = ""


class UnauthorizedByRegistry(RegistryRefusal, Unauthorized):
    """401: credentials are missing or wrong."""


class DeniedByRegistry(RegistryRefusal, Forbidden):
    """403: these credentials may not do that."""


class AbsentInRegistry(RegistryRefusal, NotFound):
    """404."""


class RefusedByRegistry(RegistryRefusal, InvalidArgument):
    """Any other 4xx."""


class Transport:
    """A pool of connections, for one event loop; `close()` it, or use it with `async with`."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Transport":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=self.config.resolver, limit_per_host=16),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=_TIMEOUT,
                headers=_HEADERS,
                max_line_size=16 << 10,
                max_field_size=16 << 10,
            )
        return self._session

    @asynccontextmanager
    async def request(
        self, method: str, url: URL, endpoint: Endpoint, *, headers: Mapping[str, str] | None = None, body: Body = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and follow its redirects; the answer is open inside the `async with`.

        url       absolute. endpoint  whose TLS settings hold for its own host and port.
        body      bytes, or a function that makes a stream of them.
        Raises    Temporary: cut, refused or stalled. Unavailable: no such host, bad certificate. VerificationError: a
                  redirect that must not be followed. Errors while the caller reads the answer are translated as well.
        """
        sent = dict(headers or {})
        with translated(url):
            for _ in range(REDIRECT_LIMIT + 1):
                stream = body() if callable(body) else body
                response = await self._pool().request(
                    method, url, headers=sent, data=stream, allow_redirects=False, ssl=self._tls(url, endpoint)
                )
                target = response.headers.get("Location")
                if method not in ("GET", "HEAD") or response.status not in _REDIRECTS or target is None:
                    try:
                        yield response
                    finally:
                        response.release()  # closes the connection if the body was not read to its end
                    return
                response.close()
                following = self._redirected(url, target)
                if following.origin() != url.origin():
                    sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
                url = following
        raise VerificationError(f"{endpoint}: more than {REDIRECT_LIMIT} redirects")

    def _tls(self, url: URL, endpoint: Endpoint) -> ssl.SSLContext | bool:
        if url.scheme != "https":
            return True
        if url.origin() == endpoint.base.origin() and endpoint.tls is not None:
            return endpoint.tls
        # Whoever is redirected to must prove its name, unless the operator listed it.
        return tls_context(self.config, url, verify=not self.config.allows_http(url))

    def _redirected(self, url: URL, location: str) -> URL:
        try:
            target = url.join(URL(location, encoded=True))  # signed addresses must stay as they are
        except ValueError:
            raise VerificationError(f"{url.origin()} redirects to something that is not an address") from None
        self.check_target(url, target)
        return target

    def check_target(self, url: URL, target: URL) -> None:
        """Raise VerificationError if a registry at `url` must not send us to `target`."""
        if target.scheme not in ("http", "https") or not target.host:
            raise VerificationError(
                f"{url.origin()} redirects to {target.scheme or 'nothing'}: only http and https are followed"
            )
        if target.user or target.password:
            raise VerificationError(f"{url.origin()} redirects to an address with a user name in it")
        if target.scheme == "http" and (url.scheme == "https" or not self.config.allows_http(target)):
            raise VerificationError(f"{url.origin()} redirects to plain http at {target.host}; refused")


class translated:  # a context manager is used like a function, hence the name
    """Turns the HTTP library's exceptions into ours. Use: `with translated(url): ...`."""

    def __init__(self, url: URL) -> None:
        self._origin = url.origin()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            raise Unanswered(
                f"{self._origin}: its certificate is not trusted ({_reason(error)}); "
                f"put its CA's .crt into certs.d/HOST:PORT/"
            ) from None
        if isinstance(error, aiohttp.ClientConnectorError):
            raise Unreachable(f"cannot connect to {self._origin}: {_reason(error)}") from None
        if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientResponseError):
            raise Unanswered(f"{self._origin} gives an answer that is not HTTP: {_reason(error)[:200]}") from None
        if isinstance(error, aiohttp.ClientError | ConnectionError | ssl.SSLError | asyncio.TimeoutError):
            raise Temporary(
                f"the connection to {self._origin} broke: {_reason(error)[:200] or type(error).__name__}"
            ) from None


class Unreachable(Unanswered):
    """Nobody answers at that address, or does not speak its protocol."""


def _reason(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(inner, socket.gaierror):
        return "no such host" if inner.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else str(inner.strerror).lower()
    if isinstance(inner, OSError) and not isinstance(inner, ssl.SSLError) and inner.errno and inner.errno > 0:
        return os.strerror(inner.errno).lower()
    return str(inner).splitlines()[0] if str(inner) else type(inner).__name__


async def read_limited(response: aiohttp.ClientResponse, limit_bytes: int, what: str) -> bytes:
    """The whole body. Raises VerificationError: it is larger than `limit_bytes`."""
    if (response.content_length or 0) > limit_bytes:
        raise VerificationError(f"{what} is larger than {limit_bytes} bytes; refused")
    parts: list[bytes] = []
    total = 0
    async for part in response.content.iter_any():
        total += len(part)
        if total > limit_bytes:
            raise VerificationError(f"{what} is larger than {limit_bytes} bytes; refused")
        parts.append(part)
    return b"".join(parts)


# What a registry says with these, where the answer has no body (to HEAD).
_WORDS = {401: "unauthorized: authentication required", 403: "denied: requested access to the resource is denied"}


async def error_of(response: aiohttp.ClientResponse, what: str) -> MinidockerError:
    """The error that an answer of 3xx, 4xx or 5xx means.

    what    names what was asked for.
    """
    try:
        body = await read_limited(response, ERROR_BODY_LIMIT_BYTES, "the error message")
    except VerificationError:
        body = b""
    code, message = _first_error(body)
    reason = ": ".join(part for part in (code.lower().replace("_", " "), message) if part)
    if not reason:
        reason = _WORDS.get(response.status) or f"{response.status} {response.reason or ''}".strip()
    text = f"{what}: {reason}"
    if response.status == 429 or response.status >= 500:
        return Temporary(text, retry_after_seconds(response.headers.get("Retry-After")))
    if response.status in _REDIRECTS:
        return Unanswered(f"{what}: redirected to another address, which is not followed for this request")
    kinds: dict[int, type[RegistryRefusal]] = {
        401: UnauthorizedByRegistry,
        403: DeniedByRegistry,
        404: AbsentInRegistry,
    }
    refusal = kinds.get(response.status, RefusedByRegistry)(text)
    refusal.status, refusal.code = response.status, code
    return refusal


def _first_error(body: bytes) -> tuple[str, str]:
    """Code and message of a registry's error document; empty where it is none."""
    try:
        document = json.loads(body)
        first = document["errors"][0] if "errors" in document else document
        code, message = first.get("code"), first.get("message") or first.get("details")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "", ""
    return str(code)[:100] if isinstance(code, str) else "", str(message)[:500] if isinstance(message, str) else ""
