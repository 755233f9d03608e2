"""Capabilities: Docker's rules for the list, and what the kernel makes of it."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import capabilities, process
from minidocker.linux.capabilities import DEFAULT, NAMES, mask, names, resolve

Child = Callable[..., Any]
needs_root = pytest.mark.needs_root


def test_numbers_are_those_of_the_kernels_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"needs the kernel's headers: {header}")
    official = re.findall(r"^#define (CAP_\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in official} == {name: number for number, name in enumerate(NAMES)}


def test_every_capability_of_this_kernel_has_a_name() -> None:
    assert capabilities.last_cap() < len(NAMES)


def test_the_default_is_dockers_mask() -> None:
    assert len(DEFAULT) == 14
    assert mask(DEFAULT) == 0x00000000A80425FB


def test_a_mask_and_its_names_are_the_same_thing() -> None:
    assert set(names(mask(DEFAULT))) == set(DEFAULT)
    assert names(mask(NAMES)) == NAMES
    assert names(1 << 63) == ()


ALL = {*NAMES}
TWO = ("CAP_CHOWN", "CAP_KILL")


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], {*TWO}),
        (["net_admin"], [], {*TWO, "CAP_NET_ADMIN"}),
        (["CAP_NET_ADMIN", "Net_Admin", "kill"], [], {*TWO, "CAP_NET_ADMIN"}),
        ([], ["cap_kill"], {"CAP_CHOWN"}),
        (["KILL"], ["KILL"], {*TWO}),
        ([], ["ALL"], set()),
        (["net_raw"], ["all"], {"CAP_NET_RAW"}),
        (["ALL"], [], ALL),
        (["all"], ["kill"], ALL - {"CAP_KILL"}),
        (["ALL"], ["ALL"], ALL),
    ],
)
def test_add_and_drop_follow_dockers_rules(add: list[str], drop: list[str], expected: set[str]) -> None:
    result = resolve(TWO, add, drop)
    assert set(result) == expected
    assert len(result) == len(expected)


def test_all_means_what_the_engine_itself_has() -> None:
    assert resolve(TWO, ["ALL"], ["KILL"], known=("CAP_KILL", "CAP_MKNOD")) == ("CAP_MKNOD",)


@pytest.mark.parametrize("name", ["CAP_NO_SUCH", "net-admin", "", "CAP_", "CAP_ALL"])
def test_an_unknown_name_is_refused_in_either_list(name: str) -> None:
    words = f'unknown capability: "CAP_{name.upper().removeprefix("CAP_")}"'
    with pytest.raises(InvalidArgument, match=words):
        resolve(DEFAULT, [name], [])
    with pytest.raises(InvalidArgument, match=words):
        resolve(DEFAULT, [], [name])


def test_masks_are_read_from_proc() -> None:
    assert set(capabilities.read()) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert mask(capabilities.available()) == capabilities.read()["CapBnd"]
    with pytest.raises(KernelError):
        capabilities.read(2**22)


@needs_root
def test_the_bounding_set_is_cut_to_what_is_kept_for_good(in_child: Child) -> None:
    keep = [name for name in ("CAP_CHOWN", "CAP_KILL", "CAP_AUDIT_READ") if name in capabilities.available()]

    def cut() -> int:
        capabilities.drop_bounding(keep)
        return capabilities.read()["CapBnd"]

    assert in_child(cut) == mask(keep)


@needs_root
def test_without_setpcap_the_bounding_set_cannot_be_cut(in_child: Child) -> None:
    def cut() -> str:
        capabilities.set_sets(["CAP_CHOWN"], ["CAP_CHOWN"])
        with pytest.raises(KernelError) as caught:
            capabilities.drop_bounding([])
        return str(caught.value)

    assert in_child(cut) == "prctl CAP_CHOWN: EPERM (Operation not permitted); needs CAP_SETPCAP"


@needs_root
def test_sets_are_set_exactly_those_above_31_too(in_child: Child) -> None:
    def sets() -> dict[str, int]:
        capabilities.set_sets(["CAP_KILL", "CAP_BPF"], ["CAP_KILL", "CAP_BPF", "CAP_CHOWN"], ["CAP_PERFMON"])
        return capabilities.read()

    found = in_child(sets)
    assert found["CapEff"] == mask(["CAP_KILL", "CAP_BPF"])
    assert found["CapPrm"] == mask(["CAP_KILL", "CAP_BPF", "CAP_CHOWN"])
    assert found["CapInh"] == mask(["CAP_PERFMON"])


@needs_root
def test_the_permitted_set_never_grows(in_child: Child) -> None:
    def grow() -> tuple[int | None, str]:
        capabilities.set_sets([], ["CAP_KILL"])
        with pytest.raises(KernelError) as caught:
            capabilities.set_sets([], ["CAP_KILL", "CAP_CHOWN"])
        return caught.value.errno, caught.value.hint

    number, hint = in_child(grow)
    assert number == errno.EPERM
    assert "never grows" in hint


@needs_root
def test_ambient_capabilities_outlive_execve_by_an_ordinary_user(in_child: Child) -> None:
    def ambient() -> tuple[int, int, int | None]:
        process.set_keep_caps(True)
        os.setuid(65534)
        three = ["CAP_NET_RAW", "CAP_KILL", "CAP_CHOWN"]
        capabilities.set_sets(three, three, three[:2])
        with pytest.raises(KernelError) as caught:
            capabilities.raise_ambient(["CAP_CHOWN"])  # not inheritable
        capabilities.raise_ambient(three[:2])
        raised = capabilities.read()["CapAmb"]
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/sh", ["sh", "-c", "grep -q 'CapEff:\t0000000000002020' /proc/self/status"])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        capabilities.clear_ambient()
        return raised, capabilities.read()["CapAmb"], caught.value.errno

    assert in_child(ambient) == (mask(["CAP_NET_RAW", "CAP_KILL"]), 0, errno.EPERM)
