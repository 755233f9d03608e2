"""Exercise 02 swapped in: a container starts in the root that the solution enters, and not in a broken one's."""

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex02_root", ("ex02-imports", "ex02-enter", "ex02-devices", "ex02-hide", "ex02-swap"))
pytestmark = needs_root


def test_a_container_starts_on_the_solution() -> None:
    seen = SWAP.run()
    devices = next(line for line in seen.splitlines() if line.startswith("devices:"))
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin"} <= set(devices.split())
    assert "Read-only file system" in seen


def test_the_container_has_what_the_learners_functions_make_and_no_more() -> None:
    seen = SWAP.run(
        {
            "ex02-devices": ("NODES.items()", "list(NODES.items())[:2]"),
            "ex02-hide": ("for path in readonly:", "for path in ():"),
        }
    )
    devices = next(line for line in seen.splitlines() if line.startswith("devices:"))
    assert "zero" in devices and "urandom" not in devices
    assert "Read-only file system" not in seen


def test_none_starts_if_the_new_root_is_no_mount() -> None:
    broken = ("mount(new_root, new_root, None, MountFlag.BIND | MountFlag.REC)", 'new_root = "/tmp"')
    assert "pivot_root" in SWAP.failure({"ex02-enter": broken})
