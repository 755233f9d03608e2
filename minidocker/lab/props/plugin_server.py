"""A plugin of the daemon that is one function: HTTP on a UNIX socket, served by threads of this process.

Source  Docker's "Plugin API" (docs.docker.com/engine/extend/plugin_api); http.server in Python's library.
Rules   - the function gets a method ("VolumeDriver.Create") and a dictionary, and returns a dictionary.
        - each call has a thread of its own, so one that never returns keeps no other waiting.
        - the threads end with the process; the socket's file goes at `close`.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

Body = dict[str, object]
Answer = Callable[[str, Body], Body]


class PluginServer:
    """Serves `answer` at the socket `place` until `close`. `calls` has what was asked, in order."""

    def __init__(self, place: Path | str, answer: Answer) -> None:
        self.place, self.answer = Path(place), answer
        self.calls: list[tuple[str, Body]] = []
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.place.unlink(missing_ok=True)
        self._server = _Server(str(self.place), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def asked(self, method: str) -> list[Body]:
        """What was asked with this method ("Mount")."""
        return [body for name, body in list(self.calls) if name.rpartition(".")[2] == method]

    def close(self) -> None:
        """End, and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self.place.unlink(missing_ok=True)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False  # a call that hangs does not keep `close` waiting
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: the daemon has waited long enough and hung up."""


def _handler(plugin: PluginServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: a notebook's output is for the lesson."""

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
            method = self.path.removeprefix("/")
            plugin.calls.append((method, asked))
            try:
                answer = plugin.answer(method, asked)
            except Exception as error:
                answer = {"Err": f"{type(error).__name__}: {error}"}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
