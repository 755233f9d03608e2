"""Checks of exercises: a learner's functions run in an isolated process, and the kernel's evidence is looked at.

Source  nbgrader documentation, "Autograder tests cells"; namespaces(7).
Rules   - a check never believes what a function returns about the kernel: it looks for itself.
        - a check holds the text of a learner's code, never a live object of it; what the code says comes back as text.
        - a failure says which idea, what was observed, what was expected and what to try: five lines at most.
        - nothing is written to standard error, which nbgrader takes for a failure.
        - hidden cases are not in this package: they are in the instructor's `grading/`, in the course root.

    test cell: hidden("ex04-limit", f) --definition_of--> judged(place, name, definitions): the instructor's cases
    Bench.run(code, definitions) --text--> Runner: an isolated process (or a container) --text--> plain values
"""

import contextvars
import importlib.util
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minidocker.lab import plain
from minidocker.lab.cell import CellFailed
from minidocker.lab.definitions import Definition, Learned, NoSource, code_of
from minidocker.lab.definitions import definition_of as _definition_of
from minidocker.lab.grading import wire
from minidocker.lab.isolated import Isolation

CASES = "grading"
LONGEST_LINE = 200


class CheckFailed(AssertionError):
    """One check that did not hold; shown as four lines, never as a traceback (which could show hidden tests)."""

    def __init__(self, concept: str, observed: str, expected: str, next_step: str) -> None:
        observed, expected = _one_line(observed), _one_line(expected)
        super().__init__(f"{concept}: observed {observed}, expected {expected}; {next_step}")
        self.lines = [
            f"Not yet: {concept}",
            f"  observed: {observed}",
            f"  expected: {expected}",
            f"  next:     {next_step}",
        ]

    @classmethod
    def told(cls, lines: list[str]) -> "CheckFailed":
        """What a judge elsewhere says."""
        made = cls("", "", "", "")
        made.args, made.lines = ("; ".join(line.strip() for line in lines),), lines
        return made

    def _render_traceback_(self) -> list[str]:
        return self.lines


def _one_line(text: str) -> str:
    return textwrap.shorten(text, LONGEST_LINE, placeholder=" ...") or "nothing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call in an isolated process did. `left_children`: how many it left running or unreaped."""

    value: Any
    output: str
    open_fds_before: int
    open_fds_after: int
    left_children: int


def definition_of(learned: Learned | Definition) -> Definition:
    """The text of a learner's function or class. Raises CheckFailed: it is not to be found."""
    try:
        return _definition_of(learned)
    except NoSource as error:
        raise CheckFailed(
            "your code can be read", str(error), "a `def` or `class` in a cell of this notebook", "run that cell again"
        ) from None


# ---------------------------------------------------------------- where the learner's code runs


class Runner(Protocol):
    """Runs a program of text where it can do no harm. Texts go in and come out; nothing is unpickled."""

    def run(
        self, code: str, *, values: dict[str, str], wanted: tuple[str, ...], timeout_seconds: float
    ) -> tuple[dict[str, str], str]:
        """Run `code` with the names of `values` set; the texts of the `wanted` names, and what was printed.

        Raises  CellFailed: it raised, was killed, or ran out of time or memory.
        """
        ...

    def close(self) -> None:
        """End what it keeps running."""
        ...


class HelperProcess:
    """The runner of a learner's own notebook: process 1 of new namespaces, as `%%isolated` makes it."""

    def __init__(self) -> None:
        self._isolation = Isolation(plain=True)

    def run(
        self, code: str, *, values: dict[str, str], wanted: tuple[str, ...], timeout_seconds: float
    ) -> tuple[dict[str, str], str]:
        """See Runner."""
        printed: list[str] = []
        found = self._isolation.run(
            code,
            values=values,
            wanted=wanted,
            timeout_seconds=timeout_seconds,
            on_output=lambda kind, content: printed.append(content) if kind == "stdout" else None,
        )
        return found, "".join(printed)

    def close(self) -> None:
        """See Runner."""
        self._isolation.close()


RUNNER: contextvars.ContextVar[Callable[[], Runner]] = contextvars.ContextVar("RUNNER", default=HelperProcess)
"""What makes the runner of a new Bench; a judge sets it to one that reaches into the learner's container."""

_BEFORE = """
from minidocker.lab.plain import decode as _decode
globals().update(_decode(_values, members=True))
"""
_AFTER = """
from minidocker.lab.plain import encode as _encode
_answers = _encode({{_name: globals()[_name] for _name in {wanted!r}}})
"""
_CALL = """
import os as _os

def _fds():
    return len(_os.listdir("/proc/self/fd"))

_before = _fds()
_value = {name}(*_arguments)
_after = _fds()
_children = len(open("/proc/self/task/%d/children" % _os.getpid()).read().split())
"""


