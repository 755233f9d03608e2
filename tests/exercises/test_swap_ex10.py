"""Exercise 10, swapped in: the engine gives out addresses by the learner's book, and containers talk with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "exercises"
NAME = "ex10_network"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _cells() -> dict[str, str]:
    cells = json.loads((COURSE / f"source/{NAME}/{NAME}.ipynb").read_text())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def _swap_in(tmp_path: Path, old: str, new: str) -> "subprocess.CompletedProcess[str]":
    """Run the notebook's last part, with `old` in the answers replaced by `new`, as a learner would."""
    cells = _cells()
    answers = "\n\n".join(cells[name] for name in ("ex10-subnet", "ex10-addresses"))
    assert old in answers
    program = tmp_path / "swap_in.py"
    imports = cells["ex10-imports"].replace("bench = checks.Bench()\n", "")
    swap = cells["ex10-swap"].replace("swap_it_in = False", "swap_it_in = True")
    program.write_text("\n\n".join((imports, answers.replace(old, new), swap)))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=90)


def test_two_containers_talk_with_addresses_of_the_learners_book(tmp_path: Path) -> None:
    done = _swap_in(tmp_path, "class Addresses:", "class Addresses:")
    assert done.returncode == 0, done.stderr
    assert "two containers talk, with addresses from your book" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("for address in self.subnet:", "for address in reversed(list(self.subnet)):", "the two lowest"),
        ("self.used.add(chosen)", "pass", "the two lowest"),
        ("address not in self.used and address not in self.reserved", "address not in self.used", "AssertionError"),
        ("return str(piece)", "return '0.0.0.0/33'", "did not|does not|cannot|invalid"),
    ],
    ids=["highest first", "never remembers", "hands out what is reserved", "no subnet at all"],
)
def test_an_engine_on_a_broken_book_fails(tmp_path: Path, old: str, new: str, words: str) -> None:
    done = _swap_in(tmp_path, old, new)
    assert done.returncode != 0 and "two containers talk" not in done.stdout, done.stdout
    assert any(word in done.stderr for word in words.split("|")), done.stderr
