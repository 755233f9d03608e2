"""Exercise 03 swapped in: `--init` containers run on the solution's init, and show what a broken one lacks."""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex03_init/ex03_init.ipynb"
NEEDED = ("ex03-imports", "ex03-init", "ex03-swap")

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


def test_a_container_starts_on_the_solution() -> None:
    seen = run_swap({})
    assert "started on your code: zombies: 0" in seen
    assert "stopped politely" in seen and "exit code: 3" in seen
    assert "tini" not in seen and "docker-init" not in seen


def test_a_container_cannot_be_stopped_if_init_passes_no_signal_on() -> None:
    seen = run_swap({"ex03-init": ("os.kill(child, number)", "pass")})
    assert "stopped politely" not in seen and "exit code: 137" in seen


def test_orphans_stay_as_zombies_if_init_does_not_reap_them() -> None:
    seen = run_swap({"ex03-init": ("os.waitpid(-1, os.WNOHANG)", "os.waitpid(child, os.WNOHANG)")})
    assert "started on your code: zombies: 1" in seen


def test_none_starts_if_init_ends_at_once() -> None:
    seen = run_swap({"ex03-init": ("while True:", "return 9\n    while True:")})
    assert "stopped politely" not in seen
