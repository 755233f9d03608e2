"""Exercise 05, swapped in: the engine unpacks its images with the learner's function, and a container starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "exercises"
NAME = "ex05_layers"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an engine is started")


def _cells() -> dict[str, str]:
    cells = json.loads((COURSE / f"source/{NAME}/{NAME}.ipynb").read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def _swap_in(tmp_path: Path, old: str, new: str) -> "subprocess.CompletedProcess[str]":
    """Run the notebook's last part, with `old` in the answers replaced by `new`, as a learner would."""
    cells = _cells()
    answers = "\n\n".join(cells[name] for name in ("ex05-apply", "ex05-diff", "ex05-receive"))
    assert old in answers
    program = tmp_path / "swap_in.py"
    imports = cells["ex05-imports"].replace("bench = checks.Bench()\n", "")
    swap = cells["ex05-swap"].replace("swap_it_in = False", "swap_it_in = True")
    program.write_text("\n\n".join((imports, answers.replace(old, new), swap)))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)


def test_a_container_starts_on_what_the_learner_unpacked(tmp_path: Path) -> None:
    done = _swap_in(tmp_path, "def apply_layer", "def apply_layer")
    assert done.returncode == 0, done.stderr
    assert "started on your code" in done.stdout and "-rwxr-xr-x" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("os.link(source, place, follow_symlinks=False)", 'open(place, "w").close()', "exec format error"),
        ("os.chmod(place, member.mode)", "os.chmod(place, 0o600)", "permission denied"),
        ("os.rename(aside, path)", "os.unlink(aside)", "no blob"),
    ],
    ids=["no hard links", "no modes", "keeps nothing"],
)
def test_an_engine_on_broken_code_fails(tmp_path: Path, old: str, new: str, words: str) -> None:
    done = _swap_in(tmp_path, old, new)
    assert done.returncode != 0 and "started on your code" not in done.stdout, done.stdout
    assert words in done.stderr.lower()
