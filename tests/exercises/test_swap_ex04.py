"""Exercise 04, swapped in: the engine's control groups are the learner's, and a container runs in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minidocker.linux.cgroups import controllers

COURSE = Path(__file__).resolve().parents[2] / "exercises"
NAME = "ex04_cgroups"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not {"cpu", "memory", "pids"} <= set(controllers()), reason="needs root and cgroup controllers"
)


def _cells() -> dict[str, str]:
    cells = json.loads((COURSE / f"source/{NAME}/{NAME}.ipynb").read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def _swap_in(tmp_path: Path, old: str, new: str) -> "subprocess.CompletedProcess[str]":
    """Run the notebook's last part, with `old` in the answers replaced by `new`, as a learner would."""
    cells = _cells()
    answers = "\n\n".join(cells[name] for name in ("ex04-plan", "ex04-group", "ex04-run"))
    assert old in answers
    program = tmp_path / "swap_in.py"
    imports = cells["ex04-imports"].replace("bench = checks.Bench()\n", "")
    swap = cells["ex04-swap"].replace("swap_it_in = False", "swap_it_in = True")
    program.write_text("\n\n".join((imports, answers.replace(old, new), swap)))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)


def test_a_container_runs_in_the_learners_group(tmp_path: Path) -> None:
    done = _swap_in(tmp_path, "class Group:", "class Group:")
    assert done.returncode == 0, done.stderr
    assert "started on your code, limited by it, and removed by it" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("os.mkdir(place)", "pass", "No such file"),
        ('writes.append(("memory", "memory.max" if new', 'str(("memory", "memory.max" if new', "AssertionError"),
        ("return os.rmdir(directory)", "return None", "AssertionError"),
    ],
    ids=["makes no group", "forgets the memory", "removes nothing"],
)
def test_an_engine_on_a_broken_group_fails(tmp_path: Path, old: str, new: str, words: str) -> None:
    done = _swap_in(tmp_path, old, new)
    assert done.returncode != 0 and "started on your code" not in done.stdout, done.stdout
    assert words in done.stderr
