"""Exercise 07 swapped in: containers start on the config.json that the solution writes, and not on a broken one's."""

from tests.exercises.swapping import Swap, needs_root

SWAP = Swap("ex07_runtime", ("ex07-imports", "ex07-config", "ex07-swap"))
pytestmark = needs_root


def test_containers_start_on_the_solution() -> None:
    printed = SWAP.run()
    assert "started on your code as swapped in /tmp with A=b" in printed
    assert "Read-only file system" in printed


def test_none_starts_if_the_arguments_are_wrong() -> None:
    broken = {"ex07-config": ("args = [*entrypoint, *command]", "args = [*entrypoint, *command][1:]")}
    assert 'exec: "-c": executable file not found' in SWAP.failure(broken)


def test_what_the_function_forgets_the_engine_does_not_do() -> None:
    broken = {"ex07-config": ('bool(options.get("read_only"))', "False")}
    assert "Read-only file system" not in SWAP.run(broken)
