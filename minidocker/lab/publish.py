"""The course without a kernel: `./lab book`, a static book of everything, and `./lab slides`, four lessons for a wall.

Source  jupyter-book 1 and nbconvert documentation; reveal.js, which sphinx-revealjs carries.
Rules   - both are made from the same notebooks with the outputs that are recorded in them: nothing is run.
        - what is made needs no network: no script, style or font is fetched when it is read.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from minidocker.errors import MinidockerError, NotFound

CHECKOUT = Path(__file__).resolve().parents[2]
BOOK, SLIDES = CHECKOUT / ".lab" / "book", CHECKOUT / ".lab" / "slides"
IN_THE_BOOK = ("README.md", "notebooks/[0-9]*.ipynb", "docs/*.md", "exercises/README.md", "exercises/release/*/*.ipynb")
ON_THE_WALL = ("01", "04", "05", "09")
LEFT_OUT = re.compile(r"^#+ (questions|sources|check yourself)", re.IGNORECASE)
HEADING = re.compile(r"^#{1,2} ")
SLIDE_LINES, SLIDE_COLUMNS, PICTURE_LINES = 30, 105, 18


def book(target: Path = BOOK) -> Path:
    """Build the book; the path of its first page.

    Raises  MinidockerError: jupyter-book does not take it (its last lines are in the text). NotFound: it is absent.
    """
    program = Path(sys.executable).parent / "jupyter-book"
    if not program.exists():
        raise NotFound("jupyter-book is not installed: ./lab book installs it")
    source = target / "source"
    shutil.rmtree(target, ignore_errors=True)
    for pattern in IN_THE_BOOK:
        for path in sorted(CHECKOUT.glob(pattern)):
            copy = source / path.relative_to(CHECKOUT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    settings = CHECKOUT / "docs" / "book"
    done = subprocess.run(
        [
            program, "build", source, "--path-output", target,
            "--config", settings / "_config.yml", "--toc", settings / "_toc.yml",
        ],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    page = target / "_build" / "html" / "index.html"
    if done.returncode or not page.exists():
        raise MinidockerError("jupyter-book failed:\n  " + "\n  ".join((done.stdout + done.stderr).splitlines()[-8:]))
    return page


def slides(target: Path = SLIDES) -> list[Path]:
    """Make the slides of the lessons for a wall; their paths. Raises NotFound: sphinx-revealjs is absent."""
    from nbconvert import SlidesExporter

    found = importlib.util.find_spec("sphinx_revealjs")
    if found is None or found.origin is None:
        raise NotFound("sphinx-revealjs is not installed: ./lab slides installs it")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(Path(found.origin).parent / "_static" / "revealjs", target / "reveal")
    exporter = SlidesExporter(  # type: ignore[no-untyped-call]
        template_name="offline",
        extra_template_basedirs=[str(CHECKOUT / "docs" / "slides")],
        reveal_url_prefix="reveal",
        reveal_theme="white",
    )
    made = []
    for path in sorted(CHECKOUT.glob("notebooks/[0-9]*.ipynb")):
        if path.name[:2] not in ON_THE_WALL:
            continue
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        lay_out(notebook)
        text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        page = target / f"{path.stem}.slides.html"
        page.write_text(text)
        made.append(page)
    return made


def lay_out(notebook: nbformat.NotebookNode) -> None:
    """Say of each cell how it is shown: a heading begins a slide, and what does not fit on it goes on below.

    Questions and sources are not for a wall.
    """
    shown, filled = True, 0
    for cell in notebook.cells:
        begins = cell.cell_type == "markdown" and bool(HEADING.match(cell.source))
        if begins or cell.source.startswith("#"):
            shown = cell.cell_type == "code" or not LEFT_OUT.match(cell.source)
        lines = _lines(cell)
        kind = "skip" if not shown else "slide" if begins else "subslide" if filled + lines > SLIDE_LINES else "-"
        filled = lines if kind in ("slide", "subslide") else filled + lines
        cell.metadata["slideshow"] = {"slide_type": kind}


def _lines(cell: nbformat.NotebookNode) -> int:
    """About how many lines of a slide a cell takes."""
    texts = [cell.source] + [
        "\n" * PICTURE_LINES if "text/html" in output.get("data", {}) else output.get("text") or
        output.get("data", {}).get("text/plain", "")
        for output in cell.get("outputs", [])
    ]  # fmt: skip
    return 2 + sum(1 + len(line) // SLIDE_COLUMNS for text in texts for line in text.splitlines())


def main(arguments: list[str]) -> int:
    """`book` or `slides`; prints where they are."""
    for page in [book()] if arguments == ["book"] else slides():
        print(f"file://{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
