"""The capstone, live: a registry and three daemons come through three faults by the solution, not by broken answers.

Nothing is left, also where a cell fails, or the kernel is killed while one of the daemons is dead.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab.room import HOME
from minidocker.lab.setup.services import daemon_answers, wait_until
from tests.conftest import Leftovers

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[notebooks]")

NOTEBOOK = Path(__file__).resolve().parents[2] / "exercises/source/ex15_capstone/ex15_capstone.ipynb"
ANSWERS = ("ex15-recipe", "ex15-pin", "ex15-damaged", "ex15-next")
SECONDS = 60

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: daemons are started"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: apt-get install it"),
    pytest.mark.skipif(not daemon_answers(), reason="needs the course's daemon: ./lab setup"),
]


def _cells(changes: dict[str, tuple[str, str]], room: Path) -> Any:
    """The notebook with its answers and its live part, `live` set, and some text of some answers exchanged.

    room  where it writes down which room it has.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    live = [cell.id for cell in notebook.cells if cell.id.startswith("ex15-live") and cell.cell_type == "code"]
    notebook.cells = [cell for cell in notebook.cells if cell.id in ("ex15-imports", *ANSWERS, *live)]
    for cell in notebook.cells:
        old, new = changes.get(cell.id, ("", ""))
        assert old in cell.source
        cell.source = cell.source.replace(old, new, 1).replace("live = False", "live = True")
    first_live = next(number for number, cell in enumerate(notebook.cells) if cell.id == live[0])
    note = nbformat.v4.new_code_cell(f"open({str(room)!r}, 'w').write(place.path.name)")
    notebook.cells.insert(first_live + 1, note)
    return notebook


def _run(room: Path, changes: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Run it; what each cell printed. Raises CellExecutionError."""
    notebook = _cells(changes, room)
    nbclient.NotebookClient(notebook, timeout=SECONDS, extra_arguments=["--log-level=ERROR"]).execute()
    return {cell.id: "".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Where a run writes down its room, of which nothing may be left afterwards."""
    left = Leftovers()
    yield tmp_path / "room"
    name = (tmp_path / "room").read_text()
    wait_until(lambda: not (HOME / name).exists(), f"{HOME / name} is left", SECONDS)
    left.claim(name)
    assert not left.found()


def test_the_solution_leads_the_shop_through_three_faults(room: Path) -> None:
    said = _run(room, {})
    assert "up on two daemons, from a registry that was empty" in said["ex15-live-up"]
    assert re.search(r"west refuses: .*sha256", said["ex15-live-blob"])
    assert "after another push: [('sha256:" in said["ex15-live-blob"]
    assert "west has it: shop 1" in said["ex15-live-blob-cure"]
    assert "unpinned: shop 2" in said["ex15-live-tag"]
    assert "seen by the kernel: 5" in said["ex15-live-daemon"]
    assert "the shop serves: {'shop 2'}" in said["ex15-live-daemon-cure"]
    assert "are gone" in said["ex15-live-end"]


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex15-recipe", "COPY --from=kitchen /shop/page /page", "COPY --from=kitchen /shop /", "AssertionError: b'/no"),
        ("ex15-pin", 'image = f"{wanted[0]}@{known[wanted]}"', "pass", "AssertionError"),
        ("ex15-damaged", '"sha256:" + hashlib', 'digest != "" and digest or hashlib', "AssertionError"),
        ("ex15-next", "sorted(removed) + started", "started", "already in use|AssertionError|five rounds"),
    ],
    ids=["copies the notes", "pins nothing", "believes", "never removes"],
)
def test_a_broken_answer_does_not(room: Path, cell: str, old: str, new: str, words: str) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
        print(_run(room, {cell: (old, new)}))
    assert re.search(words, f"{failed.value.ename}: {failed.value.evalue}"), failed.value.evalue


def test_nothing_is_left_by_a_kernel_that_is_killed_while_a_daemon_is_dead(room: Path, tmp_path: Path) -> None:
    cells = [cell for cell in _cells({}, room).cells if cell.id not in ("ex15-live-daemon-cure", "ex15-live-end")]
    program = tmp_path / "evening.py"
    program.write_text("\n\n".join(cell.source for cell in cells) + "\n\nprint('now', flush=True)\nsignal.pause()\n")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as evening:
        assert evening.stdout is not None
        assert any(line == "now\n" for line in evening.stdout)
        evening.send_signal(signal.SIGKILL)
