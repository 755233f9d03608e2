"""The checks of exercises: a learner's function runs isolated, and a failure is told in a few lines."""

import enum
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import minidocker.linux.process
from minidocker.lab import checks, plain
from minidocker.linux.namespaces import KINDS, CloneFlag, unshare

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def bench() -> Iterator[checks.Bench]:
    made = checks.Bench(timeout_seconds=3)
    yield made
    made.close()


def adds(a: int, b: int) -> int:
    print("adding")
    return a + b


def leaks() -> int:
    os.pipe()
    if os.fork() == 0:
        os._exit(0)
    return 0


def renames() -> str:
    unshare(CloneFlag.NEWUTS)
    return os.uname().nodename


def unwritten() -> None:
    raise NotImplementedError()


def fails() -> None:
    raise ValueError("line one\nline two\n" + "x" * 500)


def hangs() -> None:
    while True:
        pass


def dies() -> None:
    os._exit(3)


def right() -> dict[str, int]:
    return {"SECRET": 5}


def wrong() -> dict[str, int]:
    return {"SECRET": 6}


def formless() -> dict[str, int]:
    return {}


WORD = re.compile(r"[a-z]+")
FLAGS = CloneFlag.NEWUTS | CloneFlag.NEWIPC
LIMIT = 3


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Layer:
    name: str
    files: dict[str, bytes] = field(default_factory=dict)


class Stack(list[Layer]):
    """A class on another class, with a constant, a pattern and a helper of other places."""

    limit = LIMIT

    def words(self) -> list[str]:
        return [shout(word) for layer in self for word in WORD.findall(layer.name)][: self.limit]


def shout(word: str) -> str:
    return word.upper() if word != "again" else shout("twice")


def stack(names: list[str]) -> tuple[list[str], set[int], bytes]:
    made = Stack(Layer(name) for name in names)
    return made.words(), {len(made), int(FLAGS)}, Colour.RED.value.encode()


def own_start() -> bool:
    return minidocker.linux.process.start_time(os.getpid()) > 0


def kinds() -> list[str]:
    return sorted(KINDS)


def is_uts(flags: CloneFlag) -> bool:
    return isinstance(flags, CloneFlag) and CloneFlag.NEWUTS in flags


def gives_an_object() -> Any:
    return {"a": [object()]}


def test_what_a_function_uses_comes_along(bench: checks.Bench) -> None:
    """Constants, patterns, helpers, classes, and modules that are written in full."""
    value = bench.call(stack, ["base a", "again", "top"]).value
    assert value == (["BASE", "A", "TWICE"], {3, int(FLAGS)}, b"red")
    assert bench.call(own_start).value is True
    assert bench.call(kinds).value == sorted(KINDS), "an imported object that does not know its module"


def test_code_runs_with_definitions_and_plain_values(bench: checks.Bench) -> None:
    code = """
        made = Stack([Layer("x", {"f": content})])
        names = made.words()
        print("seen", made[0].files["f"])
        size = len(made[0].files["f"])
    """
    values = {"content": b"\x00\xff"}
    found = bench.run(code, definitions=[Stack, Layer], values=values, wanted=("names", "size"))
    assert found == {"names": ["X"], "size": 2}
    assert bench.printed == "seen b'\\x00\\xff'\n"


def test_members_of_enumerations_go_in_as_such_and_come_out_plain(bench: checks.Bench) -> None:
    assert bench.call(is_uts, CloneFlag.NEWUTS | CloneFlag.NEWPID).value is True
    found = bench.run("result = [number, type(number).__name__]", values={"number": signal.SIGTERM}, wanted=("result",))
    assert found["result"] == [15, "Signals"] and type(found["result"][0]) is int


def test_values_that_are_not_plain_are_refused(bench: checks.Bench) -> None:
    with pytest.raises(checks.CheckFailed, match="object is not a plain value"):
        bench.call(gives_an_object)
    with pytest.raises(plain.NotPlain):
        bench.call(adds, object(), 1)
    with pytest.raises(checks.CheckFailed, match="your code can be read"):
        bench.call(lambda: 5)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, float("inf"), "a\udc80", b"\x00", [1, (2,)], {}, set(), {(1, "a"): {2, 3}, b"k": [None]}],
)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    again = plain.decode(plain.encode(value))
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"bytes": 5}',
        '{"list": 5}',
        '{"member": ["os", "system", "true"]}',
        '{"x": [], "list": []}',
        "[" * 9999,
    ],
)
def test_a_text_that_holds_no_plain_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        plain.decode(text)


