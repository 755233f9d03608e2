"""Exercise 08 swapped in: a container starts from what the solution pulled, and from nothing that a broken one did."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex08_registry/ex08_registry.ipynb"
NEEDED = ("ex08-imports", "ex08-challenge", "ex08-get", "ex08-pull", "ex08-swap")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a daemon is started"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: apt-get install it"),
]


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


def test_a_container_starts_from_what_the_solution_pulled() -> None:
    said = run_swap({})
    assert "started on your code" in said
    assert "GET /v2/app/manifests/1 401\nGET /token 200\nGET /v2/app/manifests/1 200\n" in said


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex08-challenge", "found.append((begun[1].lower(), parameters))", "pass", "no way to get a token"),
        ("ex08-get", 'headers["Authorization"] = f"Bearer {tokens[parts.netloc]}"', "pass", "PermissionError: .*: 401"),
        ("ex08-pull", "= blob\n", "= blob[:-1]\n", "invalid config: Input data was truncated"),
    ],
    ids=["reads no challenge", "forgets the token", "loses a byte"],
)  # fmt: skip
def test_none_starts_on_a_broken_part(cell: str, old: str, new: str, words: str) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
        run_swap({cell: (old, new)})
    assert re.search(words, failed.value.evalue), failed.value.evalue
