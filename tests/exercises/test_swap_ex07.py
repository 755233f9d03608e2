"""Exercise 07 swapped in: containers start on the config.json that the solution writes, and not on a broken one's."""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex07_runtime/ex07_runtime.ipynb"
NEEDED = ("ex07-imports", "ex07-config", "ex07-swap")

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


def test_containers_start_on_the_solution() -> None:
    printed = run_swap({})
    assert "started on your code as swapped in /tmp with A=b" in printed
    assert "Read-only file system" in printed


def test_none_starts_if_the_arguments_are_wrong() -> None:
    broken = {"ex07-config": ("args = [*entrypoint, *command]", "args = [*entrypoint, *command][1:]")}
    with pytest.raises(nbclient.exceptions.CellExecutionError, match='exec: "-c": executable file not found'):
        run_swap(broken)


def test_what_the_function_forgets_the_engine_does_not_do() -> None:
    broken = {"ex07-config": ('bool(options.get("read_only"))', "False")}
    assert "Read-only file system" not in run_swap(broken)
