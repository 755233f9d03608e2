"""Credentials: who a user is to a registry, and where that is written down.

Source  Docker Engine API, "Authentication" (X-Registry-Auth, X-Registry-Config); docker CLI, config.json (auths,
        credsStore, credHelpers) and the docker-credential-helpers protocol.
Rules   - a secret never appears in a repr, a log or an error.
        - Docker Hub's key in config.json is the old address "https://index.docker.io/v1/".
        - a credential helper is a program, started without a shell; its name is letters, digits and . _ - only.
"""

import base64
import binascii
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from minidocker import typed
from minidocker.errors import InvalidArgument, Unavailable

HUB_KEY = "https://index.docker.io/v1/"
_HEADER_LIMIT_BYTES = 1 << 20
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_HELPER_TIMEOUT_SECONDS = 60
_NOT_FOUND = "credentials not found in native keychain"


class AuthConfig(msgspec.Struct, frozen=True, rename="lower"):
    """What a client knows about itself at one registry; all empty means anonymous.

    auth           base64 of user:password, as config.json holds it.
    identitytoken  a refresh token instead of a password.
    registrytoken  a ready bearer token.
    """

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return f"AuthConfig(username={self.username!r}, serveraddress={self.serveraddress!r}, secrets hidden)"

    @property
    def basic(self) -> tuple[str, str] | None:
        """User and password, or None. Raises InvalidArgument: `auth` is not base64 of user:password."""
        if self.username or self.password:
            return self.username, self.password
        if not self.auth:
            return None
        user, colon, password = _from_base64(self.auth, "auth").decode("utf-8", "replace").partition(":")
        if not colon:
            raise InvalidArgument("invalid auth configuration: auth is not base64 of user:password")
        return user, password.strip("\0")


ANONYMOUS = AuthConfig()


def _from_base64(text: str, what: str) -> bytes:
    standard = text.strip().translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"invalid {what}: not base64") from None


def _decode(content: bytes, kind: type[msgspec.Struct] | object, what: str) -> object:
    try:
        return typed.decoder(kind).decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The parser's own text could quote a secret.
        raise InvalidArgument(f"invalid {what}: not the JSON object that Docker clients send") from None


def from_header(text: str | None) -> AuthConfig:
    """Read `X-Registry-Auth`: base64url JSON, padded or not; None, "" and `{}` are anonymous.

    Raises  InvalidArgument: neither.
    """
    if not text:
        return ANONYMOUS
    if len(text) > _HEADER_LIMIT_BYTES:
        raise InvalidArgument("invalid X-Registry-Auth: too long")
    found = _decode(_from_base64(text, "X-Registry-Auth"), AuthConfig | None, "X-Registry-Auth")
    return found if isinstance(found, AuthConfig) else ANONYMOUS


def all_from_header(text: str | None) -> dict[str, AuthConfig]:
    """Read `X-Registry-Config` (build): registry host to credentials. Raises InvalidArgument."""
    if not text:
        return {}
    found = _decode(_from_base64(text, "X-Registry-Config"), dict[str, AuthConfig] | None, "X-Registry-Config")
    return {server_key(name): auth for name, auth in found.items()} if isinstance(found, dict) else {}


def to_header(auth: AuthConfig) -> str:
    """What a client sends as `X-Registry-Auth`."""
    fields = {name: value for name, value in msgspec.structs.asdict(auth).items() if value}
    return base64.urlsafe_b64encode(msgspec.json.encode(fields)).decode()


def server_key(address: str) -> str:
    """The registry domain of a config.json key: `https://host:5000/v1/` is `host:5000`, Docker Hub's is `docker.io`."""
    host = address.split("://", 1)[-1].split("/", 1)[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io", "docker.io") else host


class ConfigFile(msgspec.Struct, frozen=True, rename="camel"):
    """The parts of ~/.docker/config.json that are about credentials."""

    auths: dict[str, AuthConfig] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}

    @classmethod
    def read(cls, path: Path) -> "ConfigFile":
        """Read `path`; a missing file is an empty one. Raises InvalidArgument: it is not such a file."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return cls()
        found = _decode(content, cls, f"configuration file {path}")
        assert isinstance(found, cls)
        return found

    def find(self, domain: str, run: "Callable[[str, str], AuthConfig | None] | None" = None) -> AuthConfig:
        """Credentials for a registry (`docker.io`, `localhost:5000`); anonymous where there are none.

        run     asks a helper (name, server address); by default the real program.
        Raises  Unavailable: the helper is missing or failed.
        """
        helpers = {server_key(name): helper for name, helper in self.cred_helpers.items()}
        helper = helpers.get(domain) or self.creds_store
        if helper:
            found = (run or ask_helper)(helper, HUB_KEY if domain == "docker.io" else domain)
            if found is not None:
                return found
        for name, auth in self.auths.items():
            if server_key(name) == domain:
                return auth
        return ANONYMOUS


class _HelperAnswer(msgspec.Struct, rename="pascal"):
    server_u_r_l: str = msgspec.field(name="ServerURL", default="")
    username: str = ""
    secret: str = ""


def ask_helper(name: str, server: str) -> AuthConfig | None:
    """Run `docker-credential-NAME get`. None: it has nothing for `server`.

    Raises  InvalidArgument: not a helper's name. Unavailable: it is not installed, failed, or hung for a minute.
    """
    if not _HELPER_NAME.match(name):
        raise InvalidArgument(f"invalid credential helper {name!r}")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise Unavailable(f"credential helper {program} is not installed or not in PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"credential helper {program} failed: {type(error).__name__}") from None
    if done.returncode != 0:
        message = done.stdout[:500].decode("utf-8", "replace").strip()
        if message == _NOT_FOUND:
            return None
        raise Unavailable(f"credential helper {program} failed: {message or f'exit status {done.returncode}'}")
    answer = _decode(done.stdout, _HelperAnswer, f"answer of credential helper {program}")
    assert isinstance(answer, _HelperAnswer)
    if answer.username == "<token>":
        return AuthConfig(identitytoken=answer.secret, serveraddress=server)
    return AuthConfig(username=answer.username, password=answer.secret, serveraddress=server)
