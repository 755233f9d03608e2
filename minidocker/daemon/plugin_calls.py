"""How plugins are reached: HTTP POST over a UNIX socket or TCP, with TLS as their spec file says.

Source  Docker's "Plugin API": JSON over HTTP, see MEDIA_TYPE.
Rules   - a connection a call: a plugin that ended and came back is a new one, a hung one holds nothing but its call.
        - answers are bounded, redirects are not followed, no proxy of the environment is asked.
"""

import ssl
import time
from urllib.parse import urlsplit

import aiohttp

from minidocker.engine.plugins import Address, TimedOut, TlsFiles, Unreachable
from minidocker.errors import InvalidArgument, Unavailable

MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
ANSWER_LIMIT_BYTES = 4 << 20


async def post(address: Address, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """See engine.plugins.Transport."""
    connector, base = _connector(address)
    timeout = aiohttp.ClientTimeout(total=seconds)
    headers = {"Accept": MEDIA_TYPE, "Content-Type": "application/json"}
    began = time.monotonic()
    where = f'plugin "{address.name}" at {address.url}'
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.post(base + path, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return response.status, await _bounded(response, where)
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or str(error.os_error)
        raise Unreachable(f"{where} cannot be reached: {reason.lower()}; is its program running?") from error
    except (aiohttp.ClientError, OSError) as error:
        # The end of the time may come as an error of what was under way, for instance of the writing of the body.
        if isinstance(error, TimeoutError) or time.monotonic() - began >= seconds:
            raise TimedOut(f"{where} did not answer {path[1:]} within {seconds:g} seconds") from error
        if isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ServerDisconnectedError):
            # Not all of the request could be sent: so many wait at its socket that the kernel keeps no more.
            raise Unreachable(f"{where} takes no call now: {error}") from error
        raise Unavailable(f"{where} broke off in the middle of {path[1:]}: {error}") from error


async def _bounded(response: aiohttp.ClientResponse, where: str) -> bytes:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > ANSWER_LIMIT_BYTES:
            raise Unavailable(f"{where} answers with more than {ANSWER_LIMIT_BYTES} bytes")
    return bytes(content)


def _connector(address: Address) -> tuple[aiohttp.BaseConnector, str]:
    """What connects to it, and the URL that paths are added to."""
    url = urlsplit(address.url)
    if url.scheme == "unix":
        return aiohttp.UnixConnector(path=url.path, force_close=True), "http://plugin"
    secure = url.scheme == "https" or (url.scheme == "tcp" and address.tls is not None)
    context = _tls(address) if secure else False
    scheme = "https" if secure else "http"
    return aiohttp.TCPConnector(ssl=context, force_close=True), f"{scheme}://{url.netloc}{url.path.rstrip('/')}"


def _tls(address: Address) -> ssl.SSLContext:
    """Raises InvalidArgument: a file of the spec cannot be loaded."""
    files = address.tls or TlsFiles()
    try:
        context = ssl.create_default_context(cafile=files.authority or None)
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f'plugin "{address.name}": cannot load its TLS files: {error}') from error
    if files.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
