"""Exercise 08 swapped in: a container starts from what the solution pulled, and from nothing that a broken one did."""

import re
import shutil

import pytest

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex08_registry", ("ex08-imports", "ex08-challenge", "ex08-get", "ex08-pull", "ex08-swap"))
pytestmark = [
    needs_root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: apt-get install it"),
]


def test_a_container_starts_from_what_the_solution_pulled() -> None:
    said = SWAP.run()
    assert "started on your code" in said
    assert "GET /v2/app/manifests/1 401\nGET /token 200\nGET /v2/app/manifests/1 200\n" in said


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("ex08-challenge", "found.append((begun[1].lower(), parameters))", "pass", "no way to get a token"),
        ("ex08-get", 'headers["Authorization"] = f"Bearer {tokens[parts.netloc]}"', "pass", "PermissionError: .*: 401"),
        ("ex08-pull", "= blob\n", "= blob[:-1]\n", "invalid config: Input data was truncated"),
    ],
    ids=["reads no challenge", "forgets the token", "loses a byte"],
)  # fmt: skip
def test_none_starts_on_a_broken_part(cell: str, old: str, new: str, words: str) -> None:
    seen = SWAP.failure({cell: (old, new)})
    assert re.search(words, seen), seen
