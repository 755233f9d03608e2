"""Exercise 10, swapped in: the engine gives out addresses by the learner's book, and containers talk with them."""

import re

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex10_network", ("ex10-imports", "ex10-subnet", "ex10-addresses", "ex10-swap"))
pytestmark = needs_root


def test_two_containers_talk_with_addresses_of_the_learners_book() -> None:
    assert "two containers talk, with addresses from your book" in SWAP.run()


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex10-addresses", "in self.subnet:", "in reversed(list(self.subnet)):", "the two lowest"),
        ("ex10-addresses", "self.used.add(chosen)", "pass", "the two lowest"),
        ("ex10-addresses", "address not in self.used and address not in self.reserved", "address not in self.used",
         "AssertionError"),
        ("ex10-subnet", "return str(piece)", "return '0.0.0.0/33'", "did not|does not|cannot|invalid"),
    ],
    ids=["highest first", "never remembers", "hands out what is reserved", "no subnet at all"],
)  # fmt: skip
def test_an_engine_on_a_broken_book_fails(cell: str, old: str, new: str, words: str) -> None:
    seen = SWAP.failure({cell: (old, new)})
    assert re.search(words, seen), seen
