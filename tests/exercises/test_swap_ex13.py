"""Exercise 13, swapped in: the engine's client hears real containers through the learner's demultiplexer."""

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex13_daemon", ("ex13-imports", "ex13-frames", "ex13-swap"))
pytestmark = needs_root


def test_real_containers_are_heard_through_the_learners_demultiplexer() -> None:
    printed = SWAP.run()
    assert "echoed True" in printed and "real containers were heard through your code" in printed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("found.append((self._stream, part))", "found.append((1, part))"),
        ('int.from_bytes(self._head[4:], "big")', 'int.from_bytes(self._head[6:], "little")'),
        ("self._left -= len(part)", "self._left = 0"),
    ],
    ids=["one stream for all", "another length", "forgets the rest of a payload"],
)
def test_a_client_on_a_broken_demultiplexer_fails(old: str, new: str) -> None:
    assert "real containers were heard" not in SWAP.failure({"ex13-frames": (old, new)})
