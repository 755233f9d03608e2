"""The editor shows what will happen, builds, and compares; by buttons and without them."""

from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.client.client import Client
from minidocker.lab import room
from minidocker.lab.widgets import dockerfile_editor
from minidocker.lab.widgets.dockerfile_editor import DockerfileEditor

pytestmark = pytest.mark.needs_root
WIDGET = "application/vnd.jupyter.widget-view+json"
FILES = {"Dockerfile": "FROM scratch\nENV A=1\nCOPY f /f\n", "f": "1"}


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[room.Room, Client]]:
    made = room.Room()
    yield made, made.daemon(image="")
    made.close()


@pytest.fixture
def editor(shop: tuple[room.Room, Client], request: pytest.FixtureRequest) -> DockerfileEditor:
    made, client = shop
    name = request.node.name.replace("[", "-").replace("]", "")
    files = {**FILES, "Dockerfile": FILES["Dockerfile"].replace("A=1", f"A={name}")}  # a cache of its own
    return DockerfileEditor(client, made.folder(name, files))


def _parts(editor: DockerfileEditor) -> tuple[Any, Any, Any, Any, Any]:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    files, text, buttons, area = editor.widget().children
    return files, text, *buttons.children, area


def test_editing_foretells_and_the_build_button_compares(editor: DockerfileEditor) -> None:
    _, text, _, build, area = _parts(editor)
    assert "2 of 3 steps will be made anew" in area.value
    build.click()
    assert "right for 2 steps and wrong for 0" in area.value and "<img alt=" in area.value
    text.value = text.value.replace("/f", "/g")
    assert editor.read() == text.value and "1 of 3 steps will be made anew" in area.value
    build.click()
    assert [row[2:3] + row[4:] for row in editor.rows()] == [
        ("", "", ""),
        ("HIT", "HIT", "yes"),
        ("MISS", "MISS", "yes"),
    ]


def test_another_file_can_be_chosen_and_edited(editor: DockerfileEditor) -> None:
    editor.build()
    files, text, _, _, area = _parts(editor)
    assert files.options == ("Dockerfile", "f")
    files.value = "f"
    assert text.value == "1" and "right for 2 steps" in area.value  # choosing a file is no edit
    text.value = "2"
    assert editor.read("f") == "2" and "what is copied has changed" in area.value


def test_what_code_changes_is_seen_on_the_screen(editor: DockerfileEditor) -> None:
    _, text, predict, _, area = _parts(editor)
    editor.write("FROM scratch\nENV B=2\n")
    assert text.value == "FROM scratch\nENV B=2\n"
    predict.click()
    assert "1 of 2 steps will be made anew" in area.value


@pytest.mark.parametrize(
    ("text", "words"),
    [("FROM scratch\nCOPPY a\n", "unknown instruction: COPPY"), ("FROM scratch\nCOPY no /no\n", "file not found")],
)
def test_a_mistake_is_shown_as_words(editor: DockerfileEditor, text: str, words: str) -> None:
    _, area_text, _, build, area = _parts(editor)
    area_text.value = text
    assert words in area.value
    build.click()
    assert words in area.value and editor.verdict().startswith("Error: ")


def test_without_ipywidgets_the_prediction_is_text(editor: DockerfileEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dockerfile_editor, "ipywidgets", None)
    bundle = editor._repr_mimebundle_()
    assert set(bundle) == {"text/plain"}
    assert "COPY f /f" in bundle["text/plain"] and "MISS" in bundle["text/plain"]


def test_with_ipywidgets_the_text_is_there_for_readers_without_a_kernel(editor: DockerfileEditor) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    assert set(editor._repr_mimebundle_()) >= {WIDGET, "text/plain"}
