"""nbgrader's part: the gradebook, tests restored from it, points, and feedback; only the running is ours.

Source  nbgrader 0.9: converters.Autograde, converters.GenerateFeedback, api.Gradebook.
Rules   - a submission's test cells, points and kernel are those of the gradebook, whatever its metadata say.
        - a test cell that has hidden cases has its points only if the judge saw them hold.
        - SQLite has one writer: who works on the gradebook holds the lock, but not while a container runs.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, GenerateAssignment, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    IgnorePattern,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from minidocker.errors import InvalidArgument
from minidocker.lab.grading.judge import names_in

Run = Callable[[list[dict[str, Any]], Path], tuple[dict[int, list[dict[str, Any]]], Callable[[str], list[str]]]]
"""Runs code cells, with the files in a directory: outputs by index; and for a test's source, why it has no points."""


class Course:
    """A course root (`source/`, `grading/`), and the directory `place` in which grades are kept."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.place = root, place
        self.work = place / ".grading"
        self.work.mkdir(parents=True, exist_ok=True)
        self.database = f"sqlite:///{place}/gradebook.db"

    @property
    def assignments(self) -> set[str]:
        """Their names."""
        return {path.name for path in (self.root / "source").iterdir() if (path / f"{path.name}.ipynb").exists()}

    def _converter(self, kind: type, assignment: str, student: str = "*") -> Any:
        config: Config = PyFileConfigLoader("nbgrader_config.py", str(self.root)).load_config()
        config.CourseDirectory.root = str(self.place)
        config.CourseDirectory.db_url = self.database
        config.CourseDirectory.source_directory = str(self.root / "source")
        config.CourseDirectory.release_directory = str(self.work / "release")
        config.CourseDirectory.submitted_directory = str(self.work / "submitted")
        course = CourseDirectory(config=config)
        course.assignment_id, course.student_id = assignment, student
        made = kind(coursedir=course, config=config)
        made.force = True
        made.log = _log(self.work / "nbgrader.log")
        return made

    def learn(self, assignment: str) -> None:
        """Put an assignment's cells, points and checksums into the gradebook."""
        with self.locked():
            converter = self._converter(GenerateAssignment, assignment, ".")
            converter.create_assignment = True
            converter.start()

    @contextmanager
    def locked(self) -> Iterator[Callable[[bool], None]]:
        """Hold the gradebook. Yields a function that lets go of it (False) and takes it again (True)."""
        fd = os.open(self.work / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield lambda hold: fcntl.flock(fd, fcntl.LOCK_EX if hold else fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def autograde(self, assignment: str, student: str, run: Run) -> None:
        """Grade one submission (in work/submitted). Raises InvalidArgument: nbgrader cannot read it."""
        with self.locked() as hold:
            converter = self._converter(Autograde, assignment, student)

            def in_container(notebook: Any, resources: Any) -> tuple[Any, Any]:
                hold(False)
                try:
                    _fill_in(notebook, run, self.place / "autograded" / student / assignment)
                finally:
                    hold(True)
                return notebook, resources

            def restored(notebook: Any, resources: Any) -> tuple[Any, Any]:
                restore(notebook, self._release(assignment))
                return notebook, resources

            converter.sanitize_preprocessors = [
                ClearOutput, DeduplicateIds, OverwriteKernelspec, restored, OverwriteCells, CheckCellMetadata
            ]  # fmt: skip
            converter.autograde_preprocessors = [
                in_container, IgnorePattern, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata
            ]  # fmt: skip
            try:
                converter.start()
            except SystemExit:
                raise InvalidArgument("nbgrader cannot grade it") from None
            except Exception as error:
                raise InvalidArgument(f"nbgrader cannot grade it: {error}") from None

    def _release(self, assignment: str) -> Any:
        path = self.work / "release" / assignment / f"{assignment}.ipynb"
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]

    def give_feedback(self, assignment: str, student: str) -> None:
        """Write feedback/STUDENT/ASSIGNMENT/*.html, without the text of hidden tests."""
        self._converter(GenerateFeedback, assignment, student).start()

    def forget(self, assignment: str, student: str) -> None:
        """Take away what an earlier grading made of a submission."""
        for kind in ("autograded", "feedback"):
            shutil.rmtree(self.place / kind / student / assignment, ignore_errors=True)

    def points(self, assignment: str, student: str) -> dict[str, tuple[float | None, float]] | None:
        """Points of each graded cell and the most it has, in the notebook's order; None: not graded.

        A cell that a person must read has None until then.
        """
        with Gradebook(self.database) as book:
            try:
                submission = book.find_submission(assignment, student)
            except MissingEntry:
                return None
            return {
                grade.name: (
                    None if grade.needs_manual_grade and grade.manual_score is None else float(grade.score),
                    float(grade.max_score),
                )
                for notebook in submission.notebooks
                for grade in sorted(notebook.grades, key=lambda grade: str(grade.name))
            }


def restore(notebook: Any, release: Any) -> None:
    """Put back the instructor's cells that are missing in a submission; take marks away that the instructor never made.

    nbgrader's own `add_missing_cells` ends in an error if a cell has been given another name (0.9.6).
    """
    ours = {cell.metadata.nbgrader.grade_id: cell for cell in release.cells if "nbgrader" in cell.metadata}
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader")
        if marks is not None and not (isinstance(marks, dict) and marks.get("grade_id") in ours):
            del cell.metadata["nbgrader"]
        cell.source = cell.source.replace("HIDDEN TESTS", "HIDDEN-TESTS")  # nbgrader stops at such marks elsewhere
    place = 0
    for name, cell in ours.items():
        found = [n for n, one in enumerate(notebook.cells) if one.metadata.get("nbgrader", {}).get("grade_id") == name]
        if found:
            place = found[0] + 1
        elif cell.metadata.nbgrader.locked or cell.metadata.nbgrader.grade:
            cell.id = f"restored-{place}"
            notebook.cells.insert(place, cell)
            place += 1


def _log(path: Path) -> logging.Logger:
    """nbgrader's own words go into a file."""
    log = logging.getLogger("minidocker.grading.nbgrader")
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.FileHandler(path))
        log.setLevel(logging.INFO)
    return log


def _fill_in(notebook: Any, run: Run, place: Path) -> None:
    """Run the notebook's code cells; put in what came out, and where points are not deserved, why."""
    cells = [
        {"index": index, "source": cell.source, "test": _is_test(cell)}
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
    ]
    outputs, missing = run(cells, place)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [_node(output) for output in outputs.get(number, [])]
        if not _is_test(cell):
            continue
        failed = any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs)
        if number not in outputs:
            cell.outputs.append(_node(_failure(["Not yet: the cell was not run"])))
        elif not failed and names_in(cell.source) and (lines := missing(cell.source)):
            cell.outputs.append(_node(_failure(lines)))


def _is_test(cell: Any) -> bool:
    marks = cell.metadata.get("nbgrader", {})
    return bool(marks.get("grade")) and not marks.get("solution")


def _failure(lines: list[str]) -> dict[str, Any]:
    return {"output_type": "error", "ename": "CheckFailed", "evalue": lines[0], "traceback": lines}


def _node(output: dict[str, Any]) -> Any:
    return nbformat.from_dict(output)  # type: ignore[no-untyped-call]
