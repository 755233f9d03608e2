"""`./lab grade`: known submissions have their points; hostile ones cost only themselves, and see and leave nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Leftovers
from tests.scenarios.conftest import BUSYBOX, Daemon, wait_until

COURSE = Path(__file__).resolve().parents[2] / "exercises"
CANARY = "canary-of-the-hidden-cases-7f3a"
READ, RUN, JOIN = "ex01-read-test", "ex01-run-test", "ex01-join-test"
ALL = {READ: 3.0, RUN: 6.0, JOIN: 4.0}
NAME = "ex01_processes"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are made"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs Debian's busybox-static"),
]
pytest.importorskip("nbgrader", reason="needs nbgrader: pip install minidocker[grading]")

Notebook = dict[str, Any]


@dataclass(frozen=True)
class Hostile:
    """A solution with one answer cell exchanged, and what it has in the end.

    code    run at the end of the cell `at`, after the right definition
    """

    code: str
    scores: dict[str, float]
    at: str = "ex01-run"
    note: str = ""


LOSES_RUN = {READ: 3.0, RUN: 6.0, JOIN: 4.0}
HOSTILE = {
    # What a cell does when it is run. The definition is right, and stands before: only a lost cell has no points.
    "exits": Hostile("os._exit(3)", {READ: 3, RUN: 0, JOIN: 4}, note="ended the kernel"),
    "hangs": Hostile("while True: pass", LOSES_RUN),
    "hangs_and_is_deaf": Hostile(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        {READ: 3, RUN: 0, JOIN: 4},
        note="could not be interrupted",
    ),
    "forks_without_end": Hostile("while True:\n    os.fork()", {READ: 3, RUN: 0, JOIN: 4}),
    "fills_the_disk": Hostile("open('/tmp/full', 'wb').write(b'x' * (300 << 20))", LOSES_RUN),
    "fills_the_memory": Hostile("hog = b'x' * (3 << 30)", {READ: 3, RUN: 0, JOIN: 4}, note="ended the kernel"),
    "kills_its_parent": Hostile(
        "import signal\nos.system('kill -9 -1')\nos.kill(os.getppid() or os.getpid(), signal.SIGKILL)\nos.kill(1, 9)",
        LOSES_RUN,
    ),
    "prints_without_end": Hostile("while True: print('x' * 1000)", {READ: 3, RUN: 0, JOIN: 4}, note="output limit"),
    "prints_gigabytes": Hostile("print('x' * (2 << 30))", {READ: 3, RUN: 0, JOIN: 4}),
    "writes_to_stderr": Hostile("import sys\nprint('warning', file=sys.stderr)", LOSES_RUN),
    "raises": Hostile("1 / 0", LOSES_RUN),
    # Attempts to have points that are not deserved: the definition that is judged is wrong.
    "replaces_the_checks": Hostile(
        "checks.hidden = checks.expect = lambda *a, **k: None\n"
        "class Bench:\n    def call(self, *a, **k): return type('O', (), dict(value=0, output='a b'))()\n"
        "bench = Bench()\ndef run_in(flags, argv): return 0\ndef join(pid, flags, argv): return 0",
        {READ: 3, RUN: 0, JOIN: 0},
    ),
    "knows_the_judges_socket": Hostile(
        "import socket, json, struct\nfrom minidocker.lab.grading import wire\n"
        "for path in (wire.GRADER, wire.JUDGE):\n"
        "    s = socket.socket(socket.AF_UNIX)\n"
        "    try:\n        s.connect(str(path))\n"
        "        wire.send(s, {'kind': 'verdict', 'lines': []}); wire.send(s, {'kind': 'end', 'note': 'done'})\n"
        "    except OSError: pass\n"
        "def run_in(flags, argv): return 0",
        {READ: 3, RUN: 0, JOIN: 4},
    ),
    "wants_the_sources": Hostile(
        "import glob\nfound = []\n"
        "for top in '/work /root /home /tmp /var /judge /submission /opt /srv /mnt /run'.split():\n"
        "    for directory, _, names in os.walk(top):\n"
        "        paths = [f'{directory}/{name}' for name in names]\n"
        "        found += [path for path in paths if 'grading/ex' in path or 'gradebook' in path\n"
        "                  or 'submitted' in path or 'minidocker.sock' in path]\n"
        "print('found:', found)\nassert not found",
        LOSES_RUN,
    ),
    "looks_for_the_canary": Hostile(
        "import subprocess\n"
        "seen = subprocess.run(['grep', '-rlaI', '--exclude-dir=usr', '--exclude-dir=sys', '--exclude-dir=proc',\n"
        "                       'of-the-hidden-' + 'cases-7f3a', '/'], capture_output=True, text=True).stdout.split()\n"
        "seen = [path for path in seen if '/tests/' not in path]\nprint('seen:', seen)\nassert not seen",
        LOSES_RUN,
    ),
}


def _solution() -> Notebook:
    notebook: Notebook = json.loads((COURSE / f"source/{NAME}/{NAME}.ipynb").read_text())
    return notebook


def _cell(notebook: Notebook, name: str) -> Notebook:
    return next(cell for cell in notebook["cells"] if cell["id"] == name)


def _with(code: str, at: str) -> Notebook:
    notebook = _solution()
    cell = _cell(notebook, at)
    cell["source"] = "".join(cell["source"]) + "\n" + code
    return notebook


def _tampered() -> Notebook:
    """Test cells emptied, one taken out, one under another name; points and kernel changed."""
    notebook = _solution()
    for name in (READ, RUN):
        _cell(notebook, name)["source"] = "pass"
    _cell(notebook, RUN)["metadata"]["nbgrader"]["points"] = 1000
    _cell(notebook, JOIN)["metadata"]["nbgrader"]["grade_id"] = "mine"
    _cell(notebook, "ex01-run")["source"] = "def run_in(flags, argv): return 0"
    notebook["metadata"]["kernelspec"] = {"name": "evil", "display_name": "evil", "language": "python"}
    return notebook


def _put(folder: Path, student: str, content: str) -> None:
    target = folder / student / NAME
    target.mkdir(parents=True)
    (target / f"{NAME}.ipynb").write_text(content)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon without an image."""
    made = Daemon(tmp_path_factory.mktemp("grading-daemon"), ["--bridge", "none"])
    made.start()
    try:
        yield made
    finally:
        made.remove_all()
        made.end()
        wait_until(lambda: not made.leftovers())


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the course with exercise 01, whose hidden cases hold a canary."""
    course = tmp_path_factory.mktemp("course")
    shutil.copytree(COURSE / "source" / NAME, course / "source" / NAME)
    shutil.copytree(COURSE / "grading", course / "grading")
    shutil.copy(COURSE / "nbgrader_config.py", course)
    cases = course / "grading/ex01.py"
    cases.write_text(f"{cases.read_text()}\nCANARY = {CANARY!r}\n")
    return course


def _grade(daemon: Daemon, course: Path, folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "minidocker.lab.grading.main", str(folder), "--course", str(course)]
    limits = ["--cell-seconds", "10", "--seconds", "60", "--memory", str(768 << 20), "--disk", str(64 << 20)]
    command += ["-H", daemon.url, *limits, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=COURSE.parent, check=False)


@pytest.fixture(scope="module")
def graded(daemon: Daemon, course: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """All known and all hostile submissions, graded in one call: the directory with the results, and the table."""
    place = tmp_path_factory.mktemp("class")
    folder = place / "submitted"
    for student, path in {
        "solution": COURSE / f"source/{NAME}/{NAME}.ipynb",
        "untouched": COURSE / f"release/{NAME}/{NAME}.ipynb",
        **{path.stem: path for path in (COURSE / f"wrong/{NAME}").glob("*.ipynb")},
    }.items():
        _put(folder, student, path.read_text())
    for student, case in HOSTILE.items():
        _put(folder, student, json.dumps(_with(case.code, case.at)))
    _put(folder, "tampers", json.dumps(_tampered()))
    _put(folder, "no_json", "{not a notebook")
    (folder / "solution" / NAME / "neighbour").symlink_to(folder / "tampers" / NAME / f"{NAME}.ipynb")
    os.mkfifo(folder / "solution" / NAME / "fifo")
    left = Leftovers("minidocker.lab.grading.inside", str(place))
    done = _grade(daemon, course, folder)
    for container in re.findall(r"container='([0-9a-f]{64})'", daemon.log()):
        left.claim(container)  # of each there may be neither a control group nor a mount
    assert not left.found()
    assert not list(daemon.client().containers.list(all=True))
    assert not list(Path("/tmp").glob("minidocker-grading-*"))
    yield place, done.stdout + done.stderr


def _results(place: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (place / f".grading/results/{NAME}").glob("*.json")}


def _scores(result: dict[str, Any]) -> dict[str, float]:
    return {name: result["points"][name][0] for name in ALL}


def test_known_submissions_have_their_points(graded: tuple[Path, str]) -> None:
    results = _results(graded[0])
    expected = json.loads((COURSE / f"wrong/{NAME}/expected.json").read_text())
    scores = {case: entry["scores"] for case, entry in expected.items()}
    scores |= {"solution": ALL, "untouched": dict.fromkeys(ALL, 0.0)}
    assert {student: _scores(results[student]) for student in scores} == scores


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_submission_costs_only_itself(graded: tuple[Path, str], case: str) -> None:
    result = _results(graded[0])[case]
    assert _scores(result) == HOSTILE[case].scores, result["note"]
    assert HOSTILE[case].note in result["note"]


def test_tampered_tests_points_names_and_kernels_are_the_instructors_again(graded: tuple[Path, str]) -> None:
    result = _results(graded[0])["tampers"]
    assert _scores(result) == {READ: 3.0, RUN: 0.0, JOIN: 4.0}
    assert result["points"][RUN][1] == 6.0


def test_what_is_no_notebook_is_told_and_makes_the_exit_status_1(graded: tuple[Path, str]) -> None:
    assert "no_json" not in _results(graded[0])
    assert any(line.startswith("no_json") and "cannot grade it" in line for line in graded[1].splitlines())


def test_hidden_cases_are_in_nothing_that_students_see(graded: tuple[Path, str]) -> None:
    place, printed = graded
    pages = [path for kind in ("feedback", "autograded") for path in (place / kind).rglob("*") if path.is_file()]
    assert len(pages) > 20
    for path in [*pages, place / "grades.csv"]:
        text = path.read_text()
        assert CANARY not in text
        assert path.suffix != ".html" or "checks.hidden" not in text, path
    assert CANARY not in printed
    assert not (place / "autograded/solution" / NAME / "neighbour").exists()


def test_the_class_has_a_table_a_csv_and_a_picture(graded: tuple[Path, str]) -> None:
    place, printed = graded
    rows = (place / "grades.csv").read_text().splitlines()
    assert rows[0].startswith("student,assignment,score,max_score,to_read,seconds,remarks,")
    assert any(row.startswith(f"solution,{NAME},13.0,13.0,2.0,") for row in rows)
    picture = (place / f"summary-{NAME}.svg").read_text()
    assert "<title>" in picture and "90-100 %" in picture
    assert any(line.split()[:5] == ["solution", NAME, "13", "of", "13"] for line in printed.splitlines())


def test_what_is_graded_is_not_graded_again(
    graded: tuple[Path, str], daemon: Daemon, course: Path, tmp_path: Path
) -> None:
    place, _ = graded
    shutil.rmtree(place / "submitted/no_json")
    for student in HOSTILE:
        shutil.rmtree(place / "submitted" / student)
    before = (place / f"autograded/solution/{NAME}/{NAME}.ipynb").stat().st_mtime_ns
    done = _grade(daemon, course, place / "submitted", "--no-feedback")
    assert done.returncode == 0, done.stderr
    assert (place / f"autograded/solution/{NAME}/{NAME}.ipynb").stat().st_mtime_ns == before
    assert any(line.split()[:5] == ["solution", NAME, "13", "of", "13"] for line in done.stdout.splitlines())
