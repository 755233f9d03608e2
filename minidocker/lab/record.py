"""`./lab notebooks --record`: run the lessons and keep what they print, for readers who cannot run them.

Source  nbclient documentation; nbformat 4.5.
Rules   - a lesson is written back only if every cell of it went well.
        - buttons are not kept, since without a kernel they do nothing: their text and picture are.
        - what differs without meaning (counters, times of execution, versions) is not kept either.
"""

import copy
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT_SECONDS = 30


def record(path: Path) -> None:
    """Run one lesson in place. Raises CellExecutionError: a cell failed, and the file is as it was."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    metadata = copy.deepcopy(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_SECONDS,
        extra_arguments=["--log-level=ERROR"],  # of the kernel: no warning that it listens on loopback
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
                if "execution_count" in output:
                    output.execution_count = None
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def main(arguments: list[str]) -> int:
    """Record the lessons whose paths are given."""
    for name in arguments:
        print(f"==> {name}", flush=True)
        try:
            record(Path(name))
        except CellExecutionError as error:
            print(f"lab: {name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
