"""Exercise 03 swapped in: `--init` containers run on the solution's init, and show what a broken one lacks."""

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex03_init", ("ex03-imports", "ex03-init", "ex03-swap"))
pytestmark = needs_root


def test_a_container_starts_on_the_solution() -> None:
    seen = SWAP.run()
    assert "started on your code: zombies: 0" in seen
    assert "stopped politely" in seen and "exit code: 3" in seen
    assert "tini" not in seen and "docker-init" not in seen


def test_a_container_cannot_be_stopped_if_init_passes_no_signal_on() -> None:
    seen = SWAP.run({"ex03-init": ("os.kill(child, number)", "pass")})
    assert "stopped politely" not in seen and "exit code: 137" in seen


def test_orphans_stay_as_zombies_if_init_does_not_reap_them() -> None:
    seen = SWAP.run({"ex03-init": ("os.waitpid(-1, os.WNOHANG)", "os.waitpid(child, os.WNOHANG)")})
    assert "started on your code: zombies: 1" in seen


def test_none_starts_if_init_ends_at_once() -> None:
    seen = SWAP.run({"ex03-init": ("while True:", "return 9\n    while True:")})
    assert "stopped politely" not in seen
