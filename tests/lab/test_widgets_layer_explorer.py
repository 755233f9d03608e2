"""The layer explorer, with its lists and without ipywidgets; and the layers of an image that the daemon has made."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.client.images import Image
from minidocker.lab import session
from minidocker.lab.props.image_archive import ImageArchive, layer_of
from minidocker.lab.widgets import layer_explorer
from minidocker.lab.widgets.layer_explorer import LayerExplorer


@pytest.fixture
def explorer() -> LayerExplorer:
    archive = ImageArchive()
    layers = [layer_of({"etc/motd": b"hello", "big": bytes(2_000_000)}), layer_of({"etc/.wh.motd": b"", "new": b"1"})]
    archive.add_image("demo", layers, history=[{"created_by": "ADD a"}, {"created_by": "RUN <b>"}])
    return LayerExplorer([archive.pack()], "demo")


def _widget(explorer: LayerExplorer) -> list[Any]:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    return list(explorer.widget().children)


def test_the_top_layer_is_shown_first_and_another_can_be_chosen(explorer: LayerExplorer) -> None:
    _, layers, _, names, _, words = _widget(explorer)
    assert layers.value == 2 and [value for _, value in names.options] == ["/etc/motd", "/new"]
    assert "layer 2: adds 1, removes 1" in words.value
    assert "<li>layer 1 adds it (5 bytes)</li><li>layer 2 removes it</li>" in words.value
    layers.value = 1
    assert [value for _, value in names.options] == ["/etc/motd", "/big"]
    names.value = "/big"
    assert "<code>/big</code>" in words.value and "2000000 bytes" in words.value


def test_buttons_move_through_the_entries_and_stop_at_the_ends(explorer: LayerExplorer) -> None:
    *_, names, steps, words = _widget(explorer)
    back, on = steps.children
    assert (back.description, on.description) == ("previous entry", "next entry")
    seen = [names.value]
    for button in (on, on, back, back):
        button.click()
        seen.append(names.value)
    assert seen == ["/etc/motd", "/new", "/new", "/etc/motd", "/etc/motd"]
    assert "made by <code>RUN &lt;b&gt;</code>" in words.value


def test_names_can_be_filtered(explorer: LayerExplorer) -> None:
    _, layers, contains, names, _, words = _widget(explorer)
    layers.value, contains.value = 1, "big"
    assert [label for label, _ in names.options] == ["+ adds /big  2000000 bytes"]
    contains.value = "nowhere"
    assert not names.options and "adds 2" in words.value


def test_the_picture_has_a_row_for_each_layer_with_words_and_numbers(explorer: LayerExplorer) -> None:
    picture = explorer.picture()
    assert picture.columns == ("layer", "bytes", "adds", "changes", "removes", "empties", "made by")
    assert picture.rows == (("1", "2000005", "2", "0", "0", "0", "ADD a"), ("2", "1", "1", "0", "1", "0", "RUN <b>"))
    assert picture.alt == "the image demo: 2 layers, base first, 2.0 MB in all" and "l1 -> l2" in picture.dot


def test_without_ipywidgets_the_picture_and_the_top_layer_are_shown(
    explorer: LayerExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_explorer, "ipywidgets", None)
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"].endswith("layer 2:\n- removes /etc/motd\n+ adds /new  1 bytes")
    assert set(bundle) <= {"text/plain", "text/html"}
    assert explorer.listing(1, "motd") == "+ adds /etc/motd  5 bytes" and explorer.listing(1, "zzz") == "nothing"


@pytest.fixture
def committed() -> Iterator[Image]:
    """An image with a layer upon busybox that deletes a file of it and adds one."""
    client = connect()
    container = client.containers.run(
        "busybox", ["sh", "-c", "rm /etc/shells; echo new > /etc/added"], detach=True, labels=session.begin(client)
    )
    container.wait()
    image = container.commit(f"test-explorer-{os.getpid()}")
    try:
        yield image
    finally:
        container.remove(force=True)
        client.images.remove(image.id, force=True)


@pytest.mark.needs_daemon
def test_an_image_of_the_daemon_is_read_as_it_was_made(committed: Image) -> None:
    found = LayerExplorer(committed.save(), committed.name.partition(":")[0])
    assert [layer.diff_id for layer in found.layers] == committed.attrs["RootFS"]["Layers"]  # type: ignore[index]
    top = {(entry.act, entry.path) for entry in found.entries(2)}
    assert {("removes", "/etc/shells"), ("adds", "/etc/added")} <= top
    assert found.story("/etc/shells")[-1] == "layer 2 removes it"
