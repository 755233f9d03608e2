"""Exercise 11, swapped in: volumes live by the learner's book, and others are on the learner's plugin."""

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex11_volumes", ("ex11-imports", "ex11-book", "ex11-plugin", "ex11-swap"))
pytestmark = needs_root


def test_a_container_uses_the_learners_volumes_and_they_go_when_they_are_free() -> None:
    assert "a container has used your volumes, and they went when they were free" in SWAP.run()


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex11-book", "if self.users.get(name):", "if False:", "your book lets a volume go"),
        ("ex11-book", "self.users.get(name, set()).discard(user)", "pass", "in use"),
        ("ex11-book", "shutil.rmtree(os.path.dirname(place))", "pass", "still there"),
        ("ex11-plugin", "uses.add(use)", "return {}", "absolute path"),
        ("ex11-plugin", "uses.discard(use)", "pass", "is in use"),
    ],
    ids=[
        "asks nobody",
        "never forgets a user",
        "removes nothing",
        "a plugin without a place",
        "a plugin that holds on",
    ],
)
def test_an_engine_on_a_broken_book_or_plugin_fails(cell: str, old: str, new: str, words: str) -> None:
    seen = SWAP.failure({cell: (old, new)})
    assert words in seen, seen
