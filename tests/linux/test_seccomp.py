"""Seccomp: programs run by a small interpreter and compared with libseccomp's, then loaded in child processes.

No test loads a filter into the test process itself: it could never be taken off again.
"""

import ctypes
import errno
import functools
import json
import mmap
import os
import platform
import signal
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidocker.errors import InvalidArgument, KernelError, Unsupported
from minidocker.linux import process, seccomp
from minidocker.linux.capabilities import DEFAULT
from minidocker.linux.syscall import libc, syscall

AUDIT = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
NUMBERS: dict[str, dict[str, int]] = json.loads(Path(seccomp.__file__).with_name("syscall_numbers.json").read_bytes())
ABIS = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}
ALLOW, EPERM, ENOSYS, KILL_PROCESS = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
MACHINE = platform.machine()


def run(program: bytes, abi: str, number: int, args: Iterable[int] = ()) -> int:
    """What a seccomp program returns for one call: an accumulator, relative jumps, and 64 bytes of data."""
    args = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, AUDIT[abi], 0, *args)
    accumulator, place = 0, 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("<HBBI", program, 8 * place)
        place += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x05:
                place += k
            case 0x15:
                place += if_true if accumulator == k else if_false
            case 0x25:
                place += if_true if accumulator > k else if_false
            case 0x35:
                place += if_true if accumulator >= k else if_false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@functools.cache
def default(machine: str = "x86_64", *more_capabilities: str) -> bytes:
    profile = seccomp.default_profile([*DEFAULT, *more_capabilities], machine=machine, kernel="6.1")
    return seccomp.compile(profile, machine)


def verdict(name: str, *args: int, abi: str = "x86_64", capabilities: Iterable[str] = ()) -> int:
    machine = next(machine for machine, abis in ABIS.items() if abi in abis)
    return run(default(machine, *capabilities), abi, NUMBERS[abi][name], args)


def profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules), **more}


