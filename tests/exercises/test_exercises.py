"""Exercises, graded as an instructor grades them: solutions score full, releases nothing, wrong ones as expected."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COURSE = Path(__file__).resolve().parents[2] / "exercises"
ASSIGNMENTS = sorted(path.name for path in (COURSE / "source").iterdir())
Scores = dict[str, dict[str, float]]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: exercises make namespaces")
pytest.importorskip("nbgrader", reason="needs nbgrader: pip install minidocker[grading]")


def _nbgrader(course: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    # nbgrader starts `alembic` from the PATH.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=course, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module", params=ASSIGNMENTS)
def graded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, Scores]]:
    """The course in a copy, with a release made, and all known submissions graded."""
    name = request.param
    course = tmp_path_factory.mktemp("course")
    for part in ("source", "wrong", "grading", "nbgrader_config.py"):
        copy = shutil.copytree if (COURSE / part).is_dir() else shutil.copy
        copy(COURSE / part, course / part)
    _nbgrader(course, "generate_assignment", name, "--create", "--force")
    submissions = {
        "solution": course / f"source/{name}/{name}.ipynb",
        "untouched": course / f"release/{name}/{name}.ipynb",
    }
    submissions |= {path.stem: path for path in (course / f"wrong/{name}").glob("*.ipynb")}
    for student, notebook in submissions.items():
        target = course / "submitted" / student / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        shutil.copy(notebook, target)
    _nbgrader(course, "autograde", name, "--create", "--force")
    yield name, course, _scores(course, name)


def _scores(course: Path, name: str) -> Scores:
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        return {
            submission.student.id: {
                grade.cell.name: grade.auto_score or 0.0
                for grade in submission.notebooks[0].grades
                if grade.cell.cell_type == "code"
            }
            for submission in book.assignment_submissions(name)
        }


def _said(course: Path, name: str) -> str:
    """What the test cells of the graded submissions said, for the message of a test that fails."""
    lines = []
    for path in sorted((course / "autograded").glob(f"*/{name}/{name}.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            said = [line for output in cell.get("outputs", []) for line in output.get("traceback", ())]
            if said and cell["metadata"].get("nbgrader", {}).get("grade"):
                lines.append(f"{path.parts[-3]}, {cell['metadata']['nbgrader']['grade_id']}: {' '.join(said)[:1000]}")
    return "\n".join(lines)


def _points(course: Path, name: str) -> dict[str, float]:
    cells: list[dict[str, Any]] = json.loads((course / f"source/{name}/{name}.ipynb").read_text())["cells"]
    marks = [cell["metadata"]["nbgrader"] for cell in cells if "nbgrader" in cell["metadata"]]
    return {mark["grade_id"]: mark["points"] for mark in marks if mark["grade"] and not mark["solution"]}


def test_the_solution_has_all_points(graded: tuple[str, Path, Scores]) -> None:
    name, course, scores = graded
    assert scores["solution"] == _points(course, name), _said(course, name)


def test_an_untouched_release_has_none(graded: tuple[str, Path, Scores]) -> None:
    _, _, scores = graded
    assert set(scores["untouched"].values()) == {0.0}


def test_each_wrong_submission_has_its_expected_score(graded: tuple[str, Path, Scores]) -> None:
    name, course, scores = graded
    expected = json.loads((course / f"wrong/{name}/expected.json").read_text())
    assert len(expected) >= 2
    awarded = {case: scores[case] for case in expected}
    assert awarded == {case: entry["scores"] for case, entry in expected.items()}, _said(course, name)


def test_the_release_holds_neither_solutions_nor_hidden_tests(graded: tuple[str, Path, Scores]) -> None:
    name, course, _ = graded
    text = (course / f"release/{name}/{name}.ipynb").read_text()
    assert "hidden" not in text.replace("Tests that you do not see", "").lower()
    assert "raise NotImplementedError()" in text
    assert not list((course / "release").rglob("*.py"))


def test_the_skeleton_that_learners_open_is_the_release(graded: tuple[str, Path, Scores]) -> None:
    """All but the cells that learners write in: in a checkout that is used, those are written."""
    name, course, _ = graded
    made, kept = (
        {
            cell["id"]: cell["source"]
            for cell in json.loads((place / f"release/{name}/{name}.ipynb").read_text())["cells"]
            if not cell["metadata"].get("nbgrader", {"solution": True})["solution"]
        }
        for place in (course, COURSE)
    )
    assert kept == made


def test_feedback_shows_no_hidden_test(graded: tuple[str, Path, Scores]) -> None:
    name, course, _ = graded
    wrong = min(json.loads((course / f"wrong/{name}/expected.json").read_text()))
    _nbgrader(course, "generate_feedback", name, "--student", wrong)
    pages = list((course / "feedback").rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text()
        assert "checks.hidden" not in text and "grading/" not in text, page
