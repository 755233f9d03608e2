"""Exercise 05, swapped in: the engine unpacks its images with the learner's function, and a container starts."""

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex05_layers", ("ex05-imports", "ex05-apply", "ex05-diff", "ex05-receive", "ex05-swap"))
pytestmark = needs_root


def test_a_container_starts_on_what_the_learner_unpacked() -> None:
    seen = SWAP.run()
    assert "started on your code" in seen and "-rwxr-xr-x" in seen


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex05-apply", "os.link(source, place, follow_symlinks=False)", 'open(place, "w")', "exec format error"),
        ("ex05-apply", "os.chmod(place, member.mode)", "os.chmod(place, 0o600)", "permission denied"),
        ("ex05-receive", "os.rename(aside, path)", "os.unlink(aside)", "no blob"),
    ],
    ids=["no hard links", "no modes", "keeps nothing"],
)  # fmt: skip
def test_an_engine_on_broken_code_fails(cell: str, old: str, new: str, words: str) -> None:
    seen = SWAP.failure({cell: (old, new)})
    assert words in seen.lower(), seen
