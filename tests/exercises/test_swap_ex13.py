"""Exercise 13, swapped in: the engine's client hears real containers through the learner's demultiplexer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "exercises"
NAME = "ex13_daemon"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an engine is started")


def _cells() -> dict[str, str]:
    cells = json.loads((COURSE / f"source/{NAME}/{NAME}.ipynb").read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def _swap_in(tmp_path: Path, old: str, new: str) -> "subprocess.CompletedProcess[str]":
    """Run the notebook's last part, with `old` in the answer replaced by `new`, as a learner would."""
    cells = _cells()
    answer = cells["ex13-frames"]
    assert old in answer
    program = tmp_path / "swap_in.py"
    imports = cells["ex13-imports"].replace("bench = checks.Bench()\n", "")
    swap = cells["ex13-swap"].replace("swap_it_in = False", "swap_it_in = True")
    program.write_text("\n\n".join((imports, answer.replace(old, new), swap)))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)


def test_real_containers_are_heard_through_the_learners_demultiplexer(tmp_path: Path) -> None:
    done = _swap_in(tmp_path, "class Demultiplexer:", "class Demultiplexer:")
    assert done.returncode == 0, done.stderr
    assert "echoed True" in done.stdout and "real containers were heard through your code" in done.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("found.append((self._stream, part))", "found.append((1, part))"),
        ('int.from_bytes(self._head[4:], "big")', 'int.from_bytes(self._head[6:], "little")'),
        ("self._left -= len(part)", "self._left = 0"),
    ],
    ids=["one stream for all", "another length", "forgets the rest of a payload"],
)
def test_a_client_on_a_broken_demultiplexer_fails(tmp_path: Path, old: str, new: str) -> None:
    done = _swap_in(tmp_path, old, new)
    assert done.returncode != 0 and "real containers were heard" not in done.stdout, done.stdout
