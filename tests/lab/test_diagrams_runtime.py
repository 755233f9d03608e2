"""The states of a container, asked of the runtime, and the chain of its parents, asked of the kernel."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import NotFound
from minidocker.lab.diagrams.runtime import NOTHING, ancestors, lineage, state_machine, state_of
from minidocker.lab.props import bundles
from minidocker.lab.setup import base_image


def _now(root: Path) -> tuple[str, set[str]]:
    """The state that the picture marks, and the commands that it says are possible."""
    picture = state_machine(root, "one")
    marked = [line for line in picture.dot.splitlines() if "NOW (one)" in line]
    assert len(marked) == 1
    return marked[0].split('"')[1], {row[1] for row in picture.rows if row[3] == "possible now"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[bundles.Place]:
    made = bundles.Place(tmp_path / "place")
    yield made
    bundles.remove(made.directory)


@pytest.mark.needs_root
def test_the_picture_marks_the_state_that_the_runtime_finds(place: bundles.Place) -> None:
    try:
        busybox = base_image.find_busybox()
    except NotFound as error:
        pytest.skip(str(error))
    bundle = place.make("b", ["sleep", "600"], [base_image.layer_tar(busybox, ["bin/sleep"])])
    root = place.root()
    assert _now(root) == (NOTHING, {"create"})
    place.runtime("create", "--bundle", bundle, "one")
    assert _now(root) == ("created", {"start", "kill", "delete"})
    pid = place.runtime("state", "one").document()["pid"]
    assert state_of(root, "one") == ("created", pid) and f"process {pid}" in state_machine(root, "one").alt
    place.runtime("start", "one")
    assert _now(root) == ("running", {"pause", "kill, or its end"})
    place.runtime("pause", "one")
    assert _now(root) == ("paused", {"resume"})
    place.runtime("delete", "--force", "one")
    assert _now(root) == (NOTHING, {"create"})


def test_the_picture_can_be_drawn_where_no_runtime_has_been(tmp_path: Path) -> None:
    picture = state_machine(tmp_path / "nowhere", "one")
    assert picture.alt == "one is in the state 'no container'; from here create leads on"


def test_the_chain_of_parents_is_the_kernels() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.read(1) == b"\n"  # now it is `cat`, and no copy of this process any more
        chain = ancestors(child.pid)
        assert [process.pid for process in chain[-2:]] == [os.getpid(), child.pid]
        assert chain[0].parent == 0 and all(one.pid == two.parent for one, two in itertools.pairwise(chain))
        picture = lineage(child.pid, "tests", {"cat": "repeats"})
        assert picture.rows[-1] == ("cat", "repeats", str(child.pid), picture.rows[-1][3])
        assert f"p{os.getpid()} -> p{child.pid}" in picture.dot and picture.alt.endswith("then cat")
    finally:
        child.kill()
        child.communicate()


def test_the_parents_of_nobody_are_an_oserror() -> None:
    with pytest.raises(OSError):
        ancestors(1 << 30)
