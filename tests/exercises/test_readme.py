"""The table of exercises says what the notebooks say: names, lessons, minutes and points."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

COURSE = Path(__file__).resolve().parents[2] / "exercises"
README = (COURSE / "README.md").read_text()
NOTEBOOKS = {path.stem: path for path in sorted(COURSE.glob("source/*/*.ipynb"))}
ROWS = {row[1]: row for row in re.findall(r"^\| (.*) \| \[(\w+)\]\((.*)\) \| (.*) \| (.*) \| (.*) \|$", README, re.M)}


def _cells(name: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOKS[name].read_text())["cells"]
    return cells


def _points(name: str) -> tuple[float, float]:
    """Those of tests, and those of explanations."""
    marks = [cell["metadata"].get("nbgrader", {}) for cell in _cells(name)]
    graded = [mark for mark in marks if mark.get("grade")]
    by_test = sum(mark["points"] for mark in graded if not mark["solution"])
    return by_test, sum(mark["points"] for mark in graded if mark["solution"])


def test_each_exercise_has_a_row() -> None:
    assert list(ROWS) == list(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_row_has_the_points_and_minutes_of_its_notebook(name: str) -> None:
    lesson, _, link, what, minutes, points = ROWS[name]
    tests, explanations = _points(name)
    assert points == f"{tests} + {explanations}"
    text = "".join("".join(cell["source"]) for cell in _cells(name))
    assert re.search(rf"\*Takes (about )?{minutes} minutes", text)
    assert (COURSE / link).is_file() and what
    assert lesson == "all" or (COURSE / lesson.partition("(")[2].rstrip(")")).is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_tells_its_points_as_they_are(name: str) -> None:
    """ "Points: 3 + 6 + 4 automatically, 2 for the explanation." """
    told = re.search(r"Points: ([\d +]+) automatically, ([\d +]+) for", "".join(_cells(name)[0]["source"]))
    assert told is not None
    assert tuple(sum(map(int, part.split("+"))) for part in told.groups()) == _points(name)


def test_the_last_row_is_the_sum() -> None:
    sums = [sum(_points(name)[at] for name in NOTEBOOKS) for at in (0, 1)]
    assert f"| | all {len(NOTEBOOKS)} | | | {sums[0]} + {sums[1]} |" in README
