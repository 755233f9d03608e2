"""A child process that takes one step at a time, so that a check can look at it from outside in between.

Source  fork(2), proc(5): /proc/PID/root, /proc/PID/mountinfo, /proc/PID/fd.
Rules   - for single-threaded processes, such as an isolated cell; never for a notebook's kernel.
        - what a step has done to the process is read from /proc by its parent, not told by the step.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

_LONGEST = 4000


class StepRaised(RuntimeError):
    """A step of the child did not end well; the text is the child's."""


class Stepwise:
    """`with Stepwise(first, second) as child: child.go(); look(child.pid); child.go()`; at the end it is killed."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        ordered, self._order = os.pipe()
        self._answers, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._order)
            os.close(self._answers)
            _take(steps, ordered, answer)
        os.close(ordered)
        os.close(answer)

    def go(self) -> None:
        """Let the child take its next step, and wait until it has.

        Raises  NotImplementedError: the step did. StepRaised: it raised something else, or the process ended.
        """
        os.write(self._order, b"!")
        answer = os.read(self._answers, _LONGEST).decode(errors="replace")
        if answer.startswith("NotImplementedError"):
            raise NotImplementedError
        if answer != "done":
            raise StepRaised(answer or "the process ended in the middle of it")

    def __enter__(self) -> "Stepwise":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._order)
        os.close(self._answers)


def _take(steps: tuple[Callable[[], object], ...], ordered: int, answer: int) -> NoReturn:
    try:
        for step in steps:
            if not os.read(ordered, 1):
                break
            try:
                step()
                words = "done"
            except Exception as error:
                words = f"{type(error).__name__}: {error}"
            os.write(answer, words.encode()[:_LONGEST])
        os.read(ordered, 1)
    finally:
        os._exit(0)
