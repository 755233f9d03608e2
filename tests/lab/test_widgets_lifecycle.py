"""A container's life by buttons: what they say is what the kernel shows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import NotFound
from minidocker.lab.props import bundles
from minidocker.lab.setup import base_image
from minidocker.lab.widgets import lifecycle
from minidocker.lab.widgets.lifecycle import Lifecycle

pytestmark = pytest.mark.needs_root


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Lifecycle]:
    try:
        busybox = base_image.find_busybox()
    except NotFound as error:
        pytest.skip(str(error))
    place = bundles.Place(tmp_path / "place")
    bundle = place.make("b", ["another", "command"], [base_image.layer_tar(busybox, ["bin/sleep"])])
    yield Lifecycle(place, bundle, "one", ["sleep", "600"])
    bundles.remove(place.directory)


def test_each_button_leads_to_the_next_state_and_wrong_ones_are_refused(life: Lifecycle) -> None:
    seen = []
    for button in ("start", "create", "create", "start", "pause", "resume", "delete", "kill", "start", "delete"):
        said = life.press(button)
        seen.append((button, life.state, "REFUSED" in said))
    assert seen == [
        ("start", "no container", True),
        ("create", "created", False),
        ("create", "created", True),
        ("start", "running", False),
        ("pause", "paused", False),
        ("resume", "running", False),
        ("delete", "running", True),
        ("kill", "stopped", False),
        ("start", "stopped", True),
        ("delete", "no container", False),
    ]


def test_the_process_that_is_shown_is_the_kernels(life: Lifecycle) -> None:
    assert life.process() == "no process" and "no state.json" in life.note()
    life.press("create")
    pid = life.place.runtime("state", "one").document()["pid"]
    assert life.process().startswith(f"process {pid}, child of ") and "minidocker-runtime" in life.process()
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    life.press("start")
    assert life.process().endswith("runs: sleep 600") and f'"pid": {pid}' in life.note()
    os.kill(pid, 9)
    life._await_end()
    life.press("look again")
    assert life.state == "stopped" and life.process() == "no process"


def test_the_buttons_draw_state_process_and_note(life: Lifecycle) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    row, area = life.widget().children
    buttons = {button.description: button for button in row.children}
    assert all(button.tooltip for button in buttons.values())
    buttons["start"].click()
    assert "REFUSED" in area.value and "no process" in area.value
    buttons["create"].click()
    assert "is in the state &#x27;created&#x27;" in area.value and "monitor_pid" in area.value
    buttons["start"].click()
    assert "runs: sleep 600" in area.value


def test_without_ipywidgets_the_same_is_text(life: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "ipywidgets", None)
    life.press("create")
    text = life._repr_mimebundle_()["text/plain"]
    assert "$ minidocker-runtime create --bundle b one" in text and "state: created" in text


def test_a_button_that_is_not_there_is_told(life: Lifecycle) -> None:
    with pytest.raises(ValueError, match="there is no button 'restart'"):
        life.press("restart")


def test_a_place_that_is_gone_is_told_and_the_buttons_stay(life: Lifecycle) -> None:
    bundles.remove(life.place.directory)
    assert "run the notebook from its first cell" in life.press("create")
    assert "state: no container" in life.text()
