"""Lesson 13 in JupyterLab: run from top to bottom; the tracer sends, lists and follows events by keyboard."""

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
def test_lesson_13_runs_and_its_tracer_shows_the_wire(jupyter: str, page: Any, theme: str, tmp_path: Path) -> None:
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/13_client_and_daemon.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible()
    # All but what comes after the tracer: the room is closed there, and the daemon killed.
    page.locator(".jp-CodeCell", has_text="tracer.send(method, path)").first.locator(".jp-InputPrompt").click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='notebook:run-all-above']").click()
    outputs = page.locator(".jp-OutputArea-output")
    send = outputs.get_by_role("button", name="send")
    expect(send).to_be_visible(timeout=LONG)
    outputs.get_by_role("button", name="follow events").press("Enter")
    expect(outputs.get_by_text("nothing has happened yet")).to_be_visible()
    outputs.get_by_label("request", exact=True).select_option("GET /v1.99/info")
    send.press("Enter")
    expect(outputs.get_by_text("the answer: 400 Bad Request")).to_be_visible()
    expect(outputs.locator("pre[aria-label='request and answer']")).to_contain_text("client version 1.99 is too new")
    outputs.get_by_label("request", exact=True).select_option("DELETE /containers/nobody")
    send.press("Enter")
    seen = outputs.get_by_label("seen")
    expect(seen.locator("option")).to_have_count(2)
    send.scroll_into_view_if_needed()
    assert len(page.screenshot(path=str(tmp_path / "tracer.png"))) > 20_000
    outputs.get_by_role("button", name="stop following").press("Enter")
    picture = page.locator("img[alt^='minidocker run --rm']").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
    assert len(page.screenshot(path=str(tmp_path / "requests.png"))) > 20_000
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='notebook:run-all-below']").click()
    last = page.locator(".jp-CodeCell .jp-InputPrompt").last
    errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    expect(last).not_to_have_text("[*]:", timeout=LONG)  # it has run, or a cell before it has failed
    assert errors.all_inner_texts() == []
    expect(last).to_have_text(re.compile(r"\[\d+\]:"))
