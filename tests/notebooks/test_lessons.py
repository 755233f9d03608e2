"""The lessons: what each must have, that it runs as a learner runs it, and that it leaves nothing behind."""

import ast
import importlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client import connect

nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[test]")

CHECKOUT = Path(__file__).resolve().parents[2]
LESSONS = sorted((CHECKOUT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXEC_ROOT = Path("/run/minidocker")
NO_FACTS = (
    "If something goes wrong",
    "Your turn",
    "Summary",
    "Questions",
    "Sources",
)  # sections that claim nothing that could be measured
LONGEST_OWN_FUNCTION = 8

every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem[:2])
# The first notebook is a map: it teaches how the others work, and breaks nothing.
every_true_lesson = pytest.mark.parametrize("path", LESSONS[1:], ids=lambda path: path.stem[:2])


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _code(path: Path) -> list[str]:
    """The code cells, without the line of a cell magic."""
    sources = ["".join(cell["source"]) for cell in _read(path)["cells"] if cell["cell_type"] == "code"]
    return [re.sub(r"^%.*$", "", source, flags=re.MULTILINE) for source in sources]


# ---------------------------------------------------------------- what a lesson must have


@every_lesson
def test_a_lesson_says_what_it_teaches_and_needs(path: Path) -> None:
    about = _read(path)["metadata"]["minidocker"]
    assert set(about) == {"objectives", "requires", "minutes", "needs", "modules"}
    assert 1 <= len(about["objectives"]) <= 4
    assert about["minutes"] <= 45
    assert set(about["needs"]) <= {"root", "daemon", "cgroups"}
    assert all(number < path.stem[:2] for number in about["requires"])  # only earlier ones, so there is no circle
    assert {each.stem[:2] for each in LESSONS} >= set(about["requires"])
    for module in about["modules"]:
        importlib.import_module(module)
    first = "".join(_read(path)["cells"][0]["source"])
    assert all(row in first for row in ("You will be able to", "Before this", "Takes", "Needs", "Opens"))


@every_true_lesson
def test_a_lesson_asks_before_it_measures(path: Path) -> None:
    cells = _code(path)
    asked = [name for source in cells for name in re.findall(r"^(\w+) = widgets\.predict\(", source, re.MULTILINE)]
    assert len(asked) >= 3
    for name in asked:
        ask = next(number for number, source in enumerate(cells) if f"{name} = widgets.predict(" in source)
        answer = next(number for number, source in enumerate(cells) if f"{name}.check(" in source)
        assert ask < answer <= ask + 2, name


@every_lesson
def test_each_section_of_a_lesson_proves_what_it_claims(path: Path) -> None:
    title, proofs = "", {}
    for cell in _read(path)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for heading in re.findall(r"^## (.*)$", source, re.MULTILINE):
                title = heading
                proofs[title] = 0
        elif title:
            proofs[title] += len(re.findall(r"^\s*assert ", source, re.MULTILINE))
    unproved = [section for section, count in proofs.items() if not count and not section.startswith(NO_FACTS)]
    assert proofs
    assert not unproved


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _without_docstring(function: ast.FunctionDef) -> str:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return "\n".join(ast.unparse(statement) for statement in body)


@every_lesson
def test_a_lesson_imports_the_library_and_does_not_copy_it(path: Path) -> None:
    trees = [ast.parse(module.read_text()) for module in (CHECKOUT / "minidocker").rglob("*.py")]
    library = [function for tree in trees for function in _functions(tree)]
    names, bodies = {each.name for each in library}, {_without_docstring(each) for each in library}
    for source in _code(path):
        for function in _functions(ast.parse(source)):
            length = (function.end_lineno or 0) - function.lineno + 1
            copied = function.name in names or _without_docstring(function) in bodies
            assert length <= LONGEST_OWN_FUNCTION or not copied, function.name


@every_true_lesson
def test_a_lesson_breaks_something_in_isolation(path: Path) -> None:
    cells = _read(path)["cells"]
    isolated = [cell for cell in cells if "".join(cell["source"]).startswith("%%isolated")]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert isolated and "Break it" in prose and "cure" in prose


@every_lesson
def test_a_lesson_shows_live_state_as_picture_words_and_table(path: Path) -> None:
    outputs = [output for cell in _read(path)["cells"] for output in cell.get("outputs", [])]
    pictures = ["".join(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        assert re.search(r'<img alt="[^"]{20,}"', picture) and "data:image/svg+xml" in picture
        assert "<table>" in picture and '<th scope="col"' in picture


@every_lesson
def test_a_lesson_is_kept_with_what_it_printed(path: Path) -> None:
    cells = [cell for cell in _read(path)["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        if "print(" in "".join(cell["source"]):
            assert cell["outputs"], f"run ./lab notebooks --record: {cell['source'][:2]}"
    text = json.dumps([cell["outputs"] for cell in cells])
    assert '"output_type": "error"' not in text
    for private in (str(CHECKOUT), "/root/", "/home/", "/tmp/"):
        assert private not in text


# ---------------------------------------------------------------- that it runs


@pytest.mark.needs_daemon
@every_lesson
def test_run_all_twice_in_one_kernel_says_the_same(
    path: Path, open_lesson: Callable[[Path], Any], leftovers: Any
) -> None:
    lesson = open_lesson(path)
    verdict = re.compile(r"^The kernel says: .*$", re.MULTILINE)
    first, second = (verdict.findall(lesson.run()) for _ in range(2))
    assert first == second and len(first) >= (1 if path == LESSONS[0] else 3)
    assert not _containers_of(lesson)  # a lesson that went well removes its containers itself
    _claim(lesson, leftovers)
    lesson.shut_down()
    assert not leftovers.found()


def _containers_of(lesson: Any) -> list[Any]:
    """The containers that carry the label of the lesson's kernel, running or not."""
    found = connect().containers.list(all=True, filters={"label": ["minidocker.notebook"]})
    return [one for one in found if f"-{lesson.kernel_pid}-" in str(one.attrs["Labels"])]


def _claim(lesson: Any, leftovers: Any) -> list[Any]:
    """Have `leftovers` look for all that the lesson has at this moment; its containers."""
    containers = _containers_of(lesson)
    for container in containers:
        container.reload()
        leftovers.claim(container.id)
        leftovers.claim(f"link veth{container.attrs['NetworkSettings']['EndpointID'][:7]}")
        leftovers.claim(f"process {container.attrs['State']['Pid']} ")
    for pid in lesson.processes():
        leftovers.claim(f"process {pid} ")
        leftovers.claim(f"minidocker-lab-{pid}")
    return containers


# A cell that is caught in the middle: it has a mount, a link and a child when it says so.
BUSY = """%%isolated
import subprocess
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")
subprocess.run(["ip", "link", "add", "caught", "type", "bridge"], check=True)
child = subprocess.Popen(["sleep", "600"])
print("begun")
"""
ENDINGS: dict[str, tuple[str, Callable[[int], None]]] = {
    "killed": ("child.wait()", lambda kernel: os.kill(kernel, signal.SIGKILL)),
    "interrupted": ("child.wait()", lambda kernel: os.kill(kernel, signal.SIGINT)),
    "raised": ("1 / 0", lambda kernel: None),
}


# The worst ending for every lesson, each ending for three that hold something different.
ENDINGS_TRIED = [(path, "killed") for path in LESSONS[1:]] + [
    (path, ending)
    for path in LESSONS
    for ending in ENDINGS
    if path.name[:2] in ("01", "10", "13") and ending != "killed"
]


@pytest.mark.needs_daemon
@pytest.mark.parametrize(("path", "ending"), ENDINGS_TRIED, ids=lambda value: getattr(value, "stem", value)[:8])
def test_a_lesson_that_ends_in_the_middle_leaves_nothing_behind(
    path: Path, ending: str, open_lesson: Callable[[Path], Any], leftovers: Any
) -> None:
    lesson = open_lesson(path)
    last_words, act = ENDINGS[ending]
    lesson.run(lesson.cells[: len(lesson.cells) // 2])
    lesson.say("extra = client.containers.run('busybox', ['sleep', '600'], detach=True, labels=mine)")
    containers: list[Any] = []

    def happen() -> None:
        containers.extend(_claim(lesson, leftovers))
        act(lesson.kernel_pid)

    lesson.client.when_begun = happen
    with pytest.raises((nbclient.exceptions.CellExecutionError, nbclient.exceptions.DeadKernelError)):
        lesson.say(BUSY + last_words)
    assert containers
    if ending != "killed":
        lesson.shut_down()
    assert not leftovers.found()
    assert not _containers_of(lesson)
    assert not [one for one in containers if (EXEC_ROOT / "containers" / one.id).exists()]
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout
    assert not [one for one in containers if one.id[:12] in rules]


@pytest.mark.needs_daemon
def test_a_lesson_begins_by_removing_what_killed_kernels_left(open_lesson: Callable[[Path], Any]) -> None:
    lesson = open_lesson(LESSONS[1])
    lesson.run(lesson.cells[:1])
    own = json.loads(lesson.say("import json; print(json.dumps(mine))"))["minidocker.notebook"]
    namespace, pid, started = own.split("-")
    client = connect()
    labels = {"own": own, "dead": f"{namespace}-{pid}-{int(started) - 1}", "elsewhere": f"1-{pid}-{started}"}
    made = {
        name: client.containers.create("busybox", ["true"], labels={"minidocker.notebook": label})
        for name, label in labels.items()
    }
    try:
        lesson.run(lesson.cells[:1])
        left = {one.id for one in client.containers.list(all=True)}
        assert {name for name, one in made.items() if one.id in left} == {"elsewhere"}
    finally:
        made["elsewhere"].remove(force=True)


@pytest.mark.needs_daemon
@pytest.mark.parametrize(("probe", "words"), [("root", "needs root: it"), ("daemon", "needs the daemon: run ./lab")])
@every_lesson
def test_a_lesson_without_what_it_needs_says_so_in_one_line(
    path: Path, probe: str, words: str, open_lesson: Callable[[Path], Any]
) -> None:
    lesson = open_lesson(path)
    lesson.say(f"from minidocker.lab import privileges; privileges.PROBES[{probe!r}] = lambda: {words!r}")
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        lesson.run(lesson.cells[:1])
    (error,) = lesson.cells[0].outputs
    assert error["ename"] == "Skipped" and error["traceback"] == [f"Skipped: {words}"]


@pytest.mark.needs_daemon
def test_a_lesson_without_strace_skips_its_timeline_in_words(open_lesson: Callable[[Path], Any]) -> None:
    lesson = open_lesson(LESSONS[13])
    timeline = next(number for number, cell in enumerate(lesson.cells) if "request_timeline(" in cell.source)
    lesson.say("from minidocker.lab.props import syscalls; syscalls._PROGRAMS = {'no-strace': 'strace'}")
    said = lesson.run(lesson.cells[: timeline + 1])
    assert "skipped: no-strace is not installed, which watches system calls: apt-get install strace" in said
    assert lesson.cells[timeline].outputs == []
