"""Exercise 14, swapped in: two daemons run what the learner's step decides, and do not on broken steps."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex14_compose/ex14_compose.ipynb"
NEEDED = ("ex14-imports", "ex14-step", "ex14-swap")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: two engines are started")


def run_swap(old: str = "", new: str = "") -> str:
    """Run the notebook's last part with `swap_it_in` set, and `old` in the answer replaced by `new`; its words."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id in NEEDED]
    assert [cell.id for cell in notebook.cells] == list(NEEDED)
    _, answer, swap = notebook.cells
    assert old in answer.source
    answer.source = answer.source.replace(old, new, 1)
    swap.source = swap.source.replace("swap_it_in = False", "swap_it_in = True")
    nbclient.NotebookClient(notebook, timeout=60, extra_arguments=["--log-level=ERROR"]).execute()
    outputs: list[Any] = swap.outputs
    return "".join(output.get("text", "") for output in outputs)


def test_two_daemons_run_what_is_desired_by_the_solution() -> None:
    said = run_swap()
    assert said.endswith("two daemons run what is desired, by your code\n")
    assert "[('restart', 'web-2')]" in said  # it was killed


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('or one["digest"] != wanted["digest"]', "", "AssertionError"),
        ("started.append(name)", "pass", "StopIteration"),
    ],
    ids=["sees no new configuration", "starts nothing"],
)
def test_they_do_not_on_a_broken_step(old: str, new: str, words: str) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
        print(run_swap(old, new))
    assert re.search(words, f"{failed.value.ename}: {failed.value.evalue}"), failed.value.evalue
