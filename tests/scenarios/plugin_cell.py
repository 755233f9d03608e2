"""Plugins as a notebook cell has them: http.server on a UNIX socket, state in a dictionary, nothing else."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

Body = dict[str, Any]


class UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128  # for a test that calls it 40 times at once


class Plugin:
    """A plugin that runs in a thread. `calls` has what it was asked, in order; `hang` the methods that never answer."""

    kinds: list[str] = []

    def __init__(self, socket: Path | None = None, tls: Any = None) -> None:
        self.calls: list[tuple[str, Body]] = []
        self.headers: list[dict[str, str]] = []
        self.hang: set[str] = set()
        self.raw: dict[str, str] = {}  # method -> the very text that it answers with
        self.released = threading.Event()
        if socket is not None:
            socket.parent.mkdir(parents=True, exist_ok=True)
            self._server: Any = UnixServer(str(socket), handler_of(self))
        else:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
            self.port = self._server.server_address[1]
            if tls is not None:
                self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._socket = socket
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End, as a program that is killed: its socket file stays."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def asked(self, method: str) -> list[Body]:
        return [body for name, body in self.calls if name == method]

    def answer(self, method: str, body: Body) -> Body:
        if method == "Plugin.Activate":
            return {"Implements": self.kinds}
        if method in self.hang:
            self.released.wait()
        return self.reply(method.partition(".")[2], body)

    def reply(self, method: str, body: Body) -> Body:
        raise NotImplementedError


def handler_of(plugin: Plugin) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            method = self.path.removeprefix("/")
            plugin.calls.append((method, body))
            plugin.headers.append(dict(self.headers))
            answer = (plugin.raw.get(method) or json.dumps(plugin.answer(method, body))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    return Handler


class VolumePlugin(Plugin):
    """Volumes are directories below `root`. `refuse`: method -> the error that it answers with."""

    kinds = ["VolumeDriver"]

    def __init__(self, root: Path, socket: Path | None = None, tls: Any = None) -> None:
        self.root = root
        self.volumes: dict[str, Any] = {}
        self.mounts: dict[str, set[str]] = {}
        self.refuse: dict[str, str] = {}
        super().__init__(socket, tls)

    def reply(self, method: str, body: Body) -> Body:
        if method in self.refuse:
            return {"Err": self.refuse[method]}
        name = body.get("Name", "")
        if method == "List":
            return {"Volumes": [self._shown(name) for name in self.volumes]}
        if method == "Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if method == "Create":
            self.volumes[name] = body.get("Opts")
            (self.root / name).mkdir(parents=True, exist_ok=True)
            return {}
        if name not in self.volumes:
            return {"Err": f"no volume {name} here"}
        if method == "Get":
            return {"Volume": self._shown(name) | {"Status": {"mounts": len(self.mounts.get(name, ()))}}}
        if method == "Remove":
            del self.volumes[name]
        if method == "Mount":
            self.mounts.setdefault(name, set()).add(body["ID"])
        if method == "Unmount":
            self.mounts[name].remove(body["ID"])
        return {"Mountpoint": str(self.root / name)}

    def _shown(self, name: str) -> Body:
        return {"Name": name, "Mountpoint": str(self.root / name)}


class AuthorizationPlugin(Plugin):
    """Allows what `rule` allows: it gets the method and the body, and returns None or the reason for a refusal."""

    kinds = ["authz"]

    def __init__(self, socket: Path, rule: Callable[[str, Body], str | None]) -> None:
        self.rule = rule
        super().__init__(socket)

    def reply(self, method: str, body: Body) -> Body:
        reason = self.rule(method, body)
        return {"Allow": True} if reason is None else {"Allow": False, "Msg": reason}
