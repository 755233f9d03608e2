"""The tree of control groups says what the kernel's files say, on every version of the interface."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import NotFound
from minidocker.lab.diagrams.cgroups import NO_LIMIT, cgroup_tree, cpu_limit, group_of
from minidocker.linux.cgroups import Cgroup, Hierarchies, Limits, controllers

needs_groups = pytest.mark.skipif(
    os.geteuid() != 0 or not {"cpu", "memory", "pids"} <= set(controllers()), reason="needs root and cgroup controllers"
)
PARENT = f"/minidocker-test-tree-{os.getpid()}"


@pytest.fixture
def groups() -> Iterator[dict[str, Cgroup]]:
    """Two groups in one parent, the first with limits and a process in it."""
    first, second = Cgroup.create(f"{PARENT}/first"), Cgroup.create(f"{PARENT}/second")
    first.apply(Limits(memory_bytes=40 << 20, cpu_quota_us=30_000, cpu_period_us=60_000, pids=7))
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        first.join(sleeper.pid)
        yield {"one": first, "two": second}
    finally:
        sleeper.kill()
        sleeper.wait()
        Cgroup.open(PARENT).remove()


@needs_groups
def test_each_group_has_the_limits_and_members_that_the_kernel_has(groups: dict[str, Cgroup]) -> None:
    picture = cgroup_tree(groups)
    rows = {row[0]: row[1:] for row in picture.rows}
    assert set(rows) == {"/", PARENT, "one", "two"}
    assert rows["one"][0] == "1: sleep" and rows["two"][0] == rows[PARENT][0] == "none"
    assert rows["one"][1].endswith("at most 40 MiB") and rows["one"][2] == "50% of one (30000 of 60000 µs)"
    assert rows["one"][3] == "1 there, at most 7" and rows["two"][3] == f"0 there, {NO_LIMIT}"
    assert picture.alt == f"4 control groups as a tree ({groups['one'].hierarchies.version}), 1 of them with a limit"
    assert picture.dot.count(" -> ") == 3  # the root, its child, and two below that


@needs_groups
def test_a_group_below_a_group_is_in_the_tree_and_one_that_has_gone_is_not(groups: dict[str, Cgroup]) -> None:
    groups["two"].remove()
    Cgroup.create(f"{PARENT}/third/inner")
    picture = cgroup_tree({**groups, "three": Cgroup.open(f"{PARENT}/third")})
    assert {row[0] for row in picture.rows} == {"/", PARENT, "one", "three", f"{PARENT}/third/inner"}


def test_groups_that_have_gone_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="none of these"):
        cgroup_tree({"gone": Cgroup.open(f"{PARENT}-gone")})


@needs_groups
def test_the_group_of_a_process_is_the_one_that_it_was_put_in(groups: dict[str, Cgroup]) -> None:
    (pid,) = groups["one"].pids()
    found = group_of(pid)
    assert found.path == groups["one"].path and cpu_limit(found) == (30_000, 60_000)
    assert cpu_limit(groups["two"]) is None
    with pytest.raises(OSError):
        group_of(1 << 30)


@needs_groups
def test_a_process_of_the_root_group_is_in_no_group(groups: dict[str, Cgroup]) -> None:
    trees = Hierarchies.detect()
    root = next(int(pid) for pid in Path(trees.trees[-1], "cgroup.procs").read_text().split() if _is_in_root(pid))
    with pytest.raises(NotFound, match="root group"):
        group_of(root)


def _is_in_root(pid: str) -> bool:
    """In every tree: a process may be elsewhere in some of them."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().split()
    return all(line.split(":", 2)[2] == "/" for line in lines)
