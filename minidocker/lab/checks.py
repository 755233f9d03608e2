"""Checks of exercises: a learner's function runs in an isolated process, and the kernel's evidence is looked at.

Source  nbgrader documentation, "Autograder tests cells"; namespaces(7).
Rules   - a check never believes what a function returns about the kernel: it looks for itself.
        - a failure says which idea, what was observed, what was expected and what to try: five lines at most.
        - nothing is written to standard error, which nbgrader takes for a failure.
        - hidden cases are not in this package: they are in the instructor's `grading.py`, in the course root.
"""

import importlib.util
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from minidocker.lab.cell import CellFailed
from minidocker.lab.isolated import Isolation

CASES = "grading.py"
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


_DRIVER = """
import os as _os

def _fds():
    return len(_os.listdir("/proc/self/fd"))

_before = _fds()
_value = {name}(*_arguments)
_after = _fds()
_children = len(open("/proc/self/task/%d/children" % _os.getpid()).read().split())
"""


class Bench:
    """Where a learner's functions are tried: each call in a process of its own, as pid 1 of its own namespaces."""

    def __init__(self, *, timeout_seconds: float = 10.0) -> None:
        self._isolation = Isolation()
        self._timeout_seconds = timeout_seconds

    def call(self, function: Callable[..., Any], *arguments: Any, setup: str = "") -> Outcome:
        """Call `function` with `arguments` (which must pickle) in an isolated process.

        setup   code that runs there first.
        Raises  CheckFailed: the function raised, hung, or is not written yet.
        """
        source = textwrap.dedent(inspect.getsource(function))
        code = f"{_imports_of(function)}\n{setup}\n{source}\n{_DRIVER.format(name=function.__name__)}"
        heard: list[str] = []
        try:
            found = self._isolation.run(
                code,
                values={"_arguments": arguments},
                wanted=("_value", "_before", "_after", "_children"),
                timeout_seconds=self._timeout_seconds,
                on_output=lambda kind, content: heard.append(content) if kind == "stdout" else None,
            )
        except CellFailed as error:
            raise self._explained(function.__name__, error) from None
        return Outcome(found["_value"], "".join(heard), found["_before"], found["_after"], found["_children"])

    @staticmethod
    def _explained(name: str, error: CellFailed) -> CheckFailed:
        if "NotImplementedError" in str(error):
            return CheckFailed(
                f"{name} is not written yet", "NotImplementedError", "your code", "replace the raise line"
            )
        return CheckFailed(f"{name} ended badly", str(error), "a return value", "try it alone in an %%isolated cell")

    def close(self) -> None:
        """End the helper process."""
        self._isolation.close()


def _imports_of(function: Callable[..., Any]) -> str:
    """Import statements for the modules and names that the function's notebook has imported from this package or os."""
    lines = []
    for name, value in function.__globals__.items():
        if isinstance(value, ModuleType) and value.__name__.split(".")[0] in ("os", "posix", "signal", "minidocker"):
            lines.append(f"import {value.__name__} as {name}" if name != "minidocker" else "import minidocker")
        elif not name.startswith("_") and getattr(value, "__module__", "").startswith("minidocker.linux"):
            lines.append(f"from {value.__module__} import {getattr(value, '__name__', name)} as {name}")
    return "\n".join(lines)


def expect(condition: bool, concept: str, observed: object, expected: object, next_step: str) -> None:
    """Raise CheckFailed unless `condition` holds."""
    if not condition:
        raise CheckFailed(concept, str(observed), str(expected), next_step)


def hidden(name: str, *functions: Callable[..., Any]) -> None:
    """Run the instructor's cases called `name`; they are looked for in the course root above the working directory.

    Raises  CheckFailed: a case failed, or there are no cases here (then nothing may be scored).
    """
    place = next((top / CASES for top in (Path.cwd(), *Path.cwd().parents) if (top / CASES).exists()), None)
    if place is None:
        raise CheckFailed(
            "hidden cases", f"no {CASES} above {Path.cwd()}", "the course root", "grade inside the course"
        )
    spec = importlib.util.spec_from_file_location("minidocker_grading", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.CASES[name](*functions)
    except CheckFailed as failed:
        concept = failed.lines[0].removeprefix("Not yet: ")
        raise CheckFailed(concept, "another result", "what the text asks for", "read the lesson's part on it") from None
