"""Authorization plugins: each call is shown to them before it is carried out, and its answer before it is sent.

Source  Docker's "Access authorization plugin" protocol (docs.docker.com/engine/extend/plugins_authorization); moby's
        rules for which bodies and headers are shown. CVE-2018-15514, CVE-2024-41110 for what happens to those that
        trust a length.
Rules   - fail closed: a plugin that fails, hangs or is gone has denied. All must allow, in the order of the flags.
        - only JSON bodies are shown, without credentials; one that is too large to be shown is refused.
        - a stream cannot be taken back: what its answer was is told when it ends, and no denial can change it.
"""

import base64
import logging
import ssl
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import hdrs, web

from minidocker.daemon import app as http
from minidocker.engine.plugins import AUTHORIZATION, Plugins
from minidocker.errors import Forbidden, MinidockerError

log = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 1 << 20
_SECRET_HEADERS = frozenset(("x-registry-auth", "x-registry-config", "authorization"))
_OWN_HEADER = http.VERSION_HEADER.lower()
Document = dict[str, Any]


class _Answer(msgspec.Struct, rename="pascal"):
    allow: bool = False
    msg: str = ""
    err: str = ""


class Authorization:
    """The authorization plugins of a daemon, as a middleware of its application."""

    def __init__(self, plugins: Plugins, names: Sequence[str]) -> None:
        self._plugins = plugins
        self._names = tuple(names)

    async def check(self) -> None:
        """At the daemon's start. Raises MinidockerError: one of them is not there or does not answer."""
        for name in self._names:
            try:
                await self._plugins.get(name, AUTHORIZATION)
            except MinidockerError as error:
                raise MinidockerError(f"error validating authorization plugin: {error}") from None

    @property
    def middleware(self) -> Any:
        """For `make_app`; inside of the one that turns failures into answers."""

        @web.middleware
        async def authorized(request: web.Request, handler: http.Handler) -> web.StreamResponse:
            shown = await _request_document(request)
            await self._ask("AuthZReq", shown)
            try:
                response = await handler(request)
            except Exception as error:
                status = error.status if isinstance(error, web.HTTPException) else http.status_of(error)
                await self._ask("AuthZRes", shown | {"ResponseStatusCode": status})
                raise
            finished = isinstance(response, web.Response) and not response.prepared
            try:
                await self._ask("AuthZRes", shown | _response_document(response, finished=finished))
            except Forbidden:
                if finished:
                    raise
                log.warning("the answer was sent before it was denied", extra={"path": request.path})
            return response

        return authorized

    async def _ask(self, method: str, shown: Document) -> None:
        """Raises Forbidden: a plugin does not allow it, or has failed."""
        for name in self._names:
            try:
                answer = await self._plugins.call(
                    name, AUTHORIZATION, f"AuthZPlugin.{method}", shown, _Answer, patient=False
                )
            except MinidockerError as error:
                raise Forbidden(f"plugin {name} failed with error: {error}") from None
            if answer.err or not answer.allow:
                raise Forbidden(f"authorization denied by plugin {name}: {answer.err or answer.msg}")


async def _request_document(request: web.Request) -> Document:
    user, certificates = _peer(request)
    document: Document = {
        "User": user,
        "UserAuthNMethod": "TLS" if certificates else "",
        "RequestMethod": request.method,
        "RequestUri": _uri(request),
        "RequestHeaders": {
            name: value for name, value in request.headers.items()
            if name.lower() not in _SECRET_HEADERS and name.lower() != _OWN_HEADER
        },
    }  # fmt: skip
    if certificates:
        document["RequestPeerCertificates"] = certificates
    if _is_json(request.headers.get(hdrs.CONTENT_TYPE, "")) and not _of_credentials(request.path):
        document["RequestBody"] = base64.b64encode(await _body(request)).decode()
    return document


def _uri(request: web.Request) -> str:
    """As the client has sent it: the front protocol has taken the version off."""
    version = request.headers.get(http.VERSION_HEADER, "")
    return f"/v{version}{request.raw_path}" if version and request.raw_path.startswith("/") else request.raw_path


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _of_credentials(path: str) -> bool:
    return path == "/auth" or path.startswith("/auth/")


async def _body(request: web.Request) -> bytes:
    """All of it; the handler reads it again from memory. Raises Forbidden: too large to be shown."""
    if (request.content_length or 0) <= BODY_LIMIT_BYTES:
        content = await request.read()
        if len(content) <= BODY_LIMIT_BYTES:
            return content
    raise Forbidden(f"request body is larger than the {BODY_LIMIT_BYTES} bytes that authorization plugins are shown")


def _response_document(response: web.StreamResponse, *, finished: bool) -> Document:
    document: Document = {
        "ResponseStatusCode": response.status,
        "ResponseHeaders": dict(response.headers.items()),
    }
    if finished and isinstance(response, web.Response) and _is_json(response.headers.get(hdrs.CONTENT_TYPE, "")):
        body = response.body
        if isinstance(body, (bytes, bytearray)) and len(body) <= BODY_LIMIT_BYTES:
            document["ResponseBody"] = base64.b64encode(body).decode()
    return document


def _peer(request: web.Request) -> tuple[str, list[str]]:
    """The common name of a client's certificate, and the certificate (PEM); "" and none without one."""
    secured = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    if secured is None or (encoded := secured.getpeercert(binary_form=True)) is None:
        return "", []
    subject = (secured.getpeercert() or {}).get("subject", ())
    common_names = [value for part in subject for key, value in part if key == "commonName"]
    pem = ssl.DER_cert_to_PEM_cert(encoded)
    return (common_names or [""])[0], [base64.b64encode(pem.encode()).decode()]
