"""Each kind of widget in JupyterLab, in one notebook: worked by keyboard, readable in both themes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab import widgets
from minidocker.lab.setup.services import daemon_answers
from tests.browser import notebook
from tests.browser.notebook import DARK, LIGHT, LONG, TOKEN, expect

pytestmark = [
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: apt-get install it"),
    pytest.mark.skipif(not daemon_answers(), reason="needs the course's daemon: ./lab setup"),
]
NAME = "every_widget.ipynb"
BEGIN = """
import minidocker
from minidocker.lab import diagrams, room, session, widgets
from minidocker.lab.props import bundles
from minidocker.lab.props.image_archive import ImageArchive, layer_of
from minidocker.lab.widgets.capability_board import CapabilityBoard
from minidocker.lab.widgets.cgroup_sliders import CgroupSliders
from minidocker.lab.widgets.dashboard import Dashboard
from minidocker.lab.widgets.dockerfile_editor import DockerfileEditor
from minidocker.lab.widgets.file_fate import FileFate
from minidocker.lab.widgets.http_tracer import HttpTracer
from minidocker.lab.widgets.image_browser import browse
from minidocker.lab.widgets.layer_explorer import LayerExplorer
from minidocker.lab.widgets.lifecycle import Lifecycle
from minidocker.lab.widgets.path_explorer import PathExplorer
from minidocker.lab.widgets.pull_progress import PullProgress
from minidocker.lab.props.socket_tap import SocketTap

client = minidocker.connect()
mine = session.begin(client)
place = room.begin()
daemon = place.daemon()

def busy(name, client=daemon, **options):
    script = "echo hello; while :; do sleep 1; done"
    made = client.containers.run("busybox", ["sh", "-c", script], detach=True, name=name, labels=mine, **options)
    made.reload()
    return made

