"""Lesson 01 as a learner sees it: opened in JupyterLab, run from top to bottom, its buttons pressed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect

TOKEN = "browser-test"
LESSON = "01_a_container_is_a_process.ipynb"


def _run_all(page: Any) -> None:
    # "Idle" in the status bar: the kernel is connected. Before that, Run All moves to the last cell and runs nothing.
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()


def _choose_theme(jupyter: str, page: Any, theme: str) -> None:
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_lesson_01_runs_and_its_buttons_answer(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    _choose_theme(jupyter, page, theme)
    page.goto(f"{jupyter}/lab/tree/{LESSON}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    _run_all(page)
    outputs = page.locator(".jp-OutputArea-output")
    expect(outputs.filter(has_text="is gone, and so is the container")).to_be_visible()
    # The recorded outputs hold that text too: the last cell's number tells that it has run now.
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").last).to_have_text(re.compile(r"\[\d+\]:"))
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0

    pictures = page.locator(".jp-OutputArea-output img[alt]")
    assert pictures.count() == 2
    for picture in pictures.all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 100")

    outputs.get_by_role("button", name="yes").first.click()
    expect(outputs.get_by_text("You predict:").first).to_have_text("You predict: yes. Now run the next cell.")
    outputs.get_by_role("button", name="look again").click()
    expect(outputs.get_by_text("look number")).to_have_text("look number 2")
    expect(outputs.get_by_text("nothing to see: there is no process")).to_be_visible()  # the lesson has removed it

    pictures.first.scroll_into_view_if_needed()
    shot = page.screenshot(path=str(tmp_path / "lesson.png"))
    assert len(shot) > 20_000
