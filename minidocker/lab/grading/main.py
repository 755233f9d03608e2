"""`./lab grade [FOLDER]`: grade a folder of submissions, each in a container of its own, several at once.

Source  nbgrader's directory structure: FOLDER/STUDENT/ASSIGNMENT/NOTEBOOK.ipynb.
Rules   - what has been graded is not graded again, unless the submission or the exercise has changed, or --force.
        - a submission is graded in a process of its own: whatever it brings down, it brings down alone.
        - gradebook.db, autograded/, feedback/, grades.csv and a picture of each assignment are written beside FOLDER.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from minidocker.client import connect
from minidocker.errors import MinidockerError
from minidocker.lab import session
from minidocker.lab.grading import box, report, scores, submissions
from minidocker.lab.grading.box import Limits
from minidocker.lab.grading.judge import Judge, names_in
from minidocker.lab.grading.report import Result
from minidocker.lab.grading.submissions import Submission
from minidocker.lab.setup import services

ROOT = services.CHECKOUT / "exercises"


def _parse(arguments: list[str]) -> argparse.Namespace:
    usual = Limits()
    parser = argparse.ArgumentParser("lab grade", description="grade a folder of submissions in containers")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "submitted", help="of STUDENT/EXERCISE/*.ipynb")
    parser.add_argument("--force", action="store_true", help="grade again what has been graded")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (one a processor)")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="time limit of one submission")
    parser.add_argument("--cell-seconds", type=float, default=usual.cell_seconds, help="time limit of one cell")
    parser.add_argument(
        "--memory", type=int, default=usual.memory_bytes, metavar="BYTES", help="limit of one submission"
    )
    parser.add_argument("--disk", type=int, default=usual.disk_bytes, metavar="BYTES", help="what it may write")
    parser.add_argument("--course", type=Path, default=ROOT, help="where source/ and grading/ are")
    parser.add_argument("-H", "--host", default=services.SOCKET, help="the daemon's socket")
    parser.add_argument("--no-feedback", action="store_true", help="write no feedback pages")
    parser.add_argument("--from", dest="start", type=Path, default=Path(), help="where a relative FOLDER starts")
    options = parser.parse_args(arguments)
    below = options.start / options.folder
    options.folder = below if below.is_dir() else options.course / options.folder
    return options


class Grading:
    """One call of `./lab grade`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.course = scores.Course(options.course.resolve(), options.folder.resolve().parent)
        self.limits = Limits(
            memory_bytes=options.memory, disk_bytes=options.disk, seconds=options.seconds,
            cell_seconds=options.cell_seconds,
        )  # fmt: skip
        self.labels: dict[str, str] = {}
        self._sources: dict[str, str] = {}

    def run(self) -> int:
        """Grade all. Returns the exit status."""
        found, strange = submissions.find(self.options.folder, self.course.assignments)
        for line in strange:
            print(f"lab grade: {line}", file=sys.stderr)
        if not found:
            print(f"lab grade: no submissions in {self.options.folder}", file=sys.stderr)
            return 1
        client = connect(self.options.host)
        box.ensure_image(client)
        self.labels = session.begin(client)
        for assignment in sorted({one.assignment for one in found}):
            self._learn(assignment)
        results = list(self._all(found))
        results.sort(key=lambda result: (result.assignment, result.student))
        print(report.table(results))
        self._write(results)
        return 1 if strange or any(result.failed for result in results) else 0

    def _learn(self, assignment: str) -> None:
        source = self.course.root / "source" / assignment
        content = b"".join(path.read_bytes() for path in sorted(source.rglob("*")) if path.is_file())
        cases = self.course.root / "grading" / f"{assignment.partition('_')[0]}.py"
        content += cases.read_bytes() if cases.exists() else b""
        self._sources[assignment] = digest = hashlib.sha256(content).hexdigest()
        known = self.course.work / f"{assignment}.source"
        if not known.exists() or known.read_text() != digest:
            self.course.learn(assignment)
            known.write_text(digest)

    def _all(self, found: list[Submission]) -> Iterator[Result]:
        """The results as they come, with a progress bar."""
        progress, left = Progress(len(found)), list(reversed(found))
        running: dict[Connection, tuple[Submission, BaseProcess]] = {}
        try:
            while left or running:
                while left and len(running) < max(self.options.jobs, 1):
                    reader, worker = self._begin(submission := left.pop())
                    running[reader] = submission, worker
                for ready in wait(list(running)):
                    assert isinstance(ready, Connection)
                    result = _outcome(ready, *running.pop(ready))
                    progress.step(result)
                    yield result
        finally:
            for _, worker in running.values():
                worker.terminate()
        progress.end()

    def _begin(self, submission: Submission) -> "tuple[Connection, BaseProcess]":
        reader, writer = multiprocessing.Pipe(duplex=False)
        worker = multiprocessing.get_context("fork").Process(target=self._work, args=(submission, writer))
        worker.start()
        writer.close()
        return reader, worker

    def _work(self, submission: Submission, writer: Any) -> None:
        result = Result(submission.student, submission.assignment)
        began = time.monotonic()
        try:
            self._grade(submission, result)
        except (MinidockerError, OSError) as error:
            result.failed = str(error)
        except Exception as error:
            result.failed = f"{type(error).__name__}: {error}"
        result.seconds = result.seconds or time.monotonic() - began
        with contextlib.suppress(OSError):
            writer.send(asdict(result))
        os._exit(0)

    def _grade(self, submission: Submission, result: Result) -> None:
        student, assignment = submission.student, submission.assignment
        record = self.course.work / "results" / assignment / f"{student}.json"
        copy = self.course.work / "submitted" / student / assignment
        result.digest = f"{submission.copy(copy)} {self._sources[assignment]}"
        if not self.options.force and self._known(record, result):
            return
        began = time.monotonic()
        self.course.forget(assignment, student)
        judge = Judge(self.course.root / "grading", _cases(self.course.root / "source" / assignment))

        def run(cells: list[dict[str, Any]], files: Path) -> Any:
            ran = box.run(connect(self.options.host), cells, files, judge, self.limits, self.labels)
            result.note = ran.note
            return ran.outputs, judge.missing

        self.course.autograde(assignment, student, run)
        if not self.options.no_feedback:
            try:
                self.course.give_feedback(assignment, student)
            except Exception as error:
                result.note += f" (no feedback: {error})"
        result.points = self.course.points(assignment, student) or {}
        result.seconds = time.monotonic() - began
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(asdict(result)))

    def _known(self, record: Path, result: Result) -> bool:
        """Fill in an earlier result of the same submission to the same exercise. Points read since then count."""
        try:
            earlier = Result(**json.loads(record.read_text()))
        except (OSError, ValueError, TypeError):
            return False
        points = self.course.points(result.assignment, result.student)
        if earlier.digest != result.digest or not points:
            return False
        result.note, result.seconds, result.points = earlier.note, earlier.seconds, points
        return True

    def _write(self, results: list[Result]) -> None:
        place = self.course.place
        (place / "grades.csv").write_text(report.as_csv(results))
        written = [str(place / "grades.csv")]
        for assignment in sorted({result.assignment for result in results}):
            picture = place / f"summary-{assignment}.svg"
            picture.write_text(report.histogram(assignment, [r for r in results if r.assignment == assignment]))
            written.append(str(picture))
        print("\nwritten: " + ", ".join(written))


