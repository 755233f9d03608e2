"""Exercise 02 swapped in: a container starts in the root that the solution enters, and not in a broken one's."""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex02_root/ex02_root.ipynb"
NEEDED = ("ex02-imports", "ex02-enter", "ex02-devices", "ex02-hide", "ex02-swap")

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
    devices = next(line for line in seen.splitlines() if line.startswith("devices:"))
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin"} <= set(devices.split())
    assert "Read-only file system" in seen


def test_the_container_has_what_the_learners_functions_make_and_no_more() -> None:
    seen = run_swap(
        {
            "ex02-devices": ("NODES.items()", "list(NODES.items())[:2]"),
            "ex02-hide": ("for path in readonly:", "for path in ():"),
        }
    )
    devices = next(line for line in seen.splitlines() if line.startswith("devices:"))
    assert "zero" in devices and "urandom" not in devices
    assert "Read-only file system" not in seen


def test_none_starts_if_the_new_root_is_no_mount() -> None:
    broken = ("mount(new_root, new_root, None, MountFlag.BIND | MountFlag.REC)", 'new_root = "/tmp"')
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="pivot_root"):
        run_swap({"ex02-enter": broken})
