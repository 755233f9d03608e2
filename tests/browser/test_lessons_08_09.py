"""Lessons 08 and 09 in JupyterLab, as far as their widgets: a pull's bars and the Dockerfile editor, by keyboard."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect
pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")

TOKEN = "browser-test"
LONG = 60_000  # ms: half a lesson
THEMES = ["JupyterLab Light", "JupyterLab Dark"]


def _run_until(jupyter: str, page: Any, theme: str, lesson: str, text: str) -> Any:
    """Open a lesson and run all cells before the first one that holds a text; the outputs."""
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/{lesson}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=LONG)
    page.locator(".jp-CodeCell", has_text=text).first.locator(".jp-InputPrompt").click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='notebook:run-all-above']").click()
    return page.locator(".jp-OutputArea-output")


def _look(page: Any, widget: Any, place: Path) -> None:
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    widget.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(place / "widget.png"))) > 20_000


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_08_a_pull_is_shown_by_layers(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    outputs = _run_until(jupyter, page, theme, "08_registries.ipynb", "assert {bar.percent")
    button = outputs.get_by_role("button", name="pull", exact=True)
    expect(button).to_be_visible(timeout=LONG)
    button.press("Enter")
    expect(outputs.get_by_text("Downloaded newer image for")).to_be_visible(timeout=LONG)
    words = outputs.locator(".widget-html-content")  # beside the bars
    expect(words.filter(has_text="Pull complete")).to_have_count(2)
    expect(words.filter(has_text="Already exists")).to_have_count(1)
    expect(outputs.locator(".widget-hprogress")).to_have_count(3)
    _look(page, button, tmp_path)


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_09_the_editor_foretells_and_compares(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    outputs = _run_until(jupyter, page, theme, "09_building_images.ipynb", "editor.write(RECIPE")
    text = outputs.locator("textarea").first
    expect(text).to_be_visible(timeout=LONG)
    expect(outputs.get_by_text("Predicted: 0 of 5 steps will be made anew.")).to_be_visible()
    text.focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("ENV LAST=1\n")
    page.keyboard.press("Tab")  # an edit counts when the text is left
    expect(outputs.get_by_text("Predicted: 1 of 6 steps will be made anew.")).to_be_visible()
    outputs.get_by_role("button", name="build and compare").press("Enter")
    expect(outputs.get_by_text("The prediction was right for 5 steps and wrong for 0.")).to_be_visible(timeout=LONG)
    assert outputs.locator(".jupyter-widgets img[alt*='6 steps, 4 taken from the cache']").count() == 1
    _look(page, text, tmp_path)
