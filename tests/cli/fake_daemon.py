"""A daemon that answers what it is told to, and remembers what it was asked."""

import json
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeDaemon:
    """Serves on a UNIX socket; use it with `with`. Answers are (status, document) by "METHOD /path" without version."""

    path: Path
    answers: dict[str, tuple[int, object]]
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def __enter__(self) -> "FakeDaemon":
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            responses_without_body: ClassVar[tuple[int, ...]] = (204, 304)

            def handle_any(self) -> None:
                body = self._body()
                path = self.path.partition("?")[0]
                bare = "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path
                if bare != "/_ping":
                    daemon.asked.append(Asked(self.command, self.path, dict(self.headers), body))
                status, document = daemon.answers.get(f"{self.command} {bare}", (200, {}))
                text = b"" if self.command == "HEAD" else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Api-Version", "1.44")
                self.send_header("OSType", "linux")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    return body
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = handle_any

            def address_string(self) -> str:
                return "local"

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = socketserver.ThreadingUnixStreamServer(str(self.path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
