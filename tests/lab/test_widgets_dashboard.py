"""The dashboard shows what daemons hold, and its buttons do it: seen through another client and in the widget."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.client.containers import Container
from minidocker.errors import NotFound
from minidocker.lab import session
from minidocker.lab.widgets import dashboard
from minidocker.lab.widgets.dashboard import Dashboard

FILTERS = {"label": ["minidocker.test.dashboard"]}


pytestmark = pytest.mark.needs_daemon


@pytest.fixture
def busy() -> Iterator[Container]:
    labels = session.begin(connect()) | {"minidocker.test.dashboard": ""}
    container = connect().containers.run(
        "busybox", ["sh", "-c", "echo hello; while :; do :; done"], detach=True, labels=labels, name="test-dashboard"
    )
    try:
        next(container.follow_logs())  # it has begun
        yield container
    finally:
        with contextlib.suppress(NotFound):
            container.remove(force=True)


@pytest.fixture
def board() -> Iterator[Dashboard]:
    made = Dashboard(connect(), filters=FILTERS)
    yield made
    made.close()


def _status(container: Container) -> str:
    container.reload()
    return container.status


def test_a_container_is_a_row_with_what_it_uses(board: Dashboard, busy: Container) -> None:
    row: tuple[str, ...] = ("", "", "", "", "")
    for _ in range(50):
        board.look()
        threading.Event().wait(0.2)
        [row] = board.table().rows
        if int(row[3].rstrip("%")) > 5:  # it spins
            break
    assert row[:2] == ("test-dashboard", "busybox") and row[2].startswith("Up")
    assert int(row[3].rstrip("%")) > 5
    assert "test-dashboard uses" in board.plot("test-dashboard").alt


def test_verbs_are_done_and_said(board: Dashboard, busy: Container) -> None:
    assert board.act("pause", "test-dashboard") == "Done: pause test-dashboard."
    assert _status(busy) == "paused"
    board.act("unpause", "test-dashboard")
    board.act("stop", "test-dashboard")
    assert _status(busy) == "exited"
    board.act("start", "test-dashboard")
    assert _status(busy) == "running"
    board.act("remove", "test-dashboard")
    assert board.containers() == {}
    assert "There is no container" in board.act("start", "test-dashboard")
    assert "There is no verb" in board.act("explode", "test-dashboard")


def test_logs_and_a_command_inside(board: Dashboard, busy: Container) -> None:
    assert board.logs("test-dashboard") == "hello\n"
    assert board.execute("test-dashboard", "cat /proc/1/comm") == "sh\n(exit status 0)"
    assert board.execute("test-dashboard", "sh -c 'exit 3'") == "(exit status 3)"
    assert board.execute("test-dashboard", "'").startswith("Refused")


def test_images_volumes_and_networks_are_lists(board: Dashboard) -> None:
    assert any("busybox:latest" in row[0] for row in board.table("images").rows)
    assert ("bridge", "bridge") in board.table("networks").rows
    assert all(len(row) == 2 for row in board.table("volumes").rows)
    assert "networks\n" in board.text()


def test_several_daemons_and_one_that_does_not_answer(busy: Container) -> None:
    board = Dashboard({"here": connect(), "gone": connect("unix:///nowhere/d.sock")}, filters=FILTERS)
    assert list(board.containers()) == ["here/test-dashboard"]
    assert "does not answer" in board.said


def _buttons(box: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in getattr(box, "children", ()):
        if hasattr(child, "click"):
            found[child.description] = child
        found |= _buttons(child)
    return found


def test_the_widget_is_clicked(board: Dashboard, busy: Container) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    box = board.widget()
    buttons = _buttons(box)
    buttons["logs"].click()
    buttons["stop"].click()
    assert _status(busy) == "exited"
    text = " ".join(str(child.value) for child in box.children[0].children if hasattr(child, "value"))
    assert "hello" in text and "Done: stop test-dashboard." in text and "Exited" in text
    buttons["remove"].click()
    assert not board.containers()


def test_watching_ends_with_the_widget(board: Dashboard, busy: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "PAUSE_SECONDS", 0.01)
    seen = threading.Event()
    board.watch(seen.set, lambda: None)
    assert seen.wait(10)
    thread = board._thread
    assert thread is not None
    board.close()
    assert not thread.is_alive()
