"""Lessons as a learner sees them: opened in JupyterLab, run from top to bottom, and readable in the chosen theme."""

from pathlib import Path
from typing import Any

import pytest

from minidocker.lab.setup.services import daemon_answers
from tests.browser.notebook import DARK, LIGHT, expect, faint_texts, look, open_notebook, pictures, run_all

pytestmark = pytest.mark.skipif(not daemon_answers(), reason="needs the course's daemon: ./lab setup")


@pytest.mark.parametrize(
    ("lesson", "theme"),
    [
        ("01_a_container_is_a_process", LIGHT),
        ("05_layers_and_copy_on_write", DARK),
        ("10_networking", LIGHT),
        ("13_client_and_daemon", DARK),
    ],
)
def test_a_lesson_runs_and_can_be_read(jupyter: str, page: Any, lesson: str, theme: str, tmp_path: Path) -> None:
    outputs = open_notebook(jupyter, page, f"{lesson}.ipynb", theme)
    run_all(page)
    assert pictures(page) >= 1
    assert faint_texts(page) == []
    predicted = outputs.get_by_text("You predict:").first
    choice = outputs.locator(".widget-toggle-button").first
    choice.press("Space")
    expect(predicted).to_have_text(f"You predict: {choice.inner_text()}. Now run the next cell.")
    for number, output in enumerate(outputs.filter(has=page.locator("img[alt], .jupyter-widgets")).all()):
        look(output, tmp_path, f"{number:02}")
