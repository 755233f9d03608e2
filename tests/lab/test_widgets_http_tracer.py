"""The tracer shows what went over the wire, sends requests, and follows the daemon's events until it is closed."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.errors import Unavailable
from minidocker.lab import room
from minidocker.lab.props.socket_tap import SocketTap
from minidocker.lab.widgets import http_tracer
from minidocker.lab.widgets.http_tracer import EventFeed, HttpTracer, details_of, event_line, line_of

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def daemon() -> Iterator[Client]:
    made = room.Room()
    yield made.daemon()
    made.close()


@pytest.fixture
def tracer(daemon: Client, tmp_path: Path) -> Iterator[HttpTracer]:
    tap = SocketTap(daemon.transport.url, tmp_path / "tap.sock")
    made = HttpTracer(tap)
    yield made
    made.close()
    tap.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "event feed"]


def _soon(true: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return bool(true())


def test_a_request_that_is_sent_is_seen_with_its_answer(tracer: HttpTracer) -> None:
    one = tracer.send("GET", "/v1.24/version")
    assert line_of(one) == "1  GET /v1.24/version -> 200 OK" and '"ApiVersion": "1.44"' in details_of(one)
    assert tracer.send("DELETE", "/containers/nobody").status == 404
    assert tracer.said == "the answer: 404 Not Found: No such container: nobody"
    assert tracer.table().splitlines()[2].split()[:4] == ["2", "DELETE", "/containers/nobody", "404"]


def test_frames_are_told_apart(tracer: HttpTracer, daemon: Client) -> None:
    connect(tracer.tap.url).containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True)
    attach = next(one for one in tracer.tap.exchanges if one.hijacked)
    assert r"frame of stdout, 4 bytes: b'out\n'" in details_of(attach)
    assert r"frame of stderr, 4 bytes: b'err\n'" in details_of(attach)
    assert "(the answer ends after request 4)" in details_of(attach)


def test_without_a_daemon_the_tracer_says_so(tmp_path: Path) -> None:
    tap = SocketTap("unix:///no/such/socket", tmp_path / "tap.sock")
    try:
        with pytest.raises((Unavailable, ConnectionError)):
            HttpTracer(tap).send("GET", "/_ping")
    finally:
        tap.close()


def test_the_feed_shows_events_as_they_happen_and_ends_when_it_is_closed(daemon: Client) -> None:
    feed = EventFeed(daemon)
    feed.start()
    daemon.containers.run("busybox", ["false"], detach=True, name="brief").wait()
    daemon.containers.get("brief").remove()
    assert _soon(lambda: "destroy" in feed.text())
    lines = [line.partition("  ")[2] for line in feed.text().splitlines() if " container " in line]
    assert lines == [f"container {action}  brief (busybox)" for action in ("create", "start", "die", "destroy")]
    feed.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "event feed"]
    daemon.containers.create("busybox", ["true"], name="unheard").remove()
    assert "unheard" not in feed.text()


def test_an_event_is_a_line_of_words() -> None:
    event = {"Type": "network", "Action": "connect", "time": 3723, "Actor": {"ID": "n" * 64, "Attributes": {}}}
    assert event_line(event) == "01:02:03  network connect  nnnnnnnnnnnn"


# ---------------------------------------------------------------- the widget


def _parts(tracer: HttpTracer) -> tuple[Any, ...]:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    bar, words, seen, steps, details, events = tracer.widget().children
    return *bar.children, words, *steps.children, seen, details, events


def test_the_button_sends_and_the_list_shows_it(tracer: HttpTracer) -> None:
    request, send, _, words, *_, seen, details, _ = _parts(tracer)
    request.value = ("GET", "/v1.99/info")
    send.click()
    assert "400 Bad Request" in words.value and "client version 1.99 is too new" in words.value
    assert seen.options == (("1  GET /v1.99/info -> 400 Bad Request", 1),) and "too new" in details.value


def test_what_another_client_asks_appears_by_itself(tracer: HttpTracer) -> None:
    *_, seen, details, _ = _parts(tracer)
    connect(tracer.tap.url).ping()
    connect(tracer.tap.url).images.list()
    assert _soon(lambda: [line for line, _ in seen.options if line.startswith("2  GET /images/json -> 200")])
    seen.value = 2
    assert "busybox:latest" in details.value


def test_buttons_walk_through_the_list(tracer: HttpTracer) -> None:
    *_, back, on, seen, details, _ = _parts(tracer)
    back.click()  # of nothing
    for path in ("/_ping", "/version", "/info"):
        connect(tracer.tap.url).transport.request("GET", path).read()
    assert _soon(lambda: len(seen.options) == 3 and "200" in seen.options[2][0])
    seen.value = 3
    back.click()
    assert seen.value == 2 and "GET /version" in details.value
    for _ in range(3):
        on.click()
    assert seen.value == 3 and "GET /info" in details.value


def test_following_events_can_be_switched_on_and_off(tracer: HttpTracer, daemon: Client) -> None:
    _, _, follow, *_, events = _parts(tracer)
    follow.value = True
    assert follow.description == "stop following"
    daemon.containers.create("busybox", ["true"], name="heard").remove()
    assert _soon(lambda: "container destroy  heard" in events.value)
    follow.value = False
    assert not [thread for thread in threading.enumerate() if thread.name == "event feed"]


def test_a_closed_widget_is_not_drawn_any_more(tracer: HttpTracer) -> None:
    box = pytest.importorskip("ipywidgets") and tracer.widget()
    box.close()
    assert connect(tracer.tap.url).ping()
    assert _soon(lambda: tracer.tap.exchanges and tracer.tap.exchanges[-1].ended_after)


def test_without_ipywidgets_the_tracer_is_text(tracer: HttpTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_tracer, "ipywidgets", None)
    assert tracer._repr_mimebundle_() == {"text/plain": "no request was seen yet"}
    tracer.send("GET", "/_ping")
    assert tracer._repr_mimebundle_()["text/plain"] == tracer.table()