def rule(names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": action, **more}


def argument(index: int, op: str, value: int, value_two: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": value_two}




# Docker's default rules


def allowed_names(**circumstances: Any) -> set[str]:
    given = {"capabilities": DEFAULT, "machine": "x86_64", "kernel": "6.1", **circumstances}
    found: Any = seccomp.default_profile(given.pop("capabilities"), **given)
    return {name for one in found["syscalls"] if one["action"] == "SCMP_ACT_ALLOW" for name in one["names"]}


def test_by_default_361_names_are_allowed() -> None:
    assert len(allowed_names()) == 361


@pytest.mark.parametrize("abi", ["x86_64", "i386", "aarch64", "arm"])
def test_a_dangerous_call_gives_eperm(abi: str) -> None:
    names = """mount umount2 unshare setns keyctl add_key request_key bpf perf_event_open init_module kexec_load
        open_by_handle_at userfaultfd pivot_root swapon reboot settimeofday syslog acct quotactl move_mount fsopen
        open_tree mount_setattr io_uring_setup pidfd_getfd kcmp process_madvise lookup_dcookie sethostname"""
    there = [name for name in names.split() if name in NUMBERS[abi]]
    assert len(there) > 27
    assert [name for name in there if verdict(name, abi=abi) != EPERM] == []


@pytest.mark.parametrize("abi", ["x86_64", "i386", "aarch64", "arm"])
def test_an_ordinary_call_is_allowed(abi: str) -> None:
    for name in ("read", "write", "execve", "exit_group", "openat", "futex", "ptrace", "chroot", "prctl", "seccomp"):
        assert verdict(name, abi=abi) == ALLOW


@pytest.mark.parametrize("abi", ["x86_64", "i386", "aarch64", "arm"])
def test_clone3_is_not_there_so_that_the_c_library_takes_clone(abi: str) -> None:
    assert verdict("clone3", abi=abi) == ENOSYS


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
@pytest.mark.parametrize("abi", ["x86_64", "i386", "aarch64", "arm"])
def test_clone_makes_processes_but_no_namespace(flag: int, abi: str) -> None:
    assert verdict("clone", 0x01200011, abi=abi) == ALLOW
    assert verdict("clone", 0x01200011 | flag, abi=abi) == EPERM
    assert verdict("clone", flag | 1 << 40, abi=abi) == EPERM


@pytest.mark.parametrize(
    ("persona", "expected"),
    [(0, ALLOW), (8, ALLOW), (0x20000, ALLOW), (0x20008, ALLOW), (0xFFFFFFFF, ALLOW), (0x0400000, EPERM), (1, EPERM)],
)
def test_only_harmless_personalities_may_be_taken(persona: int, expected: int) -> None:
    assert verdict("personality", persona) == expected


@pytest.mark.parametrize("abi", ["x86_64", "i386", "aarch64", "arm"])
def test_a_vsock_socket_is_denied_also_behind_a_bit_that_the_kernel_does_not_read(abi: str) -> None:
    assert verdict("socket", 2, abi=abi) == ALLOW
    assert verdict("socket", 40, abi=abi) == EPERM
    assert verdict("socket", 40 | 1 << 32, abi=abi) == EPERM


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("CAP_SYS_ADMIN", "mount unshare setns bpf clone3 sethostname fsopen"),
        ("CAP_SYS_PTRACE", "kcmp process_madvise pidfd_getfd"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_SYS_TIME", "settimeofday clock_settime"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_NICE", "mbind set_mempolicy"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_a_capability_opens_its_calls(capability: str, names: str) -> None:
    for name in names.split():
        assert verdict(name) in (EPERM, ENOSYS)
        assert verdict(name, capabilities=[capability]) == ALLOW


def test_with_the_right_to_administer_clone_makes_namespaces() -> None:
    assert verdict("clone", 0x20000, capabilities=["CAP_SYS_ADMIN"]) == ALLOW


def test_without_the_right_to_change_root_the_call_is_denied() -> None:
    assert "chroot" in allowed_names()
    assert "chroot" not in allowed_names(capabilities=["CAP_CHOWN"])


def test_tracing_is_allowed_from_the_kernel_on_that_filters_after_the_tracer() -> None:
    assert "ptrace" not in allowed_names(kernel="4.7.9-amd64")
    assert "ptrace" in allowed_names(kernel="4.8.0")
    assert "ptrace" in allowed_names(kernel="4.4", capabilities=["CAP_SYS_PTRACE"])


def test_a_machines_own_calls_are_allowed_on_it_alone() -> None:
    assert {"arch_prctl", "modify_ldt"} <= allowed_names()
    assert not {"arch_prctl", "modify_ldt"} & allowed_names(machine="aarch64")
    assert "set_tls" in allowed_names(machine="aarch64")
    assert verdict("set_tls", abi="arm") == ALLOW


def test_the_container_tools_profile_of_this_machine_differs_only_where_docker_is_stricter() -> None:
    path = Path("/usr/share/containers/seccomp.json")
    if not path.exists():
        pytest.skip("Debian's golang-github-containers-common is not installed")
    theirs: Any = seccomp.parse_docker_profile(path.read_bytes(), DEFAULT, machine="x86_64", kernel="6.1")
    names = {name for one in theirs["syscalls"] if one["action"] == "SCMP_ACT_ALLOW" for name in one["names"]}
    younger = {"cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "futex_waitv", "map_shadow_stack"}
    assert allowed_names() - names == younger | {"io_pgetevents", "io_pgetevents_time64", "vmsplice"}


# Other calling conventions


def test_a_call_of_another_architecture_kills() -> None:
    assert run(default(), "aarch64", 0) == KILL_PROCESS
    assert run(default("aarch64"), "x86_64", 0) == KILL_PROCESS


def test_a_32_bit_call_kills_where_the_profile_lists_64_bits_only() -> None:
    program = seccomp.compile(profile(architectures=["SCMP_ARCH_X86_64"]), "x86_64")
    assert run(program, "x86_64", 0) == ALLOW
    assert run(program, "i386", 0) == KILL_PROCESS


@pytest.mark.parametrize("name", ["read", "mount", "getpid"])
def test_an_x32_call_is_refused(name: str) -> None:
    number = NUMBERS["x86_64"][name] | 0x40000000
    assert run(default(), "x86_64", number) == ENOSYS
    assert run(seccomp.compile(profile(), "x86_64"), "x86_64", number) == ENOSYS


def test_numbers_are_each_architectures_own() -> None:
    program = seccomp.compile(profile(rule("mount"), architectures=["SCMP_ARCH_X86"]), "x86_64")
    assert run(program, "x86_64", 165) == EPERM  # mount
    assert run(program, "i386", 21) == EPERM  # mount
    assert run(program, "i386", 165) == ALLOW  # getresuid
    assert run(program, "x86_64", 21) == ALLOW  # access


def test_what_a_32_bit_call_leaves_in_the_upper_half_does_not_count() -> None:
    document = profile(rule("socket", args=[argument(0, "EQ", 40)]), architectures=["SCMP_ARCH_X86"])
    program = seccomp.compile(document, "x86_64")
    assert run(program, "i386", NUMBERS["i386"]["socket"], [40 | 7 << 32]) == EPERM


def test_the_numbers_are_those_of_libseccomp() -> None:
    seccomp_library = pytest.importorskip("pyseccomp")
    for abi, arch in {"x86_64": "X86_64", "i386": "X86", "aarch64": "AARCH64", "arm": "ARM"}.items():
        token, known = getattr(seccomp_library.Arch, arch), 0
        for name, number in NUMBERS[abi].items():
            theirs = seccomp_library.resolve_syscall(token, name)
            if theirs >= 0:  # negative: younger than the library, or an old name on another architecture
                assert theirs == number, (abi, name)
                known += 1
        assert known > 300


# libseccomp as the oracle

OPS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
INTERESTING = [0, 1, 2, 8, 40, 0x20000, 0x7E020000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 40, 1 << 63, (1 << 64) - 1]


def by_libseccomp(document: Any, machine: str) -> bytes:
    """The same rules through libseccomp, as runc gives them to it."""
    library = pytest.importorskip("pyseccomp")
    simple = {"ALLOW": library.ALLOW, "KILL": library.KILL, "KILL_PROCESS": library.KILL_PROCESS, "TRAP": library.TRAP}

    def action(name: str, number: int | None) -> Any:
        short = name.removeprefix("SCMP_ACT_")
        return library.ERRNO(1 if number is None else number) if short == "ERRNO" else simple[short]

    fallback = (document["defaultAction"], document.get("defaultErrnoRet"))
    made = library.SyscallFilter(action(*fallback))
    native = {"x86_64": library.Arch.X86_64, "aarch64": library.Arch.AARCH64}
    also = {"x86_64": library.Arch.X86, "aarch64": library.Arch.ARM}
    if not made.exist_arch(native[machine]):
        made.remove_arch(library.Arch.NATIVE)
        made.add_arch(native[machine])
    made.add_arch(also[machine])
    for one in document["syscalls"]:
        chosen = (one["action"], one.get("errnoRet"))
        if action(*chosen) == action(*fallback):
            continue
        tests = [
            library.Arg(
                arg["index"],
                getattr(library, arg["op"].removeprefix("SCMP_CMP_")),
                arg["value"],
                arg.get("valueTwo", 0),
            )
            for arg in one.get("args") or ()
        ]
        for name in one["names"]:
            try:
                made.add_rule(action(*chosen), name, *tests)
            except OSError as error:
                assert error.errno == errno.EFAULT, name  # a name that this library does not know
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("capabilities", [(), tuple(DEFAULT), (*DEFAULT, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")], ids=len)
def test_the_default_program_decides_as_libseccomp_does(machine: str, capabilities: tuple[str, ...]) -> None:
    document: Any = seccomp.default_profile(capabilities, machine=machine, kernel="6.1")
    ours, theirs = seccomp.compile(document, machine), by_libseccomp(document, machine)
    library = pytest.importorskip("pyseccomp")
    for abi in ABIS[machine]:
        arch = {"x86_64": "X86_64", "i386": "X86", "aarch64": "AARCH64", "arm": "ARM"}[abi]
        token = getattr(library.Arch, arch)
        young = {number for name, number in NUMBERS[abi].items() if library.resolve_syscall(token, name) < 0}
        # On i386 libseccomp adds, to each rule for a socket or IPC call, one for the old multiplexer, open anyway here.
        for number in set(range(600)) - young:
            for value in INTERESTING:
                if value >> 32 and number in (NUMBERS[abi].get("socket"), NUMBERS[abi].get("personality")):
                    continue  # ours is stricter: see the AF_VSOCK test
                found, expected = run(ours, abi, number, [value]), run(theirs, abi, number, [value])
                assert found == expected, (abi, number, hex(value), hex(found), hex(expected))


values = st.one_of(st.sampled_from(INTERESTING), st.integers(0, (1 << 64) - 1))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(OPS), values, values),
        min_size=1,
        max_size=6,
        unique_by=lambda test: test[0],
    ),
    st.lists(values, min_size=6, max_size=6),
    st.booleans(),
)
def test_arguments_of_64_bits_are_compared_as_python_compares_them(
    tests: list[tuple[int, str, int, int]], args: list[int], near: bool
) -> None:
    if near:  # make equality, and equal halves, likely
        args = [next((value for index, _, value, _ in tests if index == place), arg) for place, arg in enumerate(args)]
    holds = {
        "NE": lambda arg, one, two: arg != one,
        "LT": lambda arg, one, two: arg < one,
        "LE": lambda arg, one, two: arg <= one,
        "EQ": lambda arg, one, two: arg == one,
        "GE": lambda arg, one, two: arg >= one,
        "GT": lambda arg, one, two: arg > one,
        "MASKED_EQ": lambda arg, one, two: arg & one == two,
    }
    document = profile(rule("getpid", args=[argument(*test) for test in tests]))
    program = seccomp.compile(document, "x86_64")
    expected = all(holds[op](args[index], one, two) for index, op, one, two in tests)
    assert run(program, "x86_64", NUMBERS["x86_64"]["getpid"], args) == (EPERM if expected else ALLOW)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(sorted(NUMBERS["x86_64"])), max_size=60, unique=True),
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"]),
)
def test_the_tree_finds_each_number(names: list[str], otherwise: str) -> None:
    document = profile(rule(" ".join(names), "SCMP_ACT_KILL_PROCESS"), default=otherwise)
    program, killed = seccomp.compile(document, "x86_64"), {NUMBERS["x86_64"][name] for name in names}
    other = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": EPERM, "SCMP_ACT_TRAP": 0x30000}[otherwise]
    for number in [*range(500), 0x3FFFFFFF]:
        assert run(program, "x86_64", number) == (KILL_PROCESS if number in killed else other)


def test_a_program_whose_jumps_exceed_255_instructions_still_decides_right() -> None:
    wide = [argument(index, "GT", 1 << 40) for index in range(6)]
    names = sorted(NUMBERS["x86_64"], key=lambda name: NUMBERS["x86_64"][name])[::6]
    rules = [rule(name, errnoRet=2 + place, args=wide) for place, name in enumerate(names)]
    program = seccomp.compile(profile(*rules), "x86_64")
    assert len(program) // 8 > 2 * 255
    for place, name in enumerate(names):
        assert run(program, "x86_64", NUMBERS["x86_64"][name], [1 << 41] * 6) == 0x50000 | (2 + place)
        assert run(program, "x86_64", NUMBERS["x86_64"][name], [1 << 41] * 5) == ALLOW


def test_a_program_beyond_the_kernels_bound_is_refused() -> None:
    many = enumerate(NUMBERS["x86_64"])
    rules = [rule(name, args=[argument(index, "GT", 1 << 40 | n) for index in range(6)]) for n, name in many]
    with pytest.raises(InvalidArgument, match="4096"):
        seccomp.compile(profile(*rules), "x86_64")


def test_the_default_program_is_short() -> None:
    assert len(default()) // 8 < 600


# Rules


def test_of_several_rules_the_first_that_holds_decides() -> None:
    document = profile(
        rule("getpid", errnoRet=5, args=[argument(0, "EQ", 1)]),
        rule("getpid", errnoRet=6, args=[argument(0, "LE", 2)]),
        rule("getpid", "SCMP_ACT_KILL_PROCESS"),
        rule("getpid", "SCMP_ACT_ALLOW"),
    )
    program, number = seccomp.compile(document, "x86_64"), NUMBERS["x86_64"]["getpid"]
    assert [run(program, "x86_64", number, [arg]) for arg in (1, 0, 2, 3)] == [0x50005, 0x50006, 0x50006, KILL_PROCESS]


def test_one_argument_tested_twice_makes_two_rules_as_docker_has_it() -> None:
    document = profile(rule("getpid", args=[argument(0, "EQ", 1), argument(0, "EQ", 2)]))
    program, number = seccomp.compile(document, "x86_64"), NUMBERS["x86_64"]["getpid"]
    assert [run(program, "x86_64", number, [arg]) for arg in (0, 1, 2)] == [ALLOW, EPERM, EPERM]


@pytest.mark.parametrize(
    ("action", "number", "result"),
    [
        ("KILL", None, 0),
        ("KILL_THREAD", None, 0),
        ("KILL_PROCESS", None, KILL_PROCESS),
        ("TRAP", None, 0x00030000),
        ("ERRNO", None, EPERM),
        ("ERRNO", 13, 0x0005000D),
        ("ERRNO", 0, 0x00050000),
        ("TRACE", 7, 0x7FF00007),
        ("LOG", None, 0x7FFC0000),
        ("ALLOW", 5, ALLOW),
    ],
)
def test_an_action_becomes_the_kernels_number(action: str, number: int | None, result: int) -> None:
    extra = {} if number is None else {"errnoRet": number}
    program = seccomp.compile(profile(rule("getpid", f"SCMP_ACT_{action}", **extra)), "x86_64")
    assert run(program, "x86_64", NUMBERS["x86_64"]["getpid"]) == result


def test_a_name_that_no_kernel_knows_is_passed_over() -> None:
    program = seccomp.compile(profile(rule("no_such_call getpid")), "x86_64")
    assert run(program, "x86_64", NUMBERS["x86_64"]["getpid"]) == EPERM


def test_the_default_error_number_is_the_profiles() -> None:
    program = seccomp.compile(profile(default="SCMP_ACT_ERRNO", defaultErrnoRet=38), "x86_64")
    assert run(program, "x86_64", 0) == ENOSYS


def test_parsed_json_a_struct_and_text_compile_to_the_same_bytes() -> None:
    document = seccomp.default_profile(DEFAULT)

    class Section(msgspec.Struct, rename="camel"):
        default_action: str
        architectures: Any
        syscalls: Any
        default_errno_ret: int

    text = msgspec.json.encode(document)
    section = msgspec.json.decode(text, type=Section)
    assert seccomp.compile(document) == seccomp.compile(text) == seccomp.compile(section)
    assert seccomp.compile(json.loads(text)) == seccomp.compile(document)


# What is refused


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        (profile(rule("getpid", "SCMP_ACT_NOTIFY")), Unsupported, "SCMP_ACT_NOTIFY"),
        (profile(listenerPath="/run/agent"), Unsupported, "listenerPath"),
        (profile(flags=["SECCOMP_FILTER_FLAG_NEW_LISTENER"]), Unsupported, "NEW_LISTENER"),
        (profile(rule("getpid", "SCMP_ACT_PERHAPS")), InvalidArgument, r"syscalls\[0\]\.action"),
        (profile(rule("getpid", args=[argument(6, "EQ", 1)])), InvalidArgument, "argument 6"),
        (profile(rule("getpid", args=[argument(0, "NEARLY", 1)])), InvalidArgument, "SCMP_CMP_NEARLY"),
        (profile(rule("getpid", args=[argument(0, "EQ", 1 << 64)])), InvalidArgument, "64 bits"),
        (profile(rule("getpid", args=[argument(0, "EQ", -1)])), InvalidArgument, "64 bits"),
        (profile(rule("getpid", errnoRet=4096)), InvalidArgument, "4096"),
        (profile(architectures=["amd64"]), InvalidArgument, "amd64"),
        ({"syscalls": []}, InvalidArgument, "defaultAction"),
        (b"[]", InvalidArgument, "object"),
        (b"\xff", InvalidArgument, "seccomp"),
    ],
    ids=str,
)
def test_a_section_that_cannot_be_obeyed_is_refused(document: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        seccomp.compile(document, "x86_64")


def test_a_machine_without_numbers_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        seccomp.compile(profile(), "riscv64")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "seccomp profile"),
        ("hello", "seccomp profile"),
        ("{}", "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_NONE"}', "defaultAction"),
        ('{"defaultAction": 5}', "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "read", "action": "SCMP_ACT_ALLOW"}]}', "names"),
        (
            '{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]}',
            "both",
        ),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],'
            ' "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}',
            "archMap",
        ),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":'
            ' [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]}',
            "kernel version",
        ),
        ("[" * 100_000, "seccomp profile"),
    ],
    ids=lambda text: text[:20],
)
def test_a_bad_file_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        seccomp.parse_docker_profile(text, DEFAULT)


