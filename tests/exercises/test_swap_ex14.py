"""Exercise 14, swapped in: two daemons run what the learner's step decides, and do not on broken steps."""

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex14_compose", ("ex14-imports", "ex14-step", "ex14-swap"))
pytestmark = needs_root


def test_two_daemons_run_what_is_desired_by_the_solution() -> None:
    said = SWAP.run()
    assert said.endswith("two daemons run what is desired, by your code\n")
    assert "[('restart', 'web-2')]" in said  # it was killed


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('or one["digest"] != wanted["digest"]', "", "AssertionError"),
        ("started.append(name)", "pass", "StopIteration"),
    ],
    ids=["sees no new configuration", "starts nothing"],
)
def test_they_do_not_on_a_broken_step(old: str, new: str, words: str) -> None:
    seen = SWAP.failure({"ex14-step": (old, new)})
    assert words in seen, seen
