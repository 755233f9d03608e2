"""Lessons 10 and 11 in JupyterLab: run from top to bottom; the path explorer and the fate of a file by keyboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect

TOKEN = "browser-test"
LONG = 90_000  # ms: a whole lesson
THEMES = ["JupyterLab Light", "JupyterLab Dark"]


def _run(jupyter: str, page: Any, lesson: str, theme: str) -> Any:
    """Run all cells, wait for the last one, and find no error; the outputs."""
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/{lesson}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible()
    return page.locator(".jp-OutputArea-output")


def _run_above(page: Any, text: str) -> None:
    """Run the cells before the first one that holds a text."""
    page.locator(".jp-CodeCell", has_text=text).first.locator(".jp-InputPrompt").click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='notebook:run-all-above']").click()


def _no_error(page: Any) -> None:
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_10_a_packet_is_followed_by_keyboard(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    outputs = _run(jupyter, page, "10_networking.ipynb", theme)
    _run_above(page, "for target in (f")
    expect(outputs.get_by_role("button", name="send a packet")).to_be_visible(timeout=LONG)
    _no_error(page)
    source, target = outputs.locator("select:visible").nth(0), outputs.locator("select:visible").nth(1)
    said = outputs.locator(".jupyter-widgets p[role='status']")
    source.focus()
    page.keyboard.press("End")  # the last container: on the default network
    expect(outputs.get_by_text(re.compile("by its address only")).first).to_be_visible()
    target.focus()
    page.keyboard.press("Home")
    expect(said).to_contain_text("does not get through; a real ping: no answer. They agree.", timeout=20_000)
    picture = outputs.locator(".jupyter-widgets img[alt*='STOPS HERE']")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    outputs.get_by_role("button", name="send a packet").press("Enter")
    expect(said).to_contain_text("They agree.")
    picture.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(tmp_path / "paths.png"))) > 20_000
    page.locator("img[alt^='two networks and the default one']").last.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(tmp_path / "map.png"))) > 20_000


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_11_a_files_fate_is_seen_by_keyboard(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    outputs = _run(jupyter, page, "11_volumes_and_plugins.ipynb", theme)
    _run_above(page, "seen = {kind: fate.run(kind)")
    button = outputs.get_by_role("button", name="write a file")
    expect(button).to_be_visible(timeout=LONG)
    _no_error(page)
    outputs.locator("select:visible").first.focus()
    page.keyboard.press("End")  # memory
    button.press("Enter")
    picture = outputs.locator(".jupyter-widgets img[alt*='is it there after a restart: no']")
    expect(picture).to_be_visible(timeout=20_000)
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    outputs.get_by_role("checkbox").last.press("Space")
    button.press("Enter")
    expect(outputs.locator(".jupyter-widgets img[alt*='can root write it: no']")).to_be_visible(timeout=20_000)
    button.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(tmp_path / "fate.png"))) > 20_000
    page.locator("img[alt^='one volume, two containers']").last.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(tmp_path / "volumes.png"))) > 20_000
