"""Exercise 09 swapped in: an image is built by the solution's parts and a container starts, and not by broken ones."""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex09_build/ex09_build.ipynb"
NEEDED = ("ex09-imports", "ex09-parse", "ex09-expand", "ex09-key", "ex09-commit", "ex09-swap")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a daemon is started")


def run_swap(changes: dict[str, tuple[str, str]]) -> str:
    """Run the notebook's last part with `swap_it_in` set; what it printed.

    changes  grade_id of a cell -> text to replace there, and by what.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id in NEEDED]
    for cell in notebook.cells:
        old, new = changes.get(cell.id, ("", ""))
        assert old in cell.source
        cell.source = cell.source.replace(old, new, 1).replace("swap_it_in = False", "swap_it_in = True")
    nbclient.NotebookClient(notebook, timeout=60, extra_arguments=["--log-level=ERROR"]).execute()
    outputs: list[Any] = notebook.cells[-1].outputs
    return "".join(output.get("text", "") for output in outputs)


def test_both_builds_are_right_on_the_solution() -> None:
    assert run_swap({}) == "started on your code: first\nstarted on your code: second\n"


def test_a_key_that_never_changes_builds_yesterdays_image() -> None:
    broken = {
        "ex09-key": ("return hashlib.sha256(json.dumps([parent, text, parts]).encode()).hexdigest()", 'return ""')
    }
    assert run_swap(broken) == "started on your code: first\nstarted on your code: first\n"


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        (
            "ex09-parse",
            "found.append(_instruction(start, begun + line))",
            "found.append(_instruction(number, line))",
            "line 6: unknown instruction WHOSE=YOUR",
        ),
        (
            "ex09-expand",
            "return value or word, end",
            "return value, end",
            "cat /srv/note > /copied. returned a non-zero code",
        ),
        (
            "ex09-commit",
            'document["rootfs"]["diff_ids"].append(diff_id)',
            "pass",
            "history tells of 2 layers, rootfs of 1",
        ),
    ],
    ids=["loses the lines before", "knows no default", "loses the layer"],
)
def test_no_container_starts_on_a_broken_part(cell: str, old: str, new: str, words: str) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=words):
        print(run_swap({cell: (old, new)}))
