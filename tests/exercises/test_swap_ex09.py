"""Exercise 09 swapped in: an image is built by the solution's parts and a container starts, and not by broken ones."""

import re

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex09_build", ("ex09-imports", "ex09-parse", "ex09-expand", "ex09-key", "ex09-commit", "ex09-swap"))
pytestmark = needs_root


def test_both_builds_are_right_on_the_solution() -> None:
    assert SWAP.run() == "started on your code: first\nstarted on your code: second\n"


def test_a_key_that_never_changes_builds_yesterdays_image() -> None:
    broken = {
        "ex09-key": ("return hashlib.sha256(json.dumps([parent, text, parts]).encode()).hexdigest()", 'return ""')
    }
    assert SWAP.run(broken) == "started on your code: first\nstarted on your code: first\n"


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        (
            "ex09-parse",
            "found.append(_instruction(start, begun + line))",
            "found.append(_instruction(number, line))",
            "line 6: unknown instruction WHOSE=YOUR",
        ),
        (
            "ex09-expand",
            "return value or word, end",
            "return value, end",
            "cat /srv/note > /copied. returned a non-zero code",
        ),
        (
            "ex09-commit",
            'document["rootfs"]["diff_ids"].append(diff_id)',
            "pass",
            "history tells of 2 layers, rootfs of 1",
        ),
    ],
    ids=["loses the lines before", "knows no default", "loses the layer"],
)
def test_no_container_starts_on_a_broken_part(cell: str, old: str, new: str, words: str) -> None:
    seen = SWAP.failure({cell: (old, new)})
    assert re.search(words, seen), seen