def _outcome(reader: Connection, submission: Submission, worker: BaseProcess) -> Result:
    """What a worker says before it ends."""
    with reader:
        try:
            result = Result(**reader.recv())
        except EOFError:
            result = Result(submission.student, submission.assignment, failed="the grading process was lost")
    worker.join()
    return result


def _cases(source: Path) -> set[str]:
    """The names of the hidden cases that an exercise's tests ask for."""
    cells = json.loads((source / f"{source.name}.ipynb").read_text())["cells"]
    return {name for cell in cells for name in names_in("".join(cell["source"]))}


class Progress:
    """A bar on a terminal, a line for each submission elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._bar = sys.stderr.isatty()

    def step(self, result: Result) -> None:
        """One more is done."""
        self._done += 1
        told = f"{self._done}/{self._total} {result.student} {result.assignment}"
        if self._bar:
            filled = 30 * self._done // self._total
            print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {told:60.60}", end="", file=sys.stderr, flush=True)
        else:
            print(told, file=sys.stderr, flush=True)

    def end(self) -> None:
        """The table comes on a line of its own."""
        if self._bar:
            print(file=sys.stderr)


def main(arguments: list[str]) -> int:
    """0: all have points; 1: some could not be graded; 64: called wrongly."""
    try:
        options = _parse(arguments)
    except SystemExit as error:
        return 64 if error.code else 0
    os.environ["PATH"] = f"{services.BIN}:{os.environ.get('PATH', os.defpath)}"  # nbgrader starts `alembic` from there
    warnings.simplefilter("ignore")  # of nbgrader's: about its database
    try:
        return Grading(options).run()
    except (MinidockerError, OSError) as error:
        print(f"lab grade: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
