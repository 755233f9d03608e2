"""Lessons 06 and 07 in JupyterLab: run from top to bottom; the browser of blobs and a container's life by keyboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect

TOKEN = "browser-test"
LONG = 60_000  # ms: a whole lesson
THEMES = ["JupyterLab Light", "JupyterLab Dark"]


def _run(jupyter: str, page: Any, lesson: str, theme: str) -> Any:
    """Open a lesson in a theme and run all of it; the outputs."""
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/{lesson}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    # "Idle" in the status bar: the kernel is connected. Before that, Run All moves to the last cell and runs nothing.
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=LONG)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    # The recorded outputs hold the lesson's last words too: the last cell's number tells that it has run now.
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").last).to_have_text(re.compile(r"\[\d+\]:"), timeout=LONG)
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    return page.locator(".jp-OutputArea-output")


def _shot(page: Any, widget: Any, place: Path) -> None:
    widget.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(place / "widget.png"))) > 20_000


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_06_descriptors_are_followed_to_a_changed_bit(
    jupyter: str, page: Any, theme: str, tmp_path: Path
) -> None:
    outputs = _run(jupyter, page, "06_what_is_an_image.ipynb", theme)
    browser = outputs.locator(".widget-vbox", has=page.locator("select")).first
    browser.get_by_role("button", name="go to layer").press("Enter")
    expect(browser.get_by_text("bin/busybox").first).to_be_attached()
    expect(browser.get_by_text("They agree.")).to_be_attached()
    browser.get_by_role("checkbox", name="change one bit").press("Space")
    expect(browser.get_by_text("THEY DIFFER")).to_be_attached()
    _shot(page, browser, tmp_path)
    browser.get_by_role("combobox").select_option(label="index.json")
    expect(browser.get_by_text("it has no digest, and nothing vouches for it")).to_be_attached()


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_07_a_container_is_led_through_its_life(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    outputs = _run(jupyter, page, "07_the_runtime.ipynb", theme)
    life = outputs.locator(".widget-vbox", has=page.get_by_role("button", name="create", exact=True)).first
    for button, words in (
        ("start", "REFUSED (exit status 1): container 'third' does not exist"),
        ("create", "third is in the state 'created' with process"),
        ("start", "runs: sleep 600"),
        ("delete", "REFUSED (exit status 1): cannot delete container third"),
    ):
        life.get_by_role("button", name=button, exact=True).press("Enter")
        expect(life.get_by_text(words).first).to_be_attached(timeout=LONG)
    picture = life.locator("img[alt*='running']")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    _shot(page, life, tmp_path)
    life.get_by_role("button", name="kill", exact=True).press("Enter")
    expect(life.get_by_text("third is in the state 'stopped'").first).to_be_attached(timeout=LONG)
