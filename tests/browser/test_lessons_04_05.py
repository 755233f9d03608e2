"""Lessons 04 and 05 in JupyterLab: run from top to bottom; the sliders and the layer explorer worked by keyboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect

TOKEN = "browser-test"
LONG = 45_000  # ms: a whole lesson
THEMES = ["JupyterLab Light", "JupyterLab Dark"]


def _open(jupyter: str, page: Any, lesson: str, theme: str) -> None:
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/{lesson}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)


def _run(page: Any, *, until: str | None = None) -> None:
    """Run all cells; or those before the first one that holds a text (it is selected and stays as it is)."""
    # "Idle" in the status bar: the kernel is connected. Before that, Run All moves to the last cell and runs nothing.
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible()
    if until:
        page.locator(".jp-CodeCell", has_text=until).first.locator(".jp-InputPrompt").click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(f".lm-Menu-item[data-command='{'notebook:run-all-above' if until else 'runmenu:run-all'}']").click()


def _no_error(page: Any) -> None:
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0


def _shot(page: Any, place: Path, name: str) -> None:
    assert len(page.screenshot(path=str(place / f"{name}.png"))) > 20_000


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_04_the_sliders_move_the_kernels_limits(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    _open(jupyter, page, "04_limits_cgroups.ipynb", theme)
    _run(page, until="max(sample.cpu_limit")
    outputs = page.locator(".jp-OutputArea-output")
    slider = outputs.get_by_role("slider").first
    expect(slider).to_be_visible(timeout=LONG)
    _no_error(page)
    slider.focus()
    page.keyboard.press("ArrowRight")  # one step of five
    expect(outputs.get_by_text("The engine wrote it: at most 65% of one processor.")).to_be_visible()
    outputs.get_by_role("button", name="use 8 MiB more").press("Enter")
    expect(outputs.get_by_text("It uses 8 MiB more.")).to_be_visible()
    outputs.get_by_role("button", name="watch", exact=True).press("Enter")
    expect(outputs.get_by_role("button", name="stop watching")).to_be_visible()
    curves = outputs.locator(".jupyter-widgets img[alt*='of one processor']").last
    before = curves.get_attribute("src")
    expect(curves).not_to_have_attribute("src", before)
    assert curves.evaluate("image => image.complete && image.naturalWidth > 300")
    curves.scroll_into_view_if_needed()
    _shot(page, tmp_path, "sliders")
    outputs.get_by_role("button", name="stop watching").press("Enter")
    expect(outputs.get_by_role("button", name="watch", exact=True)).to_be_visible()


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_05_runs_and_its_layers_can_be_walked(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    _open(jupyter, page, "05_layers_and_copy_on_write.ipynb", theme)
    _run(page)
    # The recorded outputs hold the lesson's last words too: the last cell's number tells that it has run now.
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").last).to_have_text(re.compile(r"\[\d+\]:"), timeout=LONG)
    _no_error(page)
    outputs = page.locator(".jp-OutputArea-output")
    expect(outputs.locator("li", has_text="layer 3 removes it")).to_be_attached()  # /big, the first entry of the top
    outputs.get_by_role("button", name="2", exact=True).press("Enter")
    expect(outputs.get_by_text("layer 2: adds 2")).to_be_visible()
    outputs.get_by_role("button", name="next entry").press("Enter")
    expect(outputs.locator("li", has_text="layer 2 adds it (8 bytes)")).to_be_visible()  # /etc/key
    outputs.get_by_role("button", name="next entry").scroll_into_view_if_needed()
    _shot(page, tmp_path, "explorer")
    pictures = page.locator(".jp-OutputArea-output img[alt]")
    assert pictures.count() >= 3
    for picture in pictures.all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
    page.locator("img[alt^='an overlay of']").first.scroll_into_view_if_needed()
    _shot(page, tmp_path, "overlay")
