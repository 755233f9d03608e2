"""Exercise 12, swapped in: containers run behind the learner's seccomp filter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "exercises"
NAME = "ex12_security"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an engine is started")


def _cells() -> dict[str, str]:
    cells = json.loads((COURSE / f"source/{NAME}/{NAME}.ipynb").read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def _swap_in(tmp_path: Path, old: str, new: str) -> "subprocess.CompletedProcess[str]":
    """Run the notebook's last part, with `old` in the answer replaced by `new`, as a learner would."""
    cells = _cells()
    answer = cells["ex12-filter"]
    assert old in answer
    program = tmp_path / "swap_in.py"
    imports = cells["ex12-imports"].replace("bench = checks.Bench()\n", "")
    swap = cells["ex12-swap"].replace("swap_it_in = False", "swap_it_in = True")
    program.write_text("\n\n".join((imports, answer.replace(old, new), swap)))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)


def test_a_container_runs_behind_the_learners_filter(tmp_path: Path) -> None:
    done = _swap_in(tmp_path, "def allow_list", "def allow_list")
    assert done.returncode == 0, done.stderr
    assert "a container ran behind your filter" in done.stdout and "unshare(0x10000000)" in done.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("instruction(0x20, 0),", ""),
        ("instruction(0x15, number, 0, 1)", "instruction(0x15, number, 1, 0)"),
        ("0x00050001)]", "0x7FFF0000)]"),
        ("instruction(0x06, 0x00050001)", ""),
    ],
    ids=["never loads the number", "turned around", "allows everything", "runs off its end"],
)
def test_an_engine_on_a_broken_filter_fails(tmp_path: Path, old: str, new: str) -> None:
    done = _swap_in(tmp_path, old, new)
    assert done.returncode != 0 and "behind your filter" not in done.stdout, done.stdout
