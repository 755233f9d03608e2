"""Real registries to talk to: plain, with TLS and users, with TLS and tokens."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab.setup import registry as real_registry

sys.path.insert(0, str(Path(__file__).parent))  # lying_registry.py


@pytest.fixture
def registry_program() -> None:
    """Skip where there is no real registry."""
    if shutil.which("docker-registry", path="/usr/bin:/usr/sbin:/usr/local/bin") is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Place:
    """A running registry: its domain in references, and what it takes to enter."""

    domain: str
    certs_dir: Path = Path("/nonexistent")
    user: str = ""
    password: str = ""


@pytest.fixture
def plain(registry_program: None, tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    real_registry.start(tmp_path / "plain", port)
    yield Place(f"127.0.0.1:{port}")
    real_registry.stop(tmp_path / "plain")


def _openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


@dataclass(frozen=True)
class Certificates:
    """A CA and a certificate of `localhost` that it signed."""

    ca: Path
    certificate: Path
    key: Path

    def certs_dir(self, root: Path, domain: str) -> Path:
        folder = root / "certs.d" / domain
        folder.mkdir(parents=True)
        shutil.copy(self.ca, folder / "ca.crt")
        return root / "certs.d"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca, ca_key, certificate, key, request = (folder / name for name in ("ca.crt", "ca.key", "r.crt", "r.key", "r.csr"))
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(ca_key), "-out", str(ca), "-days", "30",
             "-subj", "/CN=minidocker test CA", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request), "-subj", "/CN=localhost"
    )
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1\n")
    _openssl("x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial",
             "-out", str(certificate), "-days", "30", "-extfile", str(extensions))  # fmt: skip
    return Certificates(ca, certificate, key)


@pytest.fixture
def guarded(registry_program: None, tmp_path: Path, certificates: Certificates) -> Iterator[Place]:
    """TLS and Basic."""
    users = tmp_path / "htpasswd"
    users.write_bytes(subprocess.run(["htpasswd", "-Bbn", "student", "s3cret"], check=True, capture_output=True).stdout)
    port = free_port()
    security = real_registry.Security(certificates.certificate, certificates.key, htpasswd=users)
    real_registry.start(tmp_path / "guarded", port, security)
    domain = f"localhost:{port}"
    yield Place(domain, certificates.certs_dir(tmp_path, domain), "student", "s3cret")
    real_registry.stop(tmp_path / "guarded")


class TokenService:
    """Signs tokens as the real registry wants them: anyone may pull, `student` may push."""

    def __init__(self, certificates: Certificates, port: int) -> None:
        self.certificates = certificates
        self.asked: list[dict[str, list[str]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.answer(self)

            def do_POST(self) -> None:
                service.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        form = urllib.parse.parse_qs(body)
        authorization = handler.headers.get("Authorization", "")
        good = base64.b64encode(b"student:s3cret").decode()
        known = authorization == f"Basic {good}" or form.get("refresh_token") == ["remember-me"]
        self.asked.append(query | form | {"method": [handler.command]})
        if (authorization and not known) or (form and not known):
            handler.send_response(401)
            handler.end_headers()
            return
        scopes = query.get("scope", []) + [s for text in form.get("scope", []) for s in text.split()]
        reply: dict[str, Any] = {"token": self._token(scopes, known=known), "expires_in": 300}
        if "offline_token" in query:
            reply["refresh_token"] = "remember-me"
        content = json.dumps(reply).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _token(self, scopes: list[str], *, known: bool) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = [action for action in actions.split(",") if action == "pull" or known]
            access.append({"type": kind, "name": name, "actions": allowed})
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificates.certificate.read_text())).decode()
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {"iss": "minidocker-auth", "sub": "student" if known else "", "aud": "minidocker-registry"}
        times = {"nbf": now - 10, "iat": now, "exp": now + 300}
        parts = (header, claims | times | {"jti": str(len(self.asked)), "access": access})
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.certificates.key)]
        signature = subprocess.run(command, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_base64url(signature)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass(frozen=True)
class TokenPlace(Place):
    service: TokenService = field(kw_only=True)


@pytest.fixture
def tokened(registry_program: None, tmp_path: Path, certificates: Certificates) -> Iterator[TokenPlace]:
    """TLS and a token service on another port."""
    port, token_port = free_port(), free_port()
    service = TokenService(certificates, token_port)
    token = {"realm": f"https://localhost:{token_port}/token", "service": "minidocker-registry",
             "issuer": "minidocker-auth", "rootcertbundle": str(certificates.certificate)}  # fmt: skip
    security = real_registry.Security(certificates.certificate, certificates.key, token=token)
    real_registry.start(tmp_path / "tokened", port, security)
    domain = f"localhost:{port}"
    yield TokenPlace(domain, certificates.certs_dir(tmp_path, domain), "student", "s3cret", service=service)
    real_registry.stop(tmp_path / "tokened")
    service.server.shutdown()
    service.server.server_close()
