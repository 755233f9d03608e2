"""The checks of exercises: a learner's function runs isolated, and a failure is told in a few lines."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab import checks
from minidocker.linux.namespaces import CloneFlag, unshare

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
    (tmp_path / "grading.py").write_text(
        "from minidocker.lab.checks import expect\n"
        "def case(function):\n    expect(function() == 5, 'the sum', function(), 'SECRET', 'SECRET')\n"
        "CASES = {'sum': case}\n"
    )
    inner = tmp_path / "autograded" / "student"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    checks.hidden("sum", lambda: 5)
    with pytest.raises(checks.CheckFailed) as caught:
        checks.hidden("sum", lambda: 6)
    assert "the sum" in str(caught.value) and "SECRET" not in str(caught.value)


def test_without_hidden_cases_nothing_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(checks.CheckFailed, match=r"no grading\.py above"):
        checks.hidden("sum", lambda: 5)
