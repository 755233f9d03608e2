"""Steps of the tests in a browser: a theme, a notebook, run all of it; the outputs that can be read, and a picture."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]").expect

TOKEN = "browser-test"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
LONG = 60_000  # ms: a whole lesson
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
# Each text in an output with less contrast than asked for: colours of the text and of the first ground below it that
# is not transparent. What JupyterLab draws itself (buttons' own look, a disabled widget) is its own matter.
_FAINT = """
least => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const output of document.querySelectorAll('.jp-OutputArea-output')) {
    const walk = document.createTreeWalker(output, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const node = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
      if (!text || !node.offsetParent || node.closest('button, select, option, style, .lm-TabBar')) continue;
      const [one, two] = [light(parts(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
      if ((one + 0.05) / (two + 0.05) < least) found.push([text.slice(0, 60), (one + 0.05) / (two + 0.05)]);
    }
  }
  return found;
}
"""


def open_notebook(jupyter: str, page: Any, name: str, theme: str) -> Any:
    """Open a notebook in a theme; its outputs."""
    address = f"{jupyter}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={TOKEN}"
    assert page.request.put(address, data={"raw": json.dumps({"theme": theme})}).ok
    page.goto(f"{jupyter}/lab/tree/{name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    # "Idle" in the status bar: the kernel is connected. Before that, Run All moves to the last cell and runs nothing.
    expect(page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=LONG)
    return page.locator(".jp-OutputArea-output")


def run_all(page: Any) -> None:
    """Run all cells, and wait until the last one has run. Fails with the errors, if a cell has one."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    # The recorded outputs hold a lesson's last words too: its last cell's number tells that it has run now.
    last = page.locator(".jp-CodeCell .jp-InputPrompt").last
    errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    expect(last).to_have_text("[*]:")
    expect(last).not_to_have_text("[*]:", timeout=LONG)  # it has run, or a cell before it has failed
    assert errors.all_inner_texts() == []
    expect(last).to_have_text(re.compile(r"\[\d+\]:"))


def choose_theme(page: Any, theme: str) -> None:
    """Change the theme of a notebook that is open, by JupyterLab's menu; its kernel and widgets stay."""
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).hover()
    page.locator(".lm-Menu-itemLabel").get_by_text(theme, exact=True).click()
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)


def faint_texts(page: Any) -> list[Any]:
    """Texts in outputs that are hard to read in the present theme, with their contrast."""
    found: list[Any] = page.evaluate(_FAINT, LEAST_CONTRAST)
    return found


def pictures(page: Any) -> int:
    """How many pictures with a description there are. Fails if one is not drawn."""
    images = page.locator(".jp-OutputArea-output img[alt]")
    for image in images.all():
        assert image.evaluate("image => image.complete && image.naturalWidth > 100"), image.get_attribute("alt")
    return int(images.count())


def look(part: Any, place: Path, name: str) -> None:
    """A screenshot of a part of the page, for a person to look at."""
    part.scroll_into_view_if_needed()
    place.mkdir(parents=True, exist_ok=True)
    assert len(part.screenshot(path=str(place / f"{name}.png"))) > 3_000
