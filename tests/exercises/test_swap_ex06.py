"""Exercise 06 swapped in: a container starts on the solution's store and choice, and not on a broken one's."""

import re

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex06_images", ("ex06-imports", "ex06-store", "ex06-resolve", "ex06-swap"))
pytestmark = needs_root


def test_a_container_starts_on_the_solution() -> None:
    assert "started on your code" in SWAP.run()


def test_none_starts_if_the_wrong_machines_image_is_chosen() -> None:
    broken = {"ex06-resolve": ("entries[min(ranked)[1]]", "entries[0]")}
    assert 'exec: "echo": executable file not found' in SWAP.failure(broken)


def test_the_engine_does_not_even_load_an_image_if_blobs_come_back_changed() -> None:
    broken = {"ex06-store": ("content = file.read()", "content = file.read()[:-1]")}
    assert re.search("Not yet: the engine cannot load the image busybox: .*was changed on disk", SWAP.failure(broken))
