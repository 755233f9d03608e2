"""Exercise 12, swapped in: containers run behind the learner's seccomp filter."""

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex12_security", ("ex12-imports", "ex12-filter", "ex12-swap"))
pytestmark = needs_root


def test_a_container_runs_behind_the_learners_filter() -> None:
    printed = SWAP.run()
    assert "a container ran behind your filter" in printed and "unshare(0x10000000)" in printed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("instruction(0x20, 0),", ""),
        ("instruction(0x15, number, 0, 1)", "instruction(0x15, number, 1, 0)"),
        ("0x00050001)]", "0x7FFF0000)]"),
        ("instruction(0x06, 0x00050001)", ""),
    ],
    ids=["never loads the number", "turned around", "allows everything", "runs off its end"],
)
def test_an_engine_on_a_broken_filter_fails(old: str, new: str) -> None:
    assert "behind your filter" not in SWAP.failure({"ex12-filter": (old, new)})
