"""Seccomp: which system calls a process may make, decided by a small BPF program that the kernel runs before each call.

Source  seccomp(2); Documentation/userspace-api/seccomp_filter.rst; bpf(4) for the instructions; OCI runtime-spec.
Rules   - the first thing looked at is the architecture: the same number is another call on another one, and a 64-bit
          kernel runs 32-bit programs too. An architecture that the profile does not list kills the process; x32 calls
          (x86_64 with bit 30 set) get ENOSYS, as from a kernel without x32.
        - a jump goes at most 255 instructions far and the default profile has more names than that: the numbers are cut
          into ranges with the same fate, and a balanced tree finds the range in eight or nine comparisons.
        - several rules for one call are tried in order; the first whose tests all hold decides. Nothing else: EPERM, or
          what the profile's default says.
        - a program is compiled once, outside the container; whoever runs the command only loads the bytes, last of all.
"""

import json
import platform
import struct
from array import array
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from minidocker.errors import InvalidArgument, Unsupported
from minidocker.linux.seccomp_profile import NATIVE, Argument, Profile, default_profile, parse_docker_profile, read
from minidocker.linux.syscall import syscall

__all__ = ["compile", "default_profile", "flags_of", "load", "parse_docker_profile"]

# What the program returns: an action in the upper half, data (an errno) in the lower.
_KILL_PROCESS, _ERRNO, _TRACE = 0x8000_0000, 0x0005_0000, 0x7FF0_0000
_ACTIONS = {
    "SCMP_ACT_KILL": 0x0000_0000,
    "SCMP_ACT_KILL_THREAD": 0x0000_0000,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": 0x7FFF_0000,
}
_EPERM, _ENOSYS, _MAX_ERRNO = 1, 38, 4095

# Instructions of classic BPF: load a word of struct seccomp_data, mask it, compare it, jump, return.
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST = 0x15, 0x25, 0x35
# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]; little endian on both machines.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32_BIT = 0x4000_0000
_MAX_INSTRUCTIONS, _FARTHEST = 4096, 255


class Instruction(NamedTuple):
    """struct sock_filter: jump `if_true` or `if_false` instructions ahead after a comparison with `number`."""

    code: int
    number: int
    if_true: int = 0
    if_false: int = 0


Code = tuple[Instruction, ...]


class Abi(NamedTuple):
    """One calling convention: the table of its numbers, its AUDIT_ARCH_ value, and how wide its arguments are."""

    table: str
    audit: int
    is_64: bool


_ABIS = {
    "SCMP_ARCH_X86_64": Abi("x86_64", 0xC000_003E, True),
    "SCMP_ARCH_X86": Abi("i386", 0x4000_0003, False),
    "SCMP_ARCH_AARCH64": Abi("aarch64", 0xC000_00B7, True),
    "SCMP_ARCH_ARM": Abi("arm", 0x4000_0028, False),
}
_RUNS_TOO = {"x86_64": "SCMP_ARCH_X86", "aarch64": "SCMP_ARCH_ARM"}
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}


class Outcome(NamedTuple):
    """What the program returns if all tests hold; no tests: in any case."""

    tests: tuple[Argument, ...]
    result: int


def compile(seccomp: Mapping[str, object] | msgspec.Struct | bytes, machine: str | None = None) -> bytes:
    """A profile in the OCI form as a program: an array of struct sock_filter. The same input gives the same bytes.

    seccomp  `linux.seccomp` of config.json: parsed, as a struct, or its JSON.
    machine  as uname says; this one's by default. Syscalls that it does not have are passed over.
    Raises   InvalidArgument: not a profile; Unsupported: an action or a machine that we cannot serve.
    """
    profile = read(seccomp)
    flags_of(profile)
    machine = machine or platform.machine()
    if machine not in NATIVE:
        raise Unsupported(f"no syscall numbers for machine {machine}: seccomp works on {' and '.join(NATIVE)}")
    numbers = _numbers()
    program: list[Instruction] = [Instruction(_LOAD, _ARCHITECTURE)]
    for abi in _abis(profile, machine):
        section = _section(profile, abi, numbers[abi.table])
        program += [Instruction(_IF_EQUAL, abi.audit, 1, 0), Instruction(_JUMP, len(section)), *section]
    program.append(Instruction(_RETURN, _KILL_PROCESS))
    if len(program) > _MAX_INSTRUCTIONS:
        raise InvalidArgument(f"the seccomp profile needs {len(program)} instructions, the kernel takes 4096")
    return b"".join(struct.pack("<HBBI", one.code, one.if_true, one.if_false, one.number) for one in program)