first = busy("first")
archive = ImageArchive()
layers = [layer_of({"etc/motd": b"hello", "big": bytes(2_000_000)}), layer_of({"etc/.wh.motd": b"", "new": b"1"})]
archive.add_image("demo", layers, history=[{"created_by": "ADD a"}, {"created_by": "RUN rm /etc/motd"}])
"""
# Kind of widget (its module) -> the cell that shows one.
CELLS = {
    "prediction": 'widgets.predict("What does `hostname` print?", ["the host\'s name", "another name"])',
    "refreshed": 'widgets.Refreshed(lambda: diagrams.process_tree(first.attrs["State"]["Pid"], "a container"))',
    "cgroup_sliders": 'CgroupSliders(busy("limited", nano_cpus=500_000_000, memory_bytes=64 << 20,\n'
    "                   memory_swap_bytes=64 << 20, shm_size_bytes=256 << 20))",
    "layer_explorer": 'LayerExplorer([archive.pack()], "demo")',
    "image_browser": "browse(archive)",
    "lifecycle": 'boxes = bundles.begin(mine)\nbundle = boxes.make("bundle", ["true"], first.export())\n'
    'Lifecycle(boxes, bundle, "third", ["sleep", "600"])',
    "pull_progress": 'recipe = "FROM scratch\\nCOPY big /\\nCOPY Dockerfile /\\n"\n'
    'folder = place.folder("app", {"Dockerfile": recipe, "big": "x" * 1_000_000})\n'
    'name = f"{place.registry()}/app:1"\ndaemon.images.build(str(folder), tag=name)\n'
    "daemon.images.push(name)\ndaemon.images.remove(name)\nPullProgress(daemon, name)",
    "dockerfile_editor": 'recipe = "FROM busybox\\nENV A=1\\nCOPY note /note\\n"\n'
    'DockerfileEditor(daemon, place.folder("recipe", {"Dockerfile": recipe, "note": "x"}))',
    "dashboard": 'Dashboard({"north": daemon})',
    "http_tracer": 'HttpTracer(SocketTap(daemon.transport.url, place.path / "tap.sock"))',
    "path_explorer": 'here = [busy(f"{place.path.name}-{number}", client) for number in (1, 2)]\nPathExplorer(here)',
    "file_fate": 'FileFate(daemon, place.folder("fate"), mine)',
    "capability_board": "CapabilityBoard(daemon, mine)",
}
NO_WIDGET = {"__init__", "shown", "dashboard_page"}


@pytest.fixture(scope="module")
def lab(jupyter: str, page: Any) -> Iterator[Any]:
    """The page with the notebook, run; light."""
    sources = [BEGIN, *CELLS.values()]
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{at}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for at, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    body = {"type": "notebook", "format": "json", "content": content}
    assert page.request.put(f"{jupyter}/api/contents/{NAME}?token={TOKEN}", data=json.dumps(body)).ok
    notebook.open_notebook(jupyter, page, NAME, LIGHT)
    notebook.run_all(page)
    yield page


def _widget(page: Any, kind: str) -> Any:
    return page.locator(".jp-CodeCell").nth(1 + list(CELLS).index(kind)).locator(".jp-OutputArea-output")


def _press(widget: Any, *names: str) -> None:
    for name in names:
        widget.get_by_role("button", name=name, exact=True).press("Enter")


def test_no_kind_of_widget_is_forgotten() -> None:
    kinds = {path.stem for path in Path(widgets.__file__).parent.glob("*.py")} - NO_WIDGET
    assert kinds == set(CELLS)


def test_a_prediction_is_taken_down(lab: Any) -> None:
    widget = _widget(lab, "prediction")
    widget.get_by_role("button", name="another name").press("Space")
    expect(widget.get_by_text("You predict:")).to_have_text("You predict: another name. Now run the next cell.")


def test_a_picture_is_drawn_again(lab: Any) -> None:
    widget = _widget(lab, "refreshed")
    _press(widget, "look again")
    expect(widget.get_by_text("look number")).to_have_text("look number 2")


def test_sliders_move_the_kernels_limits(lab: Any) -> None:
    widget = _widget(lab, "cgroup_sliders")
    widget.get_by_role("slider").first.focus()
    lab.keyboard.press("ArrowRight")
    expect(widget.get_by_text("The engine wrote it: at most 55% of one processor.")).to_be_visible()
    _press(widget, "use 8 MiB more", "watch")
    expect(widget.get_by_role("button", name="stop watching")).to_be_visible()
    curves = widget.locator("img[alt*='of one processor']")
    before = curves.get_attribute("src")
    expect(curves).not_to_have_attribute("src", before)
    _press(widget, "stop watching")


def test_layers_are_walked(lab: Any) -> None:
    widget = _widget(lab, "layer_explorer")
    expect(widget.get_by_text("layer 2: adds 1, removes 1")).to_be_visible()
    _press(widget, "next entry")
    expect(widget.locator("li", has_text="layer 2 adds it")).to_be_visible()
    _press(widget, "previous entry")
    expect(widget.locator("li", has_text="layer 2 removes it")).to_be_visible()
    _press(widget, "1 (base)")
    expect(widget.get_by_text("layer 1: adds 2")).to_be_visible()


def test_a_changed_bit_is_told(lab: Any) -> None:
    widget = _widget(lab, "image_browser")
    expect(widget.get_by_text("They agree.")).to_be_visible()
    widget.get_by_role("checkbox", name="change one bit").press("Space")
    expect(widget.get_by_text("THEY DIFFER")).to_be_visible()
    widget.get_by_role("combobox").select_option(label="index.json")
    expect(widget.get_by_text("it has no digest, and nothing vouches for it")).to_be_visible()


def test_a_container_is_led_through_its_life(lab: Any) -> None:
    widget = _widget(lab, "lifecycle")
    for button, words in (
        ("start", "REFUSED (exit status 1): container 'third' does not exist"),
        ("create", "third is in the state 'created' with process"),
        ("start", "runs: sleep 600"),
        ("delete", "REFUSED (exit status 1): cannot delete container third"),
    ):
        _press(widget, button)
        expect(widget.get_by_text(words).first).to_be_attached()


def test_a_pull_is_shown(lab: Any) -> None:
    widget = _widget(lab, "pull_progress")
    _press(widget, "pull")
    expect(widget.get_by_text("Downloaded newer image for")).to_be_visible(timeout=LONG)
    expect(widget.get_by_text("Pull complete")).to_have_count(2)


def test_the_editor_foretells_and_compares(lab: Any) -> None:
    widget = _widget(lab, "dockerfile_editor")
    widget.locator("textarea").focus()
    lab.keyboard.press("Control+End")
    lab.keyboard.type("ENV LAST=1\n")
    lab.keyboard.press("Tab")  # an edit counts when the text is left
    expect(widget.get_by_text("Predicted: 3 of 4 steps will be made anew.")).to_be_visible()
    _press(widget, "build and compare")
    expect(widget.get_by_text("The prediction was right for 3 steps and wrong for 0.")).to_be_visible(timeout=LONG)


def test_the_dashboard_shows_logs_and_runs_commands(lab: Any) -> None:
    widget = _widget(lab, "dashboard")
    _press(widget, "north/first", "watch")
    curves = widget.locator("img[alt^='north/first uses']")
    before = curves.get_attribute("src")
    expect(curves).not_to_have_attribute("src", before)
    _press(widget, "stop watching")
    _press(widget, "logs")
    expect(widget.locator("pre", has_text="hello")).to_be_visible()
    command = widget.get_by_label("command")
    command.fill("echo it works")
    command.press("Tab")
    _press(widget, "run it inside")
    expect(widget.locator("pre", has_text="it works")).to_be_visible()
    widget.get_by_role("tab", name="Images").click()
    expect(widget.get_by_text("busybox:latest").first).to_be_visible()
    widget.get_by_role("tab", name="Containers").click()


def test_requests_and_events_are_seen(lab: Any) -> None:
    widget = _widget(lab, "http_tracer")
    _press(widget, "follow events")
    widget.get_by_label("request", exact=True).select_option("GET /v1.99/info")
    _press(widget, "send")
    expect(widget.get_by_text("the answer: 400 Bad Request")).to_be_visible()
    expect(widget.locator("pre[aria-label='request and answer']")).to_contain_text("client version 1.99 is too new")
    _press(widget, "stop following")


def test_a_packet_is_followed(lab: Any) -> None:
    widget = _widget(lab, "path_explorer")
    _press(widget, "send a packet")
    expect(widget.get_by_text("it gets through; a real ping: answered. They agree.")).to_be_visible()
    widget.get_by_label("to").select_option("an address outside, 203.0.113.1")
    expect(widget.get_by_text("a real ping: not tried")).to_be_visible()


def test_a_files_fate_is_told(lab: Any) -> None:
    widget = _widget(lab, "file_fate")
    widget.get_by_label("into").select_option("a volume")
    _press(widget, "write a file")
    told = "is it there in a new container: yes; is it in an image made by commit: no"
    expect(widget.locator(f"img[alt*='{told}']")).to_be_visible(timeout=LONG)


def test_capabilities_are_tried(lab: Any) -> None:
    widget = _widget(lab, "capability_board")
    _press(widget, "none")
    widget.get_by_role("checkbox", name="CHOWN", exact=True).press("Space")
    _press(widget, "try")
    expect(widget.get_by_text("1 of 12 succeed; the kernel says CapEff 0000000000000001")).to_be_visible(timeout=LONG)
    _press(widget, "the default", "try")
    expect(widget.get_by_text("8 of 12 succeed")).to_be_visible(timeout=LONG)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_all_can_be_read_in(lab: Any, theme: str, tmp_path: Path) -> None:
    """After they were used: the tests above have filled them."""
    notebook.choose_theme(lab, theme)
    assert notebook.faint_texts(lab) == []
    assert notebook.pictures(lab) >= 5
    for kind in CELLS:
        notebook.look(_widget(lab, kind), tmp_path, kind)
