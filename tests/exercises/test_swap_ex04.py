"""Exercise 04, swapped in: the engine's control groups are the learner's, and a container runs in one."""

import pytest

from minidocker.linux.cgroups import controllers
from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex04_cgroups", ("ex04-imports", "ex04-plan", "ex04-group", "ex04-run", "ex04-swap"))
pytestmark = [
    needs_root,
    pytest.mark.skipif(not {"cpu", "memory", "pids"} <= set(controllers()), reason="needs cgroup controllers"),
]


def test_a_container_runs_in_the_learners_group() -> None:
    assert "started on your code, limited by it, and removed by it" in SWAP.run()


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex04-group", "os.mkdir(place)", "pass", "No such file"),
        ("ex04-plan", 'writes.append(("memory", "memory.max" if', 'str(("memory", "memory.max" if', "AssertionError"),
        ("ex04-group", "return os.rmdir(directory)", "return None", "AssertionError"),
    ],
    ids=["makes no group", "forgets the memory", "removes nothing"],
)  # fmt: skip
def test_an_engine_on_a_broken_group_fails(cell: str, old: str, new: str, words: str) -> None:
    seen = SWAP.failure({cell: (old, new)})
    assert words in seen, seen
