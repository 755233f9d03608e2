"""A lesson in a kernel of its own: its cells are run one by one, and something can happen while one of them runs."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install minidocker[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install minidocker[test]")

from jupyter_core.utils import run_sync  # noqa: E402

CELL_TIMEOUT_SECONDS = 30


class Listening(nbclient.NotebookClient):  # type: ignore[misc,name-defined]
    """Runs cells, and calls `when_begun` as soon as one has printed "begun"."""

    when_begun: Callable[[], None] | None = None

    def output(self, outs: Any, msg: Any, display_id: Any, cell_index: Any) -> Any:
        if self.when_begun and "begun" in msg["content"].get("text", ""):
            self.when_begun()
        return super().output(outs, msg, display_id, cell_index)


class Lesson:
    """A lesson and its running kernel."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.cells = [cell for cell in client.nb.cells if cell.cell_type == "code"]
        self.kernel_pid = int(client.km.provisioner.pid)

    def run(self, cells: list[Any] | None = None) -> str:
        """Run these cells (all of them); what they printed. Raises CellExecutionError at the first that fails."""
        return "".join(self._execute(cell) for cell in (self.cells if cells is None else cells))

    def say(self, code: str) -> str:
        """Run code that is not in the lesson."""
        return self._execute(nbformat.v4.new_code_cell(code))

    def _execute(self, cell: Any) -> str:
        self.client.nb.cells = [cell]
        self.client.execute_cell(cell, 0)
        return "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")

    def shut_down(self) -> None:
        """End the kernel as JupyterLab does when the notebook is closed."""
        run_sync(self.client.km.shutdown_kernel)()

    def processes(self) -> list[int]:
        """The kernel and all its descendants that live: the helper of `%%isolated`, its cells, the guard."""
        found = [self.kernel_pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        return found


@pytest.fixture
def open_lesson(monkeypatch: pytest.MonkeyPatch, leftovers: object) -> Iterator[Callable[[Path], Lesson]]:
    """Give a lesson a kernel, which is shut down at the end of the test if it still runs."""
    with contextlib.ExitStack() as kernels:

        def start(path: Path) -> Lesson:
            monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)  # with it, lessons skip in pytest's way
            notebook = nbformat.read(path, as_version=4)
            resources = {"metadata": {"path": str(path.parent)}}
            client = Listening(notebook, timeout=CELL_TIMEOUT_SECONDS, resources=resources)
            kernels.enter_context(client.setup_kernel())
            return Lesson(client)

        yield start
