"""Lesson 12 in JupyterLab: run from top to bottom; the board of capabilities worked by keyboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect

TOKEN = "browser-test"
LONG = 60_000  # ms: a whole lesson
THEMES = ["JupyterLab Light", "JupyterLab Dark"]


@pytest.mark.parametrize("theme", THEMES)
def test_lesson_12_runs_and_its_board_tries_what_is_ticked(
    jupyter: str, page: Any, theme: str, tmp_path: Path
) -> None:
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/12_security_and_rootless.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    last = page.locator(".jp-CodeCell .jp-InputPrompt").last
    errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    expect(last).to_have_text("[*]:")
    expect(last).not_to_have_text("[*]:", timeout=LONG)  # it has run, or a cell before it has failed
    assert errors.all_inner_texts() == []
    expect(last).to_have_text(re.compile(r"\[\d+\]:"))
    outputs = page.locator(".jp-OutputArea-output")
    outputs.get_by_role("button", name="none", exact=True).press("Enter")
    outputs.get_by_label("NET_ADMIN").press("Space")
    outputs.get_by_role("button", name="try", exact=True).press("Enter")
    expect(outputs.get_by_text("1 of 12 succeed; the kernel says CapEff 0000000000001000")).to_be_visible()
    outputs.get_by_role("button", name="try", exact=True).scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(tmp_path / "board.png"))) > 20_000
    picture = page.locator("img[alt^='privileges of']").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    assert len(page.screenshot(path=str(tmp_path / "privileges.png"))) > 20_000
