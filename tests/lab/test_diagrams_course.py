"""The map of the course is drawn from the lessons themselves."""

import json
from pathlib import Path

from minidocker.lab.diagrams.course import course_map, lessons

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def _lesson(directory: Path, number: str, title: str, requires: list[str]) -> None:
    about = {"minutes": 30, "requires": requires}
    cell = {"cell_type": "markdown", "source": [f"# {number} · {title}\n", "text"]}
    (directory / f"{number}_x.ipynb").write_text(json.dumps({"metadata": {"minidocker": about}, "cells": [cell]}))


def test_each_lesson_is_a_row_and_what_it_needs_an_arrow(tmp_path: Path) -> None:
    _lesson(tmp_path, "00", "Start", [])
    _lesson(tmp_path, "01", "One", [])
    _lesson(tmp_path, "06", "Six", ["01"])
    _lesson(tmp_path, "07", "Seven", ["01", "06"])
    picture = course_map(tmp_path)
    assert picture.rows[:2] == (("01", "One", "30", "nothing"), ("06", "Six", "30", "01"))
    assert "l01 -> l06" in picture.dot and "l06 -> l07" in picture.dot
    assert "l01 -> l07" not in picture.dot  # 06 needs it anyway
    assert "3 lessons of 2 hours" in picture.alt


def test_the_course_has_all_its_lessons_on_the_map() -> None:
    assert [lesson.number for lesson in lessons(NOTEBOOKS)] == [f"{number:02}" for number in range(1, 15)]
    assert all(lesson.title for lesson in lessons(NOTEBOOKS))