def load(program: bytes, flags: int = 0) -> None:
    """Put the calling thread, and all it starts from now on, under `program`. It cannot be taken off again.

    flags   what `flags_of` gives.
    Raises  KernelError: EACCES neither no_new_privs nor CAP_SYS_ADMIN; EINVAL a flag or a program that is not known.
    Source  seccomp(2), SECCOMP_SET_MODE_FILTER.
    """
    code = array("B", program)  # an array, because its address is known
    header = struct.pack("@HP", len(program) // 8, code.buffer_info()[0])
    syscall("seccomp", 1, flags, header, path="filter", hint="needs no_new_privs or CAP_SYS_ADMIN")


def flags_of(seccomp: Profile | Mapping[str, object] | bytes) -> int:
    """The profile's flags as a number for `load`.

    Raises  Unsupported: a flag of the user notification, or one that is not known.
    """
    profile = seccomp if isinstance(seccomp, Profile) else read(seccomp)
    if profile.listener_path:
        raise Unsupported("seccomp listenerPath: handing system calls to an agent (SCMP_ACT_NOTIFY) is not supported")
    unknown = [flag for flag in profile.flags or () if flag not in _FLAGS]
    if unknown:
        raise Unsupported(f"seccomp flag {unknown[0]} is not supported: known are {', '.join(_FLAGS)}")
    return sum(_FLAGS[flag] for flag in set(profile.flags or ()))


def _numbers() -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = json.loads(Path(__file__).with_name("syscall_numbers.json").read_bytes())
    return table


def _abis(profile: Profile, machine: str) -> list[Abi]:
    """The machine's own convention, always, and its 32-bit one if the profile lists it; others cannot occur here."""
    listed = profile.architectures or ()
    for name in listed:
        if not name.startswith("SCMP_ARCH_"):
            raise InvalidArgument(f"{name!r} is not an architecture such as SCMP_ARCH_X86_64")
    also = _RUNS_TOO[machine]
    return [_ABIS[NATIVE[machine]], *([_ABIS[also]] if also in listed else [])]


def _result(action: str, errno: int | None) -> int:
    if action not in _ACTIONS:
        raise Unsupported(f"seccomp action {action} is not supported: no agent is there to ask")
    if errno is not None and not 0 <= errno <= _MAX_ERRNO:
        raise InvalidArgument(f"seccomp errnoRet {errno} is not an error number (0 to {_MAX_ERRNO})")
    takes_errno = _ACTIONS[action] in (_ERRNO, _TRACE)
    return _ACTIONS[action] | ((_EPERM if errno is None else errno) if takes_errno else 0)


def _section(profile: Profile, abi: Abi, numbers: Mapping[str, int]) -> Code:
    """The part for one calling convention; it always ends in a return."""
    default = _result(profile.default_action, profile.default_errno_ret)
    code: list[Instruction] = [Instruction(_LOAD, _NUMBER)]
    if abi.table == "x86_64":
        code += [Instruction(_IF_AT_LEAST, _X32_BIT, 0, 1), Instruction(_RETURN, _ERRNO | _ENOSYS)]
    return (*code, *_tree(_ranges(_fates(profile, numbers), default, abi)))


def _fates(profile: Profile, numbers: Mapping[str, int]) -> dict[int, list[Outcome]]:
    """Syscall number -> its outcomes, in the profile's order."""
    fates: dict[int, list[Outcome]] = {}
    for rule in profile.syscalls or ():
        result, tests = _result(rule.action, rule.errno_ret), rule.args or ()
        # Docker's way: tests of different arguments must all hold; one argument tested twice makes each test a rule.
        each = len({test.index for test in tests}) < len(tests)
        outcomes = [Outcome((test,), result) for test in tests] if each else [Outcome(tests, result)]
        for name in rule.names:
            if name in numbers:
                fates.setdefault(numbers[name], []).extend(outcomes)
    return fates


def _ranges(fates: Mapping[int, Iterable[Outcome]], default: int, abi: Abi) -> list[tuple[int, Code]]:
    """The numbers cut into ranges with the same code: (first number, code), from 0 up, without gaps."""
    otherwise: Code = (Instruction(_RETURN, default),)
    ranges: list[tuple[int, Code]] = [(0, otherwise)]
    following = 0
    for number in sorted(fates):
        code = _outcomes(fates[number], default, abi.is_64)
        if number > following and ranges[-1][1] != otherwise:
            ranges.append((following, otherwise))
        if ranges[-1][1] != code:
            if ranges[-1][0] == number:  # only at 0: the range that was begun there is empty
                ranges.pop()
            ranges.append((number, code))
        following = number + 1
    if ranges[-1][1] != otherwise:
        ranges.append((following, otherwise))
    return ranges


def _tree(ranges: Collection[tuple[int, Code]]) -> Code:
    """Find the range of the number in the accumulator by halving."""
    ranges = list(ranges)
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    low, high, first = _tree(ranges[:half]), _tree(ranges[half:]), ranges[half][0]
    if len(low) <= _FARTHEST:
        return (Instruction(_IF_AT_LEAST, first, len(low), 0), *low, *high)
    return (Instruction(_IF_AT_LEAST, first, 0, 1), Instruction(_JUMP, len(low)), *low, *high)


def _outcomes(outcomes: Iterable[Outcome], default: int, is_64: bool) -> Code:
    """Try the outcomes in order; the first one whose tests hold returns."""
    code: list[Instruction] = []
    for outcome in outcomes:
        tests = [_test(test, is_64) for test in outcome.tests]
        # A test that fails jumps over the rest of this outcome and its return.
        length = sum(map(len, tests)) + 1
        place = 0
        for test in tests:
            for offset, step in enumerate(test):
                code.append(step.aimed(held=len(test) - offset - 1, failed=length - place - offset - 1))
            place += len(test)
        code.append(Instruction(_RETURN, outcome.result))
        if not outcome.tests:
            return tuple(code)
    return (*code, Instruction(_RETURN, default))


class Step(NamedTuple):
    """An instruction of a test, whose jumps are "next", "held" or "failed" until its place is known."""

    code: int
    number: int
    if_true: str = "next"
    if_false: str = "next"

    def aimed(self, *, held: int, failed: int) -> Instruction:
        distance = {"next": 0, "held": held, "failed": failed}
        return Instruction(self.code, self.number, distance[self.if_true], distance[self.if_false])


# Operator -> comparison, and whether the test holds where the comparison does.
_COMPARISONS = {
    "SCMP_CMP_EQ": (_IF_EQUAL, True),
    "SCMP_CMP_NE": (_IF_EQUAL, False),
    "SCMP_CMP_GT": (_IF_GREATER, True),
    "SCMP_CMP_LE": (_IF_GREATER, False),
    "SCMP_CMP_GE": (_IF_AT_LEAST, True),
    "SCMP_CMP_LT": (_IF_AT_LEAST, False),
    "SCMP_CMP_MASKED_EQ": (_IF_EQUAL, True),
}


def _test(test: Argument, is_64: bool) -> list[Step]:
    """The steps of one test: a word is 32 bits, so a 64-bit argument is compared half by half, the upper one first.

    A 32-bit call passes 32 bits; what a 64-bit program left in the register's upper half must not count there.
    """
    comparison, holds = _COMPARISONS[test.op]
    yes, no = ("held", "failed") if holds else ("failed", "held")
    masked = test.op == "SCMP_CMP_MASKED_EQ"
    wanted, mask = (test.value_two, test.value) if masked else (test.value, (1 << 64) - 1)
    low = _ARGUMENTS + 8 * test.index

    def half(offset: int, shift: int) -> tuple[list[Step], int]:
        word = mask >> shift & 0xFFFF_FFFF
        return [Step(_LOAD, offset), *([Step(_AND, word)] if masked else [])], wanted >> shift & 0xFFFF_FFFF

    steps: list[Step] = []
    if is_64:
        load, number = half(low + 4, 32)
        steps += load
        if comparison != _IF_EQUAL:
            steps.append(Step(_IF_GREATER, number, yes, "next"))
        steps.append(Step(_IF_EQUAL, number, "next", no))
    load, number = half(low, 0)
    return [*steps, *load, Step(comparison, number, yes, no)]
