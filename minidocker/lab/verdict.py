"""`minidocker check ex01`: the verdict on a learner's notebook, by the tests that are in it.

Source  nbgrader's cell metadata (schema 3); nbclient documentation.
Rules   - the test cells are those that nbgrader runs when it grades, in a kernel as it makes one: one checker, not two.
        - at most five lines a failure; the exit status is 0 only if every test holds.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from minidocker.errors import InvalidArgument, NotFound
from minidocker.lab import sandbox

EXERCISES = Path(__file__).resolve().parents[2] / "exercises"
CELL_TIMEOUT_SECONDS = 60
LONGEST_LINE = 200
USAGE = "usage: minidocker check EXERCISE (its number, as in `minidocker check ex01`, or the path of a notebook)"


def find(name: str) -> Path:
    """The learner's notebook: a path; or the one of that name in the working directory, or else in exercises/release.

    Raises  NotFound, InvalidArgument: it is not there, or there are several.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name).resolve()
    here = Path.cwd()
    for place, pattern in ((here, f"{name}*.ipynb"), (EXERCISES / "release", f"{name}*/{name}*.ipynb")):
        found = sorted(place.glob(pattern))
        if len(found) > 1:
            raise InvalidArgument(f"several notebooks are called {name}*.ipynb in {place}: give the path of one")
        if found:
            return found[0]
    raise NotFound(f"no notebook {name}*.ipynb in {here}, nor in {EXERCISES / 'release'}")


def run(path: Path) -> Iterator[tuple[str, float, list[str]]]:
    """Run the notebook from top to bottom: for each test its name, its points, and the lines of its failure.

    Raises  InvalidArgument: the kernel died, or a cell could not be interrupted.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_SECONDS,
        kernel_name=sandbox.NAME if sandbox.directory().exists() else "python3",  # whatever its metadata say
        extra_arguments=["--log-level=ERROR"],  # of the kernel: no warning that it listens on loopback
        interrupt_on_timeout=True,
        allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (DeadKernelError, CellTimeoutError):
        raise InvalidArgument(f"{path.name}: a cell ended the kernel, or did not end: run it cell by cell") from None
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and marks.get("grade"):
            bad = [output for output in cell.outputs if output.output_type == "error" or output.get("name") == "stderr"]
            yield marks["grade_id"], marks["points"], _lines(bad[0]) if bad else []


def _lines(error: Any) -> list[str]:
    """Four lines at most: a check's own words; of any other error, only what it says."""
    if error.output_type == "stream":  # for nbgrader, a test that writes to standard error has failed
        lines = ["Not yet: something was written to standard error", *error.text.splitlines()[:1]]
    elif error.ename == "CheckFailed":
        lines = list(error.traceback)
    else:
        lines = ["Not yet: the test could not be run", f"  observed: {error.ename}: {error.evalue}"]
        lines.append("  next:     run the notebook from the top, and look at the first cell that fails")
    return [line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..." for line in lines[:4]]


def main(arguments: list[str]) -> int:
    """Print the verdict; 0 all tests hold, 1 one does not, 64 called wrongly."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 64
    try:
        path = find(arguments[0])
        print(f"checking {path}")
        results = list(run(path))
    except (NotFound, InvalidArgument) as error:
        print(f"minidocker check: {error}", file=sys.stderr)
        return 1
    for name, points, failure in results:
        print(f"{'NO' if failure else 'ok'}  {name} ({points:g} points)")
        for line in failure:
            print(f"    {line}")
    failed = sum(bool(failure) for _, _, failure in results)
    print(f"{len(results) - failed} of {len(results)} tests hold")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
