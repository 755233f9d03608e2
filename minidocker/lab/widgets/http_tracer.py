"""What client and daemon say to each other: each request with its answer, and the daemon's events as they happen.

Source  Docker Engine API (SystemEvents; stream format of "attach"); ipywidgets documentation, "Widget List" (Select).
Rules   - what is shown was on the wire: a tap (socket_tap.py) has written it down, whoever the client was.
        - events are read on a connection of their own, past the tap, by a thread that ends with the widget or kernel.
        - every line is words; nothing is said by colour alone.
"""

import contextlib
import html
import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.client.frames import Demultiplexer
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.picture import Picture
from minidocker.lab.props.socket_tap import Exchange, Half, SocketTap
from minidocker.lab.widgets.shown import ipywidgets, shown

EXAMPLES = (
    ("GET", "/_ping"),
    ("GET", "/v1.24/version"),
    ("GET", "/containers/json?all=1"),
    ("GET", "/images/json"),
    ("GET", "/v1.99/info"),
    ("DELETE", "/containers/nobody"),
)
_LONGEST_PATH, _SHOWN_LINES, _KEPT_EVENTS = 70, 24, 12
_FRAMES = "application/vnd.docker.multiplexed-stream"


def line_of(one: Exchange) -> str:
    """An exchange in one line: "3  POST /containers/create -> 201 Created"."""
    path = one.path if len(one.path) <= _LONGEST_PATH else f"{one.path[: _LONGEST_PATH - 3]}..."
    return f"{one.number}  {one.method} {path} -> {_words(one.status)}"


def _words(status: int) -> str:
    if not status:
        return "no answer yet"
    with contextlib.suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def details_of(one: Exchange) -> str:
    """An exchange in full: both first lines, the fields that say something, both bodies in a form that can be read."""
    note = f"({one.note})\n" if one.note else ""
    asked = f"{one.request.line}\n{_body(one.request, frames=False)}"
    return f"{asked}\n{note}{one.answer.line or 'no answer yet'}\n{_body(one.answer, frames=_is_framed(one.answer))}"


def _is_framed(half: Half) -> bool:
    return half.fields.get("content-type", "") == _FRAMES


def _body(half: Half, *, frames: bool) -> str:
    fields = [f"{name}: {half.fields[name]}" for name in ("content-type", "upgrade") if name in half.fields]
    lines = fields + (_framed(half.body) if frames else _plain(half.body))
    if len(lines) > _SHOWN_LINES:
        lines = [*lines[:_SHOWN_LINES], f"... {half.size} bytes in all"]
    return "".join(f"    {line}\n" for line in lines)


def _framed(body: bytes) -> list[str]:
    names = {1: "stdout", 2: "stderr", 3: "error"}
    found = Demultiplexer().feed(body)
    return [f"frame of {names.get(stream, stream)}, {len(piece)} bytes: {piece[:60]!r}" for stream, piece in found]


def _plain(body: bytes) -> list[str]:
    if not body:
        return []
    try:
        return json.dumps(json.loads(body), indent=1).splitlines()
    except ValueError:
        return [f"{len(body)} bytes: {body[:200]!r}"]


def event_line(event: Mapping[str, Any]) -> str:
    """An event in one line: "10:15:03  container start  quick (busybox)"."""
    actor = event["Actor"]
    attributes = actor["Attributes"]
    extra = attributes.get("image") or (f"exit code {attributes['exitCode']}" if "exitCode" in attributes else "")
    moment = time.strftime("%H:%M:%S", time.gmtime(event["time"]))
    name = attributes.get("name") or actor["ID"][:12]
    return f"{moment}  {event['Type']} {event['Action']}  {name}{f' ({extra})' if extra else ''}"


class EventFeed:
    """The daemon's events as they happen, in `events`, read by a thread until `close()` or the daemon's end."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._hang_up: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self, draw: Callable[[], None] = lambda: None) -> None:
        """Follow from now on; `draw` is called after each event. Raises MinidockerError: no daemon answers."""
        self.close()
        response = self.client.transport.request("GET", "/events")
        self._hang_up = socket.socket(fileno=os.dup(response.fileno()))

        def run() -> None:
            with contextlib.suppress(OSError, ValueError, MinidockerError):  # hung up, by us or by the daemon
                for event in response.objects():
                    assert isinstance(event, dict)
                    self.events.append(event)
                    draw()
            response.close()

        self._thread = threading.Thread(target=run, name="event feed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up, and wait for the thread's end."""
        if self._hang_up is not None:
            with contextlib.suppress(OSError):
                self._hang_up.shutdown(socket.SHUT_RDWR)
            self._hang_up.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._hang_up = self._thread = None

    def text(self) -> str:
        """The last events, the newest at the end."""
        return "\n".join(map(event_line, self.events)) or "nothing has happened yet"


