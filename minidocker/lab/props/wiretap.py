"""A wiretap in front of a registry: passes every request on, and writes it down. It can also ask for a token.

Source  RFC 9112 (HTTP/1.1); RFC 9110, hop-by-hop fields; distribution docs, "Token authentication".
Rules   - it listens on 127.0.0.1 only, in threads of the notebook's kernel, so it ends with the kernel.
        - what is written down is what went over the wire: method, path, status, bytes of the bodies.
        - its tokens are for the course: they say who asked, and nothing about what he may do.
"""

import base64
import contextlib
import http.client
import json
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minidocker.lab.diagrams.requests import Request

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade")
_TLS_HANDSHAKE = b"\x16"
SERVICE = "the course's registry"


class Wiretap:
    """A server before another one. `address` is what clients use, `requests` what it has seen; `close()` it.

    cut_blob_at    the next blob that is sent from there ends after so many bytes, as if the line had broken; then it is
                   None again.
    cut_upload_at  the same for the next blob that is sent to there, of which so many bytes arrive and no answer comes.
    """

    def __init__(self, upstream: str, *, users: Mapping[str, str] | None = None) -> None:
        """upstream  "127.0.0.1:PORT". users  name -> password; given, nobody gets in without a token."""
        self.upstream, self.users = upstream, dict(users or {})
        self.requests: list[Request] = []
        self.cut_blob_at: int | None = None
        self.cut_upload_at: int | None = None
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        tap = self

        class Handler(_Handler):
            wiretap = tap

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, name="wiretap", daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def take(self) -> list[Request]:
        """What was recorded since the last time, in order."""
        with self._lock:
            taken, self.requests = self.requests, []
        return taken

    def record(self, request: Request) -> None:
        """Called by the server's threads."""
        with self._lock:
            self.requests.append(request)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def new_token(self, authorization: str) -> str | None:
        """A token for whoever proves to be one of the users (Basic), else None."""
        scheme, _, coded = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(coded).decode().partition(":")
        except ValueError:
            return None
        if scheme.lower() != "basic" or self.users.get(user) != password:
            return None
        token = secrets.token_hex(8)
        self._tokens.add(token)
        return token

    def lets_in(self, authorization: str) -> bool:
        """Whether a request with this header may pass."""
        return not self.users or authorization.removeprefix("Bearer ") in self._tokens


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wiretap: Wiretap

    def handle(self) -> None:
        # Docker tries TLS first on loopback, too: a plain server must hang up, or the client would wait.
        with contextlib.suppress(ConnectionError):  # clients close as they like
            if self.request.recv(1, socket.MSG_PEEK) != _TLS_HANDSHAKE:
                super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing goes to the notebook's standard error."""

    def _serve(self) -> None:
        size, cut = int(self.headers.get("Content-Length") or 0), self.wiretap.cut_upload_at
        if cut is not None and self.command == "PUT" and "/blobs/" in self.path and size > cut:
            self.wiretap.cut_upload_at = None
            self._break_off(self.rfile.read(cut))
            return
        body = self.rfile.read(size)
        authorization = self.headers.get("Authorization", "")
        if self.wiretap.users and self.path.startswith("/token"):
            self._give_token(authorization, body)
        elif not self.wiretap.lets_in(authorization):
            challenge = f'Bearer realm="http://{self.wiretap.address}/token",service="{SERVICE}"'
            problem = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            self._answer(401, {"WWW-Authenticate": challenge}, json.dumps(problem).encode(), body)
        else:
            self._pass_on(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _give_token(self, authorization: str, body: bytes) -> None:
        token = self.wiretap.new_token(authorization)
        if token is None:
            self._answer(401, {}, b'{"details": "wrong user or password"}', body, receiver="token service")
        else:
            document = {"token": token, "expires_in": 300, "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
            self._answer(200, {}, json.dumps(document).encode(), body, receiver="token service")

    def _upstream(self) -> tuple[http.client.HTTPConnection, dict[str, str]]:
        """A connection to the registry, and the fields that it gets."""
        host, _, port = self.wiretap.upstream.partition(":")
        # The Host stays as the client sent it, so addresses that the registry gives lead through here.
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        return http.client.HTTPConnection(host, int(port), timeout=20), sent

    def _break_off(self, begin: bytes) -> None:
        """The registry gets the beginning of a body, and then both lines are dead."""
        upstream, sent = self._upstream()
        with contextlib.suppress(OSError):
            upstream.request(self.command, self.path, body=begin, headers=sent)  # which promise more
        upstream.close()
        self.wiretap.record(
            Request("daemon", "registry", self.command, self.path, 0, len(begin), 0, self._note(cut=True))
        )
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, body: bytes) -> None:
        upstream, sent = self._upstream()
        try:
            upstream.request(self.command, self.path, body=body, headers=sent)
            answer = upstream.getresponse()
            content = answer.read()
            fields = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            self._answer(answer.status, fields, content, body)
        except (OSError, http.client.HTTPException):
            self._answer(502, {}, b"", body)
        finally:
            upstream.close()

    def _answer(
        self, status: int, fields: dict[str, str], content: bytes, body: bytes, receiver: str = "registry"
    ) -> None:
        cut = self.wiretap.cut_blob_at
        cut_here = cut is not None and self.command == "GET" and "/blobs/" in self.path and len(content) > cut
        length = next((value for name, value in fields.items() if name.lower() == "content-length"), len(content))
        self.send_response_only(status)
        for name, value in fields.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if cut_here:
            self.wiretap.cut_blob_at, content, self.close_connection = None, content[:cut], True
        self.wiretap.record(
            Request(
                "daemon", receiver, self.command, self.path, status, len(body), len(content), self._note(cut=cut_here)
            )
        )
        if self.command != "HEAD":
            self.wfile.write(content)

    def _note(self, *, cut: bool) -> str:
        scheme = self.headers.get("Authorization", "").partition(" ")[0]
        parts = [f"with {scheme}"] if scheme else []
        if wanted := self.headers.get("Range"):
            parts.append(f"Range {wanted}")
        return ", ".join([*parts, "the line breaks"] if cut else parts)
