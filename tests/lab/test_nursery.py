"""A cell's own groups: made below the cell's group, with working limits, and gone with the cell."""

import os
from collections.abc import Iterator

import pytest

from minidocker.errors import NotFound
from minidocker.lab.isolated import Isolation
from minidocker.lab.props.nursery import own_group
from minidocker.linux.cgroups import Cgroup, controllers

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not {"cpu", "memory", "pids"} <= set(controllers()), reason="needs root and cgroup controllers"
)

MAKE = """
import os
from minidocker.lab.props.nursery import directories, nursery
from minidocker.linux.cgroups import Cgroup, Limits
own = nursery()
places = directories(own)
path = own.path
group = Cgroup.create(f"{path}/mine")
group.apply(Limits(pids=3, memory_bytes=16 << 20, cpu_quota_us=50_000))
if os.fork() == 0:
    group.join()
    import signal
    signal.pause()
limit = open(places["pids"] + "/mine/pids.max").read().strip()
"""


@pytest.fixture
def isolation() -> Iterator[Isolation]:
    made = Isolation()
    yield made
    made.close()


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), 9)\n", "raise ValueError\n"])
def test_a_cells_groups_have_limits_and_are_gone_after_it(isolation: Isolation, ending: str) -> None:
    told: list[str] = []
    try:
        found = isolation.run(
            MAKE + "print(path, flush=True)\n" + ending,
            wanted=("path", "limit", "places"),
            on_output=lambda kind, text: told.append(text) if kind == "stdout" else None,
        )
        assert found["limit"] == "3" and set(found["places"]) == {"cpu", "memory", "pids"}
    except Exception:
        assert ending
    path = "".join(told).strip()
    assert path.startswith("/minidocker-lab-") and not Cgroup.open(path).exists()


def test_outside_of_a_cell_there_is_no_nursery() -> None:
    with pytest.raises(NotFound, match="%%isolated"):
        own_group()
