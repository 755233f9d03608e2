"""The static book, and the slides: made from the recorded notebooks, and read without a network."""

import re
from pathlib import Path

import nbformat
import pytest

from minidocker.lab import publish

OUTSIDE = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["']https?://""")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jupyter_book", reason="needs jupyter-book: pip install minidocker[book]")
    return publish.book(tmp_path_factory.mktemp("book") / "out").parent


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    pytest.importorskip("sphinx_revealjs", reason="needs sphinx-revealjs: pip install minidocker[book]")
    return publish.slides(tmp_path_factory.mktemp("slides") / "out")


def test_every_lesson_is_a_page_of_the_book_with_its_pictures(book: Path) -> None:
    for path in publish.CHECKOUT.glob("notebooks/[0-9]*.ipynb"):
        page = (book / "notebooks" / f"{path.stem}.html").read_text()
        assert page.count("The same as a table") == path.read_text().count("The same as a table"), path
        assert f"notebooks/{path.stem}.html" in (book / "README.html").read_text()


def test_four_lessons_are_slides(slides: list[Path]) -> None:
    assert [page.name[:2] for page in slides] == list(publish.ON_THE_WALL)
    assert all(page.read_text().count("<section>") > 10 for page in slides)


def test_slides_fetch_nothing_from_outside(slides: list[Path]) -> None:
    for page in slides:
        text = page.read_text()
        assert not OUTSIDE.search(text), page
        for local in re.findall(r'(?:src|href)="(reveal/[^"]+)"', text):
            assert (page.parent / local).exists(), local


def test_a_heading_begins_a_slide_and_what_does_not_fit_goes_below() -> None:
    cells = [
        nbformat.v4.new_markdown_cell("## 1. A part"),
        nbformat.v4.new_code_cell("x = 1"),
        nbformat.v4.new_code_cell("x\n" * publish.SLIDE_LINES),
        nbformat.v4.new_markdown_cell("## Sources\n- man pages"),
        nbformat.v4.new_markdown_cell("# The next"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    publish.lay_out(notebook)
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in notebook.cells]
    assert kinds == ["slide", "-", "subslide", "skip", "slide"]