class HttpTracer:
    """What a tap has seen, to look at; requests to send; and the events of the daemon behind it. `close()` it."""

    def __init__(self, tap: SocketTap) -> None:
        self.tap = tap
        self.through = connect(tap.url)
        self.feed = EventFeed(connect(f"unix://{tap.upstream}"))
        self.said = "choose a request and send it, or use any client with the tap's address"

    def send(self, method: str, path: str) -> Exchange:
        """Send one request through the tap; what was seen of it.

        Raises  MinidockerError: no daemon answers (an answer that says no is an answer).
        """
        seen = len(self.tap.exchanges)
        refused = ""
        try:
            self.through.transport.request(method, path).read()
        except MinidockerError as error:
            if len(self.tap.exchanges) == seen:
                raise
            refused = f": {error}"
        one = self.tap.exchanges[seen]
        self.said = f"the answer: {_words(one.status)}{refused}"
        return one

    def table(self) -> str:
        """All that was seen, as plain text."""
        rows = tuple((str(one.number), one.method, one.path, _words(one.status), one.note)
                     for one in self.tap.exchanges)  # fmt: skip
        return Picture("", "", ("nr", "method", "path", "answer", "note"), rows).table()

    def close(self) -> None:
        """End the thread that follows the events; the tap stays."""
        self.tap.listener = lambda: None
        self.feed.close()
        self.through.close()

    # -- as a widget --

    def widget(self) -> Any:
        """A list of exchanges with details, a request to send, and a feed; None without ipywidgets."""
        return None if ipywidgets is None else _Panel(self).box

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        text = self.table() if self.tap.exchanges else "no request was seen yet"
        return shown(self.widget(), {"text/plain": text}, options)


class _Panel:
    """The tracer's controls, in `box`. The tap's threads fill the list, too: one at a time."""

    def __init__(self, tracer: HttpTracer) -> None:
        self.tracer = tracer
        self._filling = threading.RLock()
        self.words, self.details, self.events = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.seen = ipywidgets.Select(description="seen", rows=8, layout={"width": "95%"})
        self.request = ipywidgets.Dropdown(
            description="request", options=[(f"{method} {path}", (method, path)) for method, path in EXAMPLES]
        )
        self.send = ipywidgets.Button(description="send", tooltip="send this request through the tap")
        self.follow = ipywidgets.ToggleButton(description="follow events", tooltip="show events as they happen")
        # JupyterLab keeps the arrow keys for itself, so a list needs buttons.
        steps = [ipywidgets.Button(description=f"{which} request") for which in ("previous", "next")]
        bar = ipywidgets.HBox([self.request, self.send, self.follow])
        shown_below = [self.words, self.seen, ipywidgets.HBox(steps), self.details, self.events]
        self.box = ipywidgets.VBox([bar, *shown_below])
        for step, by in zip(steps, (-1, 1), strict=True):
            step.on_click(lambda _button, by=by: self._move(by))
        self.send.on_click(self._press)
        self.seen.observe(self._show, names="value")
        self.follow.observe(self._toggle, names="value")
        tracer.tap.listener = self._fill
        self._say()
        self._fill()

    def _say(self) -> None:
        self.words.value = f'<span role="status">{html.escape(self.tracer.said)}</span>'

    def _show(self, *_: object) -> None:
        one = next((one for one in list(self.tracer.tap.exchanges) if one.number == self.seen.value), None)
        words = "request and answer"
        self.details.value = f"<b>{words}</b>{_pre(details_of(one), words)}" if one else ""

    def _fill(self) -> None:
        if self.box.comm is None:  # the widget was closed
            self.tracer.tap.listener = lambda: None
            return
        with self._filling:
            before, exchanges = self.seen.value, list(self.tracer.tap.exchanges)
            self.seen.options = [(line_of(one), one.number) for one in exchanges]
            if exchanges:
                self.seen.value = before if before in [one.number for one in exchanges] else exchanges[-1].number
            self._show()

    def _draw_events(self) -> None:
        self.events.value = f"<b>events</b>{_pre(self.tracer.feed.text(), 'events')}"

    def _press(self, _button: object) -> None:
        try:
            number = self.tracer.send(*self.request.value).number
            self._fill()
            self.seen.value = number
        except MinidockerError as error:
            self.tracer.said = str(error)
        self._say()

    def _toggle(self, change: dict[str, Any]) -> None:
        self.follow.description = "stop following" if change["new"] else "follow events"
        self.tracer.feed.start(self._draw_events) if change["new"] else self.tracer.feed.close()
        self._draw_events()

    def _move(self, by: int) -> None:
        if self.seen.index is not None:
            self.seen.index = min(max(self.seen.index + by, 0), len(self.seen.options) - 1)


def _pre(text: str, label: str) -> str:
    return f'<pre aria-label="{label}" style="line-height:1.3">{html.escape(text)}</pre>'
