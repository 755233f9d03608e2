"""Exercise 06 swapped in: a container starts on the solution's store and choice, and not on a broken one's."""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex06_images/ex06_images.ipynb"
NEEDED = ("ex06-imports", "ex06-store", "ex06-resolve", "ex06-swap")

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
    assert "started on your code" in run_swap({})


def test_none_starts_if_the_wrong_machines_image_is_chosen() -> None:
    broken = {"ex06-resolve": ("entries[min(ranked)[1]]", "entries[0]")}
    with pytest.raises(nbclient.exceptions.CellExecutionError, match='exec: "echo": executable file not found'):
        run_swap(broken)


def test_the_engine_does_not_even_load_an_image_if_blobs_come_back_changed() -> None:
    broken = {"ex06-store": ("content = file.read()", "content = file.read()[:-1]")}
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="Not yet: the engine cannot load the image busybox: .*was changed on disk"):
        run_swap(broken)
