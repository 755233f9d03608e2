"""Device rules: what they come to, the program made of them (run by an interpreter here), the kernel's verdict."""

import errno
import itertools
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidocker.errors import InvalidArgument, KernelError, Unsupported
from minidocker.linux import devices
from minidocker.linux.cgroups import Cgroup, Hierarchies
from minidocker.linux.devices import DEFAULT_NODES, DEFAULT_RULES, DeviceRule, bpf_program, make_node, plan_v1, resolve

HOST = Hierarchies.detect()
PARENT = f"/minidocker-test-devices-{os.getpid()}"

VIEWS = {"host": HOST}
if HOST.version == "hybrid":  # its version 2 tree takes programs too
    VIEWS["v2 tree alone"] = Hierarchies(HOST.unified, HOST.unified_controllers, {})


def may(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run a device program as the kernel does: registers, a context of three words, relative jumps."""
    letters = {"m": 1, "r": 2, "w": 4}
    asked = sum(letters[letter] for letter in access)
    context = struct.pack("<III", asked << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers, place = [0] * 11, 0
    while True:
        code, both, offset, number = struct.unpack_from("<BBhi", program, 8 * place)
        target, source = both & 15, both >> 4
        place += 1
        if code == 0x61:
            registers[target] = struct.unpack_from("<I", context, offset)[0]
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0xB7:
            registers[target] = number
        elif code == 0x57:
            registers[target] &= number
        elif code == 0x77:
            registers[target] >>= number
        elif code == 0x5D:
            place += offset * (registers[target] != registers[source])
        elif code == 0x55:
            place += offset * (registers[target] != number)
        elif code == 0x15:
            place += offset * (registers[target] == number)
        elif code == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


# What rules come to


def test_the_default_rules_open_dockers_devices() -> None:
    program = bpf_program(DEFAULT_RULES)
    for major, minors in {1: (3, 5, 7, 8, 9), 5: (0, 1, 2), 136: (0, 77)}.items():
        assert all(may(program, "c", major, minor, "rw") for minor in minors)


@pytest.mark.parametrize(
    "device", [("c", 1, 1), ("c", 1, 4), ("c", 1, 11), ("c", 10, 229), ("b", 1, 3), ("b", 8, 0), ("c", 5, 3)]
)
def test_the_default_rules_open_nothing_else_but_let_nodes_be_made(device: tuple[str, int, int]) -> None:
    program = bpf_program(DEFAULT_RULES)
    assert not any(may(program, *device, access) for access in ("r", "w", "rw", "rm"))
    assert may(program, *device, "m")


def test_a_version_1_group_is_closed_first_and_opened_line_by_line() -> None:
    assert plan_v1(DEFAULT_RULES)[:4] == [
        ("devices.deny", "a"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c 1:3 rwm"),
    ]
    assert ("devices.allow", "c 136:* rwm") in plan_v1(DEFAULT_RULES)


def test_no_rule_at_all_denies_everything() -> None:
    assert plan_v1([]) == [("devices.deny", "a")]
    assert not may(bpf_program([]), "c", 1, 3, "r")


def test_access_is_added_up_over_rules_for_one_device() -> None:
    rules = [DeviceRule(True, "c", 9, 9, "r"), DeviceRule(True, "c", 9, 9, "w")]
    assert may(bpf_program(rules), "c", 9, 9, "rw")
    assert not may(bpf_program(rules), "c", 9, 9, "rwm")


def test_a_later_denial_takes_away_what_it_covers() -> None:
    rules = [DeviceRule(True, "c", 9, 1), DeviceRule(True, "c", 8, 1), DeviceRule(False, "c", 9, None, "w")]
    assert resolve(rules).exceptions == {("c", 9, 1): frozenset("rm"), ("c", 8, 1): frozenset("rwm")}


def test_a_denial_of_a_part_is_refused_since_version_1_would_ignore_it() -> None:
    with pytest.raises(Unsupported, match=r"c 1:3 rwm takes a part out of c 1:\* r"):
        resolve([DeviceRule(True, "c", 1, None, "r"), DeviceRule(False, "c", 1, 3)])


def test_privileged_rules_allow_all_and_can_still_deny_one() -> None:
    rules = [DeviceRule(True), DeviceRule(False, "b", 8, 0, "w")]
    assert plan_v1(rules) == [("devices.allow", "a"), ("devices.deny", "b 8:0 w")]
    program = bpf_program(rules)
    assert may(program, "c", 1, 1, "rwm")
    assert may(program, "b", 8, 0, "r")
    assert not may(program, "b", 8, 0, "rw")


@pytest.mark.parametrize("fields", [{"type": "x"}, {"access": ""}, {"access": "rx"}, {"major": -1}, {"minor": 1 << 31}])
def test_a_rule_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        DeviceRule(True, **fields)


numbers = st.sampled_from([None, 1, 2])
one_rule = st.builds(
    DeviceRule,
    st.booleans(),
    st.sampled_from("abc"),
    numbers,
    numbers,
    st.sets(st.sampled_from("rwm"), min_size=1).map("".join),
)


@given(st.lists(one_rule, max_size=6))
def test_the_program_says_what_the_rules_come_to(rules: list[DeviceRule]) -> None:
    try:
        default, exceptions = resolve(rules)
    except Unsupported:
        return
    program = bpf_program(rules)
    for kind, major, minor, access in itertools.product("bc", (1, 2, 3), (1, 2, 3), ("r", "w", "m", "rw", "rwm")):
        named = [
            granted
            for (type_, *wanted), granted in exceptions.items()
            if type_ == kind and all(a in (None, b) for a, b in zip(wanted, (major, minor), strict=True))
        ]
        if default:
            expected = not any(granted & set(access) for granted in named)
        else:
            expected = any(granted >= set(access) for granted in named)
        assert may(program, kind, major, minor, access) == expected


# The kernel


@pytest.fixture(params=VIEWS.values(), ids=list(VIEWS))
def group(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    if os.geteuid() != 0 or not HOST.trees:
        pytest.skip("needs root and a writable control group tree")
    with Cgroup.create(f"{PARENT}/one", request.param) as made:
        yield made
    assert Cgroup.open(PARENT, HOST).prune()


def opens(kind: str, major: int, minor: int, directory: Path, flags: int = os.O_RDWR) -> str:
    """Make a node as an image could carry it, and open it: "yes" or the errno's name."""
    node = directory / f"{kind}{major}-{minor}-{os.getpid()}"
    mode = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
    try:
        os.mknod(node, mode | 0o600, os.makedev(major, minor))
    except FileExistsError:
        pass
    try:
        os.close(os.open(node, flags | os.O_NONBLOCK))
        return "yes"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """A place where device nodes work (not mounted nodev)."""
    os.mknod(tmp_path / "probe", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    try:
        os.close(os.open(tmp_path / "probe", os.O_RDWR))
    except PermissionError:
        pytest.skip("device nodes do not work here")
    return tmp_path


def test_a_node_of_the_host_is_of_no_use_inside(group: Cgroup, nodes: Path, in_child: Callable[..., Any]) -> None:
    devices.allow(group, DEFAULT_RULES)

    def inside() -> dict[str, str]:
        group.join()
        return {
            "null": opens("c", 1, 3, nodes),
            "urandom": opens("c", 1, 9, nodes),
            "kmsg": opens("c", 1, 11, nodes, os.O_RDONLY),
            "mem": opens("c", 1, 1, nodes, os.O_RDONLY),
            "disk": opens("b", 254, 0, nodes, os.O_RDONLY),
        }

    expected = {"null": "yes", "urandom": "yes", "kmsg": "EPERM", "mem": "EPERM", "disk": "EPERM"}
    assert in_child(inside) == expected
    assert opens("c", 1, 11, nodes, os.O_RDONLY) == "yes", "the denial must come from the group, not from the node"


def test_rules_are_replaced_whole(group: Cgroup, nodes: Path, in_child: Callable[..., Any]) -> None:
    def inside() -> list[str]:
        group.join()
        return [opens("c", 1, 11, nodes, os.O_RDONLY), opens("c", 1, 5, nodes)]

    devices.allow(group, [*DEFAULT_RULES, DeviceRule(True, "c", 1, 11, "r")])
    assert in_child(inside) == ["yes", "yes"]
    devices.allow(group, [DeviceRule(True, "c", None, None, "m")])
    assert in_child(inside) == ["EPERM", "EPERM"]
    devices.allow(group, DEFAULT_RULES)
    assert in_child(inside) == ["EPERM", "yes"]
    devices.allow(group, [DeviceRule(True)])
    assert in_child(inside) == ["yes", "yes"]


def test_reading_can_be_allowed_without_writing(group: Cgroup, nodes: Path, in_child: Callable[..., Any]) -> None:
    devices.allow(group, [DeviceRule(True, "c", None, None, "m"), DeviceRule(True, "c", 1, 5, "r")])

    def inside() -> list[str]:
        group.join()
        return [opens("c", 1, 5, nodes, flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)]

    assert in_child(inside) == ["yes", "EPERM", "EPERM"]


def test_without_the_right_to_make_nodes_mknod_fails(group: Cgroup, nodes: Path, in_child: Callable[..., Any]) -> None:
    devices.allow(group, [DeviceRule(True, "c", 1, 3, "rw")])

    def inside() -> None:
        group.join()
        with pytest.raises(PermissionError):
            os.mknod(nodes / "made", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    in_child(inside)


def test_a_group_made_below_cannot_open_more(group: Cgroup, nodes: Path, in_child: Callable[..., Any]) -> None:
    devices.allow(group, DEFAULT_RULES)
    with Cgroup.create(f"{group.path}/below", group.hierarchies) as below:
        try:
            devices.allow(below, [DeviceRule(True)])
        except KernelError as error:
            assert error.errno == errno.EPERM  # version 1 says so at once

        def inside() -> str:
            below.join()
            return opens("c", 1, 11, nodes, os.O_RDONLY)

        assert in_child(inside) == "EPERM"


def test_an_update_leaves_one_program_attached(group: Cgroup) -> None:
    if group.directory("devices"):
        pytest.skip("version 1 has a list, not a program")
    fd = os.open(str(group.directory()), os.O_RDONLY | os.O_DIRECTORY)
    try:
        seen = set()
        for _ in range(3):
            devices.allow(group, DEFAULT_RULES)
            attached = devices._attached(fd, group.path)
            assert len(attached) == 1
            seen.add(attached[0])
        assert len(seen) == 3, "each update brings a program of its own"
    finally:
        os.close(fd)


def test_without_any_means_to_deny_it_is_an_error() -> None:
    with pytest.raises(Unsupported, match="cannot be restricted"):
        devices.allow(Cgroup.open("/x", Hierarchies(None, frozenset(), {"pids": "/nowhere"})), DEFAULT_RULES)


# Nodes


@pytest.mark.needs_root
def test_a_node_has_its_mode_and_owner_whatever_the_umask(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.umask(0o077)
    try:
        make_node(fd, "null", type="c", major=1, minor=3)
        make_node(fd, "disk", type="b", major=7, minor=0, mode=0o640, uid=12, gid=34)
        make_node(fd, "fifo", type="p", major=0, minor=0, mode=0o622)
    finally:
        os.umask(before)
        os.close(fd)
    null, disk, fifo = (os.stat(tmp_path / name) for name in ("null", "disk", "fifo"))
    assert (null.st_mode, null.st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (disk.st_mode, disk.st_rdev) == (stat.S_IFBLK | 0o640, os.makedev(7, 0))
    assert (disk.st_uid, disk.st_gid, fifo.st_mode) == (12, 34, stat.S_IFIFO | 0o622)


@pytest.mark.needs_root
@pytest.mark.parametrize("link", ["null", "dangling"])
def test_a_node_never_goes_through_what_is_there_already(tmp_path: Path, link: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    os.chmod(victim, 0o600)
    (tmp_path / "null").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("nowhere")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(KernelError) as caught:
            make_node(fd, link, type="c", major=1, minor=3)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EEXIST
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("name", "type"), [("../null", "c"), ("a/b", "c"), ("", "c"), ("..", "c"), ("null", "s")])
def test_a_node_with_a_path_or_another_type_is_refused(name: str, type: str) -> None:
    with pytest.raises(InvalidArgument):
        make_node(-1, name, type=type, major=1, minor=3)


def test_the_default_nodes_are_ones_that_the_default_rules_open() -> None:
    program = bpf_program(DEFAULT_RULES)
    assert {node.name for node in DEFAULT_NODES} == {"null", "zero", "full", "random", "urandom", "tty"}
    for node in DEFAULT_NODES:
        assert may(program, node.type, node.major, node.minor, "rw")
        host = os.stat(f"/dev/{node.name}")
        assert host.st_rdev == os.makedev(node.major, node.minor)
