"""Exercise 01 swapped in: a command runs in the namespace that the solution makes, and `exec` joins it there."""

import re

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex01_processes", ("ex01-imports", "ex01-read", "ex01-run", "ex01-join", "ex01-swap"))
pytestmark = needs_root


def test_a_container_runs_and_is_joined_by_the_solution() -> None:
    said = SWAP.run()
    assert "started on your code as inner\nexec finds the name inner\n" in said
    found = re.findall(r"uts:\[\d+\]", said)
    assert len(set(found)) == 2


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex01-run", "unshare(flags)", "pass", "exec finds the name \n"),
        ("ex01-join", "setns(pidfd, flags)", "pass", "exec finds the name outer\n"),
        ("ex01-read", 'link.partition("[")[2].rstrip("]")', "1", "started|exec finds"),
    ],
    ids=["makes nothing", "joins nothing", "reads one number"],
)
def test_a_broken_part_is_seen(cell: str, old: str, new: str, words: str) -> None:
    said = SWAP.run({cell: (old, new)})
    print(said)
    assert "exec finds the name inner" not in said and re.search(words, said)
