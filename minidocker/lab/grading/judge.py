"""The judge of one submission: runs the hidden cases outside of its container, and remembers which ones held.

Source  COURSE: hidden cases never enter a learner's kernel.
Rules   - only texts come in, and only plain values (lab/plain.py): a container is nobody that we trust.
        - what a case lets run, it lets run in the container, in a fresh process; where inputs are chosen and results
          compared is here.
        - the notebook's own word does not count: a test with hidden cases has its points only if they held here.
"""

import contextvars
import re
import socket
from pathlib import Path

from minidocker.lab import checks
from minidocker.lab.cell import CellFailed
from minidocker.lab.definitions import Definition
from minidocker.lab.grading import wire

QUESTIONS_LIMIT = 60
LINE_LIMIT = 300
_HIDDEN = re.compile(r"""^\s*checks\.hidden\(\s*["']([^"']+)["']""", re.MULTILINE)
_NOT_RUN = [
    "Not yet: the hidden tests of this cell were not run, or did not hold",
    "  next:     run the cells above it",
]


def names_in(source: str) -> list[str]:
    """The hidden cases that a test cell of the instructor's asks for.

    >>> names_in('checks.expect(True)\\nchecks.hidden("ex04-limit", limit)')
    ['ex04-limit']
    """
    return _HIDDEN.findall(source)


class Judge:
    """The cases of one course for one submission. `held`: name of a case -> whether it held when last asked."""

    def __init__(self, cases: Path, known: set[str]) -> None:
        self.cases = cases
        self.known = known
        self.held: dict[str, bool] = {}
        self._asked = 0

    def answer(self, sock: socket.socket, message: wire.Message) -> None:
        """Run the cases that a message asks for, and send the verdict. Raises wire.Broken, TimeoutError."""
        name, definitions = wire.as_question(message)
        self._asked += 1
        if name not in self.known or self._asked > QUESTIONS_LIMIT:
            lines = [f"Not yet: there are no such cases, or more than {QUESTIONS_LIMIT} questions were asked"]
        else:
            context = contextvars.copy_context()
            lines = context.run(self._try, sock, name, definitions)
            self.held[name] = not lines
        wire.send(sock, {"kind": "verdict", "lines": lines})

    def _try(self, sock: socket.socket, name: str, definitions: list[Definition]) -> list[str]:
        checks.RUNNER.set(lambda: _InContainer(sock))
        try:
            checks.judged(self.cases, name, definitions)
        except checks.CheckFailed as failed:
            return failed.lines
        return []

    def missing(self, source: str) -> list[str]:
        """Why a test cell that shows no failure has no points all the same; [] if it has them."""
        return [] if all(self.held.get(name) for name in names_in(source)) else _NOT_RUN


class _InContainer:
    """The runner of the cases (checks.Runner): asks back for a fresh process in the container."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def run(
        self, code: str, *, values: dict[str, str], wanted: tuple[str, ...], timeout_seconds: float
    ) -> tuple[dict[str, str], str]:
        """See checks.Runner."""
        request = {"code": code, "values": values, "wanted": list(wanted), "timeout_seconds": timeout_seconds}
        wire.send(self._socket, {"kind": "run", **request})
        answer = wire.receive(self._socket)
        if answer["kind"] == "failed":
            raise CellFailed(str(answer.get("reason"))[:LINE_LIMIT], str(answer.get("traceback"))[:10_000])
        found = answer.get("found")
        if answer["kind"] != "ran" or not isinstance(found, dict):
            raise wire.Broken("another answer than to the question")
        return {str(name): str(text) for name, text in found.items()}, str(answer.get("printed"))

    def close(self) -> None:
        """See checks.Runner."""
