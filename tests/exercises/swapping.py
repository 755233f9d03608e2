"""An exercise's last part, run as a learner runs it: the answers swapped into an engine of its own."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

COURSE = Path(__file__).resolve().parents[2] / "exercises"
SECONDS = 90
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an engine is started")

Changes = dict[str, tuple[str, str]]  # ID of a cell -> text to replace there once, and by what


@dataclass(frozen=True)
class Swap:
    """The solution of `exercise`; `cells`: the IDs of those that the last part needs, which is the last of them."""

    exercise: str
    cells: tuple[str, ...]

    def run(self, changes: Changes | None = None) -> str:
        """Run them with `swap_it_in` set; what the last one printed."""
        notebook = nbformat.read(COURSE / f"source/{self.exercise}/{self.exercise}.ipynb", as_version=4)
        notebook.cells = [cell for cell in notebook.cells if cell.id in self.cells]
        assert [cell.id for cell in notebook.cells] == list(self.cells)
        for cell in notebook.cells:
            old, new = (changes or {}).get(cell.id, ("", ""))
            assert old in cell.source
            cell.source = cell.source.replace(old, new, 1).replace("swap_it_in = False", "swap_it_in = True")
        nbclient.NotebookClient(notebook, timeout=SECONDS, extra_arguments=["--log-level=ERROR"]).execute()
        outputs: list[Any] = notebook.cells[-1].outputs
        return "".join(output.get("text", "") for output in outputs)

    def failure(self, changes: Changes) -> str:
        """Run them with answers that must not do: the error that the learner sees."""
        with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
            print(self.run(changes))
        return f"{failed.value.ename}: {failed.value.evalue}"
