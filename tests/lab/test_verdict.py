"""`minidocker check`: a true verdict on the learner's own notebook."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import InvalidArgument, NotFound
from minidocker.lab import verdict

pytestmark = pytest.mark.needs_root

CHECKOUT = Path(__file__).resolve().parents[2]
EXERCISES = CHECKOUT / "exercises"
TESTS = ["ex01-read-test", "ex01-run-test", "ex01-join-test"]


def _check(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-ISE", str(CHECKOUT / "minidocker/cli/__main__.py"), "check", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)


def _without_hidden_tests(path: Path, target: Path) -> None:
    notebook: dict[str, Any] = json.loads(path.read_text())
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        cell["source"] = source.partition("### BEGIN HIDDEN TESTS")[0]
    target.write_text(json.dumps(notebook))


def test_a_solution_in_the_working_directory_holds(tmp_path: Path) -> None:
    _without_hidden_tests(EXERCISES / "source/ex01_processes/ex01_processes.ipynb", tmp_path / "ex01_processes.ipynb")
    done = _check(tmp_path, "ex01")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"checking {tmp_path}/ex01_processes.ipynb",
        "ok  ex01-read-test (3 points)",
        "ok  ex01-run-test (6 points)",
        "ok  ex01-join-test (4 points)",
        "3 of 3 tests hold",
    ]


def test_a_wrong_answer_is_told_in_five_lines_and_by_the_exit_status(tmp_path: Path) -> None:
    shutil.copy(EXERCISES / "wrong/ex01_processes/returns_what_is_expected.ipynb", tmp_path / "ex01_mine.ipynb")
    done = _check(tmp_path, "ex01")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("NO"))
    failure = [line for line in lines[first + 1 :] if line.startswith("    ")]
    assert lines[-1] == "2 of 3 tests hold" and 1 <= len(failure) <= 5
    assert "Not yet: the command has a uts namespace of its own" in failure[0]


def test_an_untouched_skeleton_has_nothing() -> None:
    results = list(verdict.run(EXERCISES / "release/ex01_processes/ex01_processes.ipynb"))
    assert [name for name, _, failure in results if failure and "not written yet" in failure[0]] == TESTS


def test_the_skeleton_is_found_from_anywhere_and_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert verdict.find("ex01") == EXERCISES / "release/ex01_processes/ex01_processes.ipynb"
    with pytest.raises(NotFound, match=r"no notebook ex77\*\.ipynb"):
        verdict.find("ex77")
    for name in ("ex01_a.ipynb", "ex01_b.ipynb"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InvalidArgument, match="several"):
        verdict.find("ex01")
    assert verdict.find("ex01_b.ipynb") == tmp_path / "ex01_b.ipynb"


def test_a_cell_that_ends_the_kernel_is_no_traceback(tmp_path: Path) -> None:
    notebook = json.loads((EXERCISES / "release/ex01_processes/ex01_processes.ipynb").read_text())
    answer = next(cell for cell in notebook["cells"] if cell["id"] == "ex01-read")
    answer["source"] = "import os; os._exit(0)"
    (tmp_path / "ex01.ipynb").write_text(json.dumps(notebook))
    done = _check(tmp_path, "ex01")
    assert done.returncode == 1
    assert done.stderr == "minidocker check: ex01.ipynb: a cell ended the kernel, or did not end: run it cell by cell\n"