def test_a_class_of_a_notebook_cell_is_found() -> None:
    """Also one without methods, whose text inspect finds in no version of Python."""
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    cells = (
        "from dataclasses import dataclass\nimport os.path, errno\nCODES = {errno.ENOENT: 'gone'}",
        "@dataclass\nclass Record:\n    name: str = 'old'\n",
        "@dataclass\nclass Record:\n    name: str = 'new'\n    code: int = errno.ENOENT\n",
        "class Store:\n    def first(self):\n        return os.path.join(Record().name, CODES[Record().code])\n",
    )
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    definition = checks.definition_of(shell.user_ns["Store"])
    scope: dict[str, Any] = {}
    exec("\n".join(definition.blocks), scope)
    assert scope["Store"]().first() == "new/gone"
    assert isinstance(definition.name, str) and all(isinstance(block, str) for block in definition.blocks)
    InteractiveShell.clear_instance()


def test_a_bench_runs_where_the_judge_says() -> None:
    """All that a runner needs to know are texts."""
    heard: list[str] = []

    class Elsewhere:
        def run(
            self, code: str, *, values: dict[str, str], wanted: tuple[str, ...], timeout_seconds: float
        ) -> tuple[dict[str, str], str]:
            heard.append(code)
            scope: dict[str, Any] = dict(values)
            exec(code, scope)
            return {name: scope[name] for name in wanted}, "printed there"

        def close(self) -> None:
            heard.append("closed")

    token = checks.RUNNER.set(Elsewhere)
    try:
        bench = checks.Bench()
    finally:
        checks.RUNNER.reset(token)
    assert bench.run("a = shout(b)", definitions=[shout], values={"b": "x"}, wanted=("a",)) == {"a": "X"}
    assert bench.printed == "printed there" and "def shout" in heard[0]
    bench.close()
    assert heard[-1] == "closed"


def test_a_call_tells_value_output_descriptors_and_children(bench: checks.Bench) -> None:
    tried = bench.call(adds, 2, 3)
    assert (tried.value, tried.output, tried.left_children) == (5, "adding\n", 0)
    assert tried.open_fds_after == tried.open_fds_before
    sloppy = bench.call(leaks)
    assert sloppy.left_children == 1 and sloppy.open_fds_after == sloppy.open_fds_before + 2


def test_a_function_finds_what_its_notebook_has_imported(bench: checks.Bench) -> None:
    assert bench.call(renames).value == os.uname().nodename


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (unwritten, "unwritten is not written yet"),
        (fails, "ValueError: line one line two"),
        (hangs, "time limit"),
        (dies, "exit status 3"),
    ],
)
def test_a_failure_takes_five_lines_at_most(bench: checks.Bench, function: Any, words: str) -> None:
    with pytest.raises(checks.CheckFailed) as caught:
        bench.call(function)
    lines = caught.value._render_traceback_()
    assert words in "\n".join(lines)
    assert len("\n".join(lines).splitlines()) == len(lines) <= 5
    assert max(map(len, lines)) < 240


def test_expect_names_concept_observed_expected_and_next_step() -> None:
    checks.expect(True, "a", "b", "c", "d")
    with pytest.raises(checks.CheckFailed) as caught:
        checks.expect(False, "the inode differs", 5, "not 5", "unshare first")
    assert caught.value._render_traceback_() == [
        "Not yet: the inode differs",
        "  observed: 5",
        "  expected: not 5",
        "  next:     unshare first",
    ]


def test_hidden_cases_are_found_in_the_course_root_and_do_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grading").mkdir()
    (tmp_path / "grading" / "ex99.py").write_text(
        "from minidocker.lab.checks import Bench, expect\n"
        "def case(function):\n"
        "    bench = Bench()\n"
        "    found = bench.call(function).value\n"
        "    bench.close()\n"
        "    expect(found['SECRET'] == 5, 'the sum', found, 'SECRET', 'SECRET')\n"
        "CASES = {'ex99-sum': case}\n"
    )
    inner = tmp_path / "autograded" / "student"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    checks.hidden("ex99-sum", right)
    for function, words in ((wrong, "the sum"), (formless, "KeyError")):
        with pytest.raises(checks.CheckFailed) as caught:
            checks.hidden("ex99-sum", function)
        assert words in str(caught.value) and "SECRET" not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_without_hidden_cases_nothing_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(checks.CheckFailed, match=r"no grading/ above"):
        checks.hidden("ex99-sum", right)
