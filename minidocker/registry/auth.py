"""Authentication at a registry: its challenge, and the token that answers it.

Source  RFC 7235 (WWW-Authenticate), RFC 7617 (Basic), RFC 6750 (Bearer); distribution docs, "Token authentication" and
        "OAuth 2"; OCI distribution-spec.
Rules   - credentials go to the registry that they are for, or to the token service that this registry itself names, and
          to no one else; the token goes back to the registry only.
        - a token service speaks https; http is accepted only from a registry that speaks http too, at a host that may.
        - the scopes asked for are ours, never what a registry suggests.
        - one token for each set of scopes, fetched once however many transfers wait for it.
"""

import asyncio
import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
import msgspec
from yarl import URL

from minidocker.errors import InvalidArgument, Unauthorized, VerificationError
from minidocker.oci.codec import decode
from minidocker.registry.credentials import AuthConfig
from minidocker.registry.hosts import Endpoint
from minidocker.registry.retry import Attempts, Temporary
from minidocker.registry.transport import Transport, error_of, read_limited

TOKEN_LIMIT_BYTES = 1 << 20
CLIENT_ID = "minidocker"
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9_-]*)(?:\s+(?![\s=])|\s*$|\s*(?=,))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate. scheme  lower case. parameters  names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read all `WWW-Authenticate` headers; what is not readable is left out.

    >>> parse_challenges(['Bearer realm="https://auth.example/token",service="registry"'])[0].parameters["service"]
    'registry'
    """
    found: list[Challenge] = []
    for header in headers:
        position = 0
        while position < len(header) and (scheme := _SCHEME.match(header, position)):
            position = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(header, position):
                name, quoted, plain = parameter.groups()
                parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                position = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


class _TokenAnswer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None


class Authorizer:
    """Answers one registry's challenges for one user."""

    def __init__(self, transport: Transport, endpoint: Endpoint, credentials: AuthConfig) -> None:
        """credentials  for exactly this endpoint; give anonymous ones for a mirror."""
        self._transport, self._endpoint, self._credentials = transport, endpoint, credentials
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], str] = {}
        self._lock = asyncio.Lock()
        self.refresh_token = ""  # what the token service gave for later, if it did

    async def header(self, scopes: tuple[str, ...]) -> str | None:
        """The Authorization header to send, or None as long as the registry has not asked.

        Raises  Unauthorized, Forbidden: the token service refuses. Unavailable: it does not answer.
        """
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            basic = self._credentials.basic
            return _basic(*basic) if basic else None
        async with self._lock:
            if scopes not in self._tokens:
                self._tokens[scopes] = await self._fetch(self._challenge, scopes)
            return f"Bearer {self._tokens[scopes]}"

    def learn(self, headers: Iterable[str], refused: str | None) -> bool:
        """Take in a 401's challenges.

        refused  the Authorization header that was just turned down, or None.
        Returns  True if another try may succeed.
        """
        supported = [challenge for challenge in parse_challenges(headers) if challenge.scheme in ("bearer", "basic")]
        if not supported:
            return False
        self._challenge = min(supported, key=lambda challenge: challenge.scheme != "bearer")
        if self._challenge.scheme == "basic":
            return refused is None and self._credentials.basic is not None
        if self._credentials.registrytoken and refused:
            return False
        stale = [scopes for scopes, token in self._tokens.items() if refused == f"Bearer {token}"]
        for scopes in stale:
            del self._tokens[scopes]  # it has run out, or lost a right; one fresh one is asked for
        return True

    @property
    def lacks_basic(self) -> bool:
        """True if the registry wants a user and a password, and there are none."""
        return self._challenge is not None and self._challenge.scheme == "basic" and self._credentials.basic is None

    async def _fetch(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        if self._credentials.registrytoken:
            return self._credentials.registrytoken
        realm = self._realm(challenge)
        attempts = Attempts(self._transport.config.retry)
        while True:
            try:
                answer = await self._ask(realm, challenge.parameters.get("service", ""), scopes)
            except Temporary as failure:
                await attempts.wait(failure)
                continue
            token = answer.token or answer.access_token
            if not token or not token.isascii() or not token.isprintable():
                raise Unauthorized(f"the token service of {self._endpoint} gave no usable token")
            self.refresh_token = answer.refresh_token or self.refresh_token
            return token

    def _realm(self, challenge: Challenge) -> URL:
        text = challenge.parameters.get("realm", "")
        try:
            realm = URL(text)
        except ValueError:
            realm = URL("")
        if realm.scheme not in ("http", "https") or not realm.host or realm.user:
            raise VerificationError(f"{self._endpoint} names a token service that is not an address: {text[:200]!r}")
        if realm.scheme == "http" and (
            self._endpoint.base.scheme == "https" or not self._transport.config.allows_http(realm)
        ):
            raise VerificationError(f"{self._endpoint} names a token service over plain http at {realm.host}; refused")
        return realm

    async def _ask(self, realm: URL, service: str, scopes: tuple[str, ...]) -> _TokenAnswer:
        """By POST with a refresh token if there is one; else, and where POST is unknown, by GET."""
        if self._credentials.identitytoken:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(scopes),
                "refresh_token": self._credentials.identitytoken,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = URL.build(query=form).raw_query_string.encode()
            async with self._transport.request("POST", realm, self._endpoint, headers=headers, body=body) as response:
                if response.status not in (404, 405):
                    return await self._answer(response)
        basic = self._credentials.basic
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        query += (
            [("account", basic[0]), ("client_id", CLIENT_ID), ("offline_token", "true")] if basic and not scopes else []
        )
        query += [("account", basic[0])] if basic and scopes else []
        headers = {"Authorization": _basic(*basic)} if basic else {}
        async with self._transport.request(
            "GET", realm.update_query(query), self._endpoint, headers=headers
        ) as response:
            return await self._answer(response)

    async def _answer(self, response: aiohttp.ClientResponse) -> _TokenAnswer:
        if response.status != 200:
            raise await error_of(response, f"token service of {self._endpoint}")
        body = await read_limited(response, TOKEN_LIMIT_BYTES, f"the token of {self._endpoint}")
        try:
            return decode(body, _TokenAnswer, "token")
        except InvalidArgument:
            raise Unauthorized(f"the token service of {self._endpoint} gave no usable token") from None


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