class Bench:
    """Where a learner's definitions are tried: each run in a process of its own, as pid 1 of its own namespaces.

    `printed` holds what the last run wrote to standard output.
    """

    def __init__(self, *, timeout_seconds: float = 10.0) -> None:
        self._runner = RUNNER.get()()
        self._timeout_seconds = timeout_seconds
        self.printed = ""

    def run(
        self,
        code: str,
        *,
        definitions: Sequence[Learned | Definition] = (),
        values: dict[str, Any] | None = None,
        wanted: tuple[str, ...] = (),
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Run `code` in an isolated process in which the learner's definitions are there; the `wanted` names' values.

        definitions  the learner's functions and classes; what they use comes along (definitions.py).
        values       names that `code` finds set: plain values (plain.py), or members of enumerations.
        Raises  CheckFailed: it raised, hung, is not written yet, or a wanted value is not plain.
        """
        texts = [definition_of(learned) for learned in definitions]
        given = plain.encode(values or {}, members=True)
        program = "\n".join((code_of(texts), _BEFORE, textwrap.dedent(code), _AFTER.format(wanted=wanted)))
        try:
            found, self.printed = self._runner.run(
                program,
                values={"_values": given},
                wanted=("_answers",),
                timeout_seconds=timeout_seconds or self._timeout_seconds,
            )
            return dict(plain.decode(str(found["_answers"])))
        except CellFailed as error:
            raise _explained([text.name for text in texts], error) from None
        except (ValueError, TypeError, KeyError):
            raise CheckFailed("results can be read", "something else", plain.PLAIN, "return plain values") from None

    def call(self, function: Learned | Definition, *arguments: Any, setup: str = "") -> Outcome:
        """Call `function` with `arguments` (plain values, or members of enumerations) in an isolated process.

        setup   code that runs there first.
        Raises  CheckFailed: as `run` does.
        """
        definition = definition_of(function)
        found = self.run(
            f"{textwrap.dedent(setup)}\n{_CALL.format(name=definition.name)}",
            definitions=[definition],
            values={"_arguments": arguments},
            wanted=("_value", "_before", "_after", "_children"),
        )
        return Outcome(found["_value"], self.printed, found["_before"], found["_after"], found["_children"])

    def close(self) -> None:
        """End the helper process."""
        self._runner.close()


def _explained(names: list[str], error: CellFailed) -> CheckFailed:
    name = " and ".join(names) or "the code"
    if "NotImplementedError" in str(error):
        raising = re.findall(r", in (\w+)\n", error.remote_traceback)
        name = raising[-1] if raising and raising[-1] != "<module>" else name
        return CheckFailed(f"{name} is not written yet", "NotImplementedError", "your code", "replace the raise line")
    if str(error).startswith("NotPlain"):
        return CheckFailed(f"{name} gives plain values", str(error), plain.PLAIN, "return plain values")
    return CheckFailed(f"{name} ended badly", str(error), "a return value", "try it alone in an %%isolated cell")


# ---------------------------------------------------------------- the words of a check


def expect(condition: bool, concept: str, observed: object, expected: object, next_step: str) -> None:
    """Raise CheckFailed unless `condition` holds."""
    if not condition:
        raise CheckFailed(concept, str(observed), str(expected), next_step)


def hidden(name: str, *functions: Learned | Definition) -> None:
    """Run the instructor's cases called `name`, of the course root above the working directory.

    In a grader's container they are not there: the judge outside is asked.

    Raises  CheckFailed: a case failed, or there are no cases here (then nothing may be scored).
    """
    if wire.JUDGE.exists():
        if lines := wire.ask(name, [definition_of(function) for function in functions]):
            raise CheckFailed.told(lines)
        return
    root = next((top for top in (Path.cwd(), *Path.cwd().parents) if (top / CASES).is_dir()), None)
    if root is None:
        raise CheckFailed(
            "hidden cases", f"no {CASES}/ above {Path.cwd()}", "the course root", "grade inside the course"
        )
    judged(root / CASES, name, [definition_of(function) for function in functions])


def judged(cases: Path, name: str, definitions: Sequence[Definition]) -> None:
    """Run the cases called `name` ("ex04-limit": in ex04.py of the directory `cases`) on texts of a learner's code.

    Raises  CheckFailed: with the idea that was missed; what the case looked at, and how, stays with the instructor.
    """
    place = cases / f"{name.partition('-')[0]}.py"
    spec = importlib.util.spec_from_file_location(f"minidocker_grading_{place.stem}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.CASES[name](*definitions)
    except CheckFailed as failed:
        concept = failed.lines[0].removeprefix("Not yet: ")
    except Exception as error:  # such as a KeyError, for a result of an unforeseen form
        concept = f"the results have the form that the text asks for ({type(error).__name__})"
    else:
        return
    raise CheckFailed(concept, "another result", "what the text asks for", "read the lesson's part on it")
