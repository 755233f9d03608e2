"""The board of privileges says what the kernel says of each process."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.lab import session
from minidocker.lab.diagrams.privileges import privilege_board, privileges_of
from minidocker.linux import capabilities

pytestmark = pytest.mark.needs_daemon
KINDS: dict[str, Any] = {
    "default": {},
    "privileged": {"privileged": True},
    "bound": {"cap_drop": ["ALL"], "cap_add": ["KILL", "CHOWN"], "security_opt": ["no-new-privileges"]},
    "shifted": {"userns_mode": "auto"},
    "nobody": {"user": "65534"},
}


@pytest.fixture(scope="module")
def pids() -> Iterator[dict[str, int]]:
    client = connect()
    mine = session.begin(client)
    made: dict[str, Any] = {
        name: client.containers.run("busybox", ["sleep", "600"], detach=True, labels=mine, network="none", **how)
        for name, how in KINDS.items()
    }
    for one in made.values():
        one.reload()
    yield {name: one.attrs["State"]["Pid"] for name, one in made.items()}
    for one in made.values():
        one.remove(force=True)


def test_each_row_is_what_proc_says(pids: dict[str, int]) -> None:
    rows = {row[0]: row[1:] for row in privilege_board(pids).rows}
    assert rows["default"][:5] == ("uid 0", "14 capabilities", "14 capabilities", "a filter", "no")
    everything = f"all {len(capabilities.available())}"
    assert rows["privileged"][:5] == ("uid 0", everything, everything, "no filter", "no")
    assert rows["bound"][1:5] == ("chown, kill", "chown, kill", "a filter", "yes")
    assert rows["nobody"][:3] == ("uid 65534", "none", "14 capabilities")
    outside = os.stat(f"/proc/{pids['shifted']}").st_uid
    assert rows["shifted"][0] == f"uid 0 inside, {outside} outside" and outside > 65534


def test_the_numbers_are_the_kernels(pids: dict[str, int]) -> None:
    for pid in pids.values():
        found, kernel = privileges_of(pid), capabilities.read(pid)
        assert (found.effective, found.bounding) == (kernel["CapEff"], kernel["CapBnd"])


def test_power_and_namespace_are_told_by_words_and_form_and_not_by_colour_alone(pids: dict[str, int]) -> None:
    picture = privilege_board(pids)
    assert picture.alt == (
        "privileges of default, privileged, bound, shifted, nobody: 1 process with every capability, "
        "1 with another uid outside"
    )
    (powerful,) = [line for line in picture.dot.splitlines() if "may now: all" in line]
    assert "filled,bold" in powerful
    assert picture.dot.count("of its own") == 1 and picture.dot.count("the machine") == 1


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot: apt-get install graphviz")
def test_it_can_be_drawn(pids: dict[str, int]) -> None:
    svg = privilege_board(pids).svg()
    assert svg is not None and "14 capabilities" in svg


def test_of_a_process_that_is_gone_there_is_no_picture() -> None:
    with pytest.raises(OSError, match="No such file"):
        privilege_board({"gone": 2**22 - 1})