def test_a_docker_file_is_resolved_to_what_applies_here() -> None:
    def one(name: str, **more: Any) -> dict[str, Any]:
        return {"names": [name], "action": "SCMP_ACT_ALLOW", **more}

    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
            "syscalls": [
                one("always"),
                {"name": "old_way", "action": "SCMP_ACT_LOG"},
                one("has", includes={"caps": ["CAP_CHOWN"]}),
                one("has_not", includes={"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}),
                one("here", includes={"arches": ["arm64", "amd64"]}),
                one("elsewhere", includes={"arches": ["amd64"]}),
                one("not_here", excludes={"arches": ["arm64"]}),
                one("excluded", excludes={"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}),
                one("old_kernel", includes={"minKernel": "5.10"}),
                one("new_kernel", includes={"minKernel": "6.12"}),
                one("until_kernel", excludes={"minKernel": "6.2"}),
            ],
        }
    )
    found: Any = seccomp.parse_docker_profile(text, ["CAP_CHOWN"], machine="aarch64", kernel="6.2.0-rc1")
    assert [one["names"][0] for one in found["syscalls"]] == ["always", "old_way", "has", "here", "old_kernel"]
    assert list(found["architectures"]) == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


# The kernel, in child processes

CHILD_ONLY = pytest.mark.skipif(MACHINE not in ABIS, reason=f"no syscall numbers for {MACHINE}")


def confined(program: bytes, work: Callable[[], Any]) -> Callable[[], Any]:
    def child() -> Any:
        process.set_no_new_privs()
        seccomp.load(program)
        return work()

    return child


def failure(name: str, *args: int | bytes | None) -> str:
    try:
        syscall(name, *args)
    except KernelError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def raw(number: int, *args: int) -> str:
    call = libc.syscall
    call.restype = ctypes.c_long
    failed = call(*(ctypes.c_long(word) for word in (number, *args))) == -1
    return errno.errorcode[ctypes.get_errno()] if failed else "done"


def default_here() -> bytes:
    return seccomp.compile(seccomp.default_profile(DEFAULT))


@CHILD_ONLY
def test_the_kernel_denies_what_docker_denies(in_child: Callable[..., Any]) -> None:
    def work() -> dict[str, str]:
        return {
            "mount": failure("mount", b"none", b"/nowhere", b"tmpfs", 0, None),
            "unshare": failure("unshare", 0x10000000),
            "setns": failure("setns", -1, 0),
            "keyctl": failure("keyctl", 0, -3, 0),
            "bpf": failure("bpf", 0, None, 0),
            "clone3": failure("clone3", None, 0),
            "open_tree": failure("open_tree", -1, b"", 0),
            "getpid": failure("getpid"),
            "clone(NEWUSER)": raw(NUMBERS[MACHINE]["clone"], 0x10000000 | signal.SIGCHLD),
        }

    assert in_child(confined(default_here(), work)) == {
        "mount": "EPERM",
        "unshare": "EPERM",
        "setns": "EPERM",
        "keyctl": "EPERM",
        "bpf": "EPERM",
        "clone3": "ENOSYS",
        "open_tree": "EPERM",
        "getpid": "done",
        "clone(NEWUSER)": "EPERM",
    }


@CHILD_ONLY
def test_ordinary_programs_run_under_the_default_filter(in_child: Callable[..., Any]) -> None:
    def work() -> tuple[int, str, str]:
        import subprocess
        import threading

        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        done = subprocess.run(["/bin/sh", "-c", "ls / | wc -l; grep ^Seccomp: /proc/self/status"], stdout=-1, text=True)
        with socket.socket(socket.AF_INET) as listening:
            listening.bind(("127.0.0.1", 0))
        return done.returncode, done.stdout.split()[-2], done.stdout.split()[-1]

    assert in_child(confined(default_here(), work)) == (0, "Seccomp:", "2")


@CHILD_ONLY
def test_a_vsock_family_with_a_high_bit_does_not_slip_through(in_child: Callable[..., Any]) -> None:
    number = NUMBERS[MACHINE]["socket"]

    def work() -> list[str]:
        return [raw(number, family, 1, 0) for family in (40, 40 | 1 << 32, 1)]

    assert in_child(confined(default_here(), work)) == ["EPERM", "EPERM", "done"]


@CHILD_ONLY
def test_an_x32_call_has_no_kernel_behind_it(in_child: Callable[..., Any]) -> None:
    if MACHINE != "x86_64":
        pytest.skip("x32 is a convention of x86_64")
    assert in_child(confined(default_here(), lambda: raw(0x40000000 | 39))) == "ENOSYS"


def by_int80(number: int, first: int = 0) -> int:
    """A 32-bit call from a 64-bit process: machine code in an executable page."""
    code = (
        b"\x53"  # push rbx
        + b"\xb8" + struct.pack("<I", number)  # mov eax, number
        + b"\x48\xbb" + struct.pack("<Q", first)  # mov rbx, first
        + b"\x31\xc9\x31\xd2"  # xor ecx, ecx; xor edx, edx
        + b"\xcd\x80\x5b\xc3"  # int 0x80; pop rbx; ret
    )  # fmt: skip
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


def runs_int80() -> bool:
    """Whether this kernel takes 32-bit calls at all; it kills or traps where it does not."""
    if MACHINE != "x86_64":
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(0 if by_int80(20) == os.getpid() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@CHILD_ONLY
def test_a_32_bit_call_of_a_64_bit_process_is_judged_by_32_bit_numbers(in_child: Callable[..., Any]) -> None:
    if not runs_int80():
        pytest.skip("this kernel takes no 32-bit calls")
    numbers = NUMBERS["i386"]

    def work() -> dict[str, int]:
        return {
            "getpid": by_int80(numbers["getpid"]) - os.getpid(),
            "mount": by_int80(numbers["mount"]),
            "unshare": by_int80(numbers["unshare"], 0x10000000),
            "clone3": by_int80(numbers["clone3"]),
            "socket": by_int80(numbers["socket"], 40 | 7 << 32),
        }

    found = in_child(confined(default_here(), work))
    assert found == {"getpid": 0, "mount": -1, "unshare": -1, "clone3": -38, "socket": -1}


@CHILD_ONLY
def test_a_32_bit_call_kills_if_the_profile_has_64_bits_only() -> None:
    if not runs_int80():
        pytest.skip("this kernel takes no 32-bit calls")
    program = seccomp.compile(profile(architectures=["SCMP_ARCH_X86_64"]))
    pid = os.fork()
    if pid == 0:
        confined(program, lambda: by_int80(20))()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS


@CHILD_ONLY
@pytest.mark.parametrize(("action", "status"), [("KILL_PROCESS", -signal.SIGSYS), ("TRAP", -signal.SIGSYS), ("LOG", 0)])
def test_the_process_meets_the_actions_end(action: str, status: int) -> None:
    program = seccomp.compile(profile(rule("getpriority", f"SCMP_ACT_{action}")))
    pid = os.fork()
    if pid == 0:
        confined(program, lambda: os.getpriority(os.PRIO_PROCESS, 0))()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status


@CHILD_ONLY
def test_arguments_are_seen_by_the_kernel_as_by_the_simulator(in_child: Callable[..., Any]) -> None:
    document = profile(
        rule("lseek", errnoRet=71, args=[argument(1, "GT", 1 << 33)]),
        rule("lseek", errnoRet=72, args=[argument(1, "MASKED_EQ", 0xF0, 0x30)]),
    )
    program = seccomp.compile(document)
    offsets = [0, 0x35, 0x45, 1 << 33, (1 << 33) + 1, (1 << 32) + 0x30]

    def work() -> list[int]:
        found = []
        for offset in offsets:
            try:
                fd = os.memfd_create("x")
                found.append(os.lseek(fd, offset, os.SEEK_SET) * 0)
            except OSError as error:
                found.append(error.errno or 0)
        return found

    expected = [run(program, MACHINE, NUMBERS[MACHINE]["lseek"], [3, offset]) & 0xFF for offset in offsets]
    assert in_child(confined(program, work)) == expected == [0, 72, 0, 0, 71, 72]


@CHILD_ONLY
def test_a_filter_outlives_execve_and_covers_children(in_child: Callable[..., Any]) -> None:
    program = seccomp.compile(profile(rule("mkdir mkdirat", errnoRet=71)))

    def work() -> str:
        import subprocess

        return subprocess.run(["/bin/sh", "-c", "mkdir /tmp/x$$"], stderr=-1, text=True, env={"LC_ALL": "C"}).stderr

    assert "Protocol error" in in_child(confined(program, work))  # EPROTO, 71


@CHILD_ONLY
@pytest.mark.needs_root
def test_without_no_new_privs_and_without_rights_no_filter_is_taken(in_child: Callable[..., Any]) -> None:
    program = seccomp.compile(profile())

    def work() -> tuple[int | None, str]:
        os.setresuid(1234, 1234, 1234)
        try:
            seccomp.load(program)
        except KernelError as error:
            return error.errno, error.hint
        return None, ""

    found, hint = in_child(work)
    assert found == errno.EACCES
    assert "no_new_privs" in hint


@CHILD_ONLY
def test_a_flag_of_the_profile_reaches_the_kernel(in_child: Callable[..., Any]) -> None:
    document = profile(flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
    assert seccomp.flags_of(document) == 6

    def work() -> int | None:
        process.set_no_new_privs()
        seccomp.load(seccomp.compile(document), seccomp.flags_of(document))
        try:
            seccomp.load(seccomp.compile(document), 1 << 20)
        except KernelError as error:
            return error.errno
        return None

    assert in_child(work) == errno.EINVAL
