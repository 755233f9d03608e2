"""Devices: the nodes of a container's /dev, and which devices a control group lets its processes use.

Source  kernel Documentation/admin-guide/cgroup-v1/devices.rst; cgroup-v2.rst ("Device controller"); bpf(2);
        Documentation/bpf/standardization/instruction-set.rst; OCI runtime-spec config-linux.md ("Devices").
Rules   - everything is denied first; a rule opens what it names. Without a rule, a node that an image carries or that
          mknod made is of no use.
        - version 1 has a list in two files (devices.deny, devices.allow); version 2 asks a BPF program of ours at each
          open and mknod. On a hybrid host the version 1 controller does it.
        - rules that cannot be installed raise: nobody may run with devices open because of a missing feature.
"""

import errno
import os
import stat
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minidocker.errors import InvalidArgument, KernelError, Unsupported
from minidocker.linux import cgroup_files as files
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.syscall import syscall


class DeviceNode(NamedTuple):
    """One node below /dev, of `type` "c" or "b"."""

    name: str
    type: str
    major: int
    minor: int


DEFAULT_NODES = (
    DeviceNode("null", "c", 1, 3),
    DeviceNode("zero", "c", 1, 5),
    DeviceNode("full", "c", 1, 7),
    DeviceNode("random", "c", 1, 8),
    DeviceNode("urandom", "c", 1, 9),
    DeviceNode("tty", "c", 5, 0),
)


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Allow or deny `access` ("r", "w", "m" for mknod, together) to devices; None as a number means every number.

    type    "c", "b", or "a" for both kinds.
    """

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __post_init__(self) -> None:
        if self.type not in ("a", "b", "c"):
            raise InvalidArgument(f"device type {self.type!r} is none of a, b, c")
        if not self.access or set(self.access) - set("rwm"):
            raise InvalidArgument(f"device access {self.access!r} is not made of r, w and m")
        if any(number is not None and not 0 <= number < 1 << 31 for number in (self.major, self.minor)):
            raise InvalidArgument(f"device number {self.major}:{self.minor} is out of range")


def _allow(type: str, major: int | None, minor: int | None, access: str = "rwm") -> DeviceRule:
    return DeviceRule(True, type, major, minor, access)


DEFAULT_RULES: tuple[DeviceRule, ...] = (
    DeviceRule(allow=False),
    _allow("c", None, None, "m"),  # any node may be made (CAP_MKNOD permitting), but not opened
    _allow("b", None, None, "m"),
    _allow("c", 1, 3),  # null
    _allow("c", 1, 5),  # zero
    _allow("c", 1, 7),  # full
    _allow("c", 1, 8),  # random
    _allow("c", 1, 9),  # urandom
    _allow("c", 5, 0),  # tty
    _allow("c", 5, 1),  # console
    _allow("c", 5, 2),  # ptmx
    _allow("c", 136, None),  # pts/*
)


DeviceKey = tuple[str, int | None, int | None]
"""Type, major, minor; None is every number."""


class Access(NamedTuple):
    """What a list of rules comes to: a default, and the devices (by type and numbers) for which the opposite holds."""

    default_allow: bool
    exceptions: dict[DeviceKey, frozenset[str]]


def resolve(rules: Iterable[DeviceRule]) -> Access:
    """Apply the rules in order, each over the ones before it; the start is "all denied".

    Raises  Unsupported: a rule takes a part out of a wider one (allow c 1:*, deny c 1:3); version 1 cannot express it.
    """
    default, exceptions = False, dict[DeviceKey, frozenset[str]]()
    for rule in rules:
        if rule.type == "a" and rule.major is None and rule.minor is None and set(rule.access) == set("rwm"):
            default, exceptions = rule.allow, {}
            continue
        for kind in "bc" if rule.type == "a" else rule.type:
            key, access = (kind, rule.major, rule.minor), frozenset(rule.access)
            if rule.allow != default:
                exceptions[key] = exceptions.get(key, frozenset()) | access
                continue
            for other, granted in exceptions.items():
                if other[0] != kind or not granted & access or not _overlap(other, key):
                    continue
                if not _covers(key, other):
                    raise Unsupported(f"device rule {_line(key, access)} takes a part out of {_line(other, granted)}")
                exceptions[other] = granted - access
    return Access(default, {key: access for key, access in exceptions.items() if access})


def _overlap(one: DeviceKey, other: DeviceKey) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _covers(wide: DeviceKey, narrow: DeviceKey) -> bool:
    return all(a is None or a == b for a, b in zip(wide[1:], narrow[1:], strict=True))


def _line(key: DeviceKey, access: Iterable[str]) -> str:
    """A rule as version 1 writes it: "c 136:* rwm"."""
    kind, *numbers = key
    major, minor = ("*" if number is None else str(number) for number in numbers)
    return f"{kind} {major}:{minor} {''.join(letter for letter in 'rwm' if letter in access)}"


def plan_v1(rules: Iterable[DeviceRule]) -> list[tuple[str, str]]:
    """(file, line) pairs for a version 1 devices group, in order: the default first, then what differs from it."""
    default, exceptions = resolve(rules)
    first, then = ("devices.allow", "devices.deny") if default else ("devices.deny", "devices.allow")
    return [(first, "a"), *((then, _line(key, access)) for key, access in exceptions.items())]


# The program's context (struct bpf_cgroup_dev_ctx): u32 access << 16 | type, u32 major, u32 minor.
_TYPE_NUMBER = {"b": 1, "c": 2}
_ACCESS_BIT = {"m": 1, "r": 2, "w": 4}
_LOAD_WORD, _MOVE, _MOVE_NUMBER, _AND, _AND_NUMBER, _SHIFT_RIGHT = 0x61, 0xBF, 0xB7, 0x5F, 0x57, 0x77
_JUMP_IF_NOT, _JUMP_IF_NOT_NUMBER, _JUMP_IF_NUMBER, _EXIT = 0x5D, 0x55, 0x15, 0x95


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, number)


def bpf_program(rules: Iterable[DeviceRule]) -> bytes:
    """The rules as a BPF program that returns 1 (allow) or 0 (deny) for one use of one device.

    r2 holds the access asked for, r3 the type, r4 and r5 the numbers. Where all is denied, an exception must grant
    every access that is asked for; where all is allowed, it need only touch one of them.
    """
    default, exceptions = resolve(rules)
    program = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_MOVE, 3, 2),
        _instruction(_AND_NUMBER, 3, number=0xFFFF),
        _instruction(_SHIFT_RIGHT, 2, number=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for (kind, major, minor), access in exceptions.items():
        tests = [(_JUMP_IF_NOT_NUMBER, 3, _TYPE_NUMBER[kind])]
        tests += [(_JUMP_IF_NOT_NUMBER, register, n) for register, n in ((4, major), (5, minor)) if n is not None]
        block = [_instruction(code, register, number=number) for code, register, number in tests]
        if access != frozenset("rwm"):
            bits = sum(_ACCESS_BIT[letter] for letter in access)
            block += [_instruction(_MOVE, 1, 2), _instruction(_AND_NUMBER, 1, number=bits)]
            block += [_instruction(_JUMP_IF_NUMBER, 1) if default else _instruction(_JUMP_IF_NOT, 1, 2)]
        block += [_instruction(_MOVE_NUMBER, 0, number=int(not default)), _instruction(_EXIT)]
        # Every jump of a block goes to the block's end.
        program += [_aimed(one, len(block) - place - 1) for place, one in enumerate(block)]
    program += [_instruction(_MOVE_NUMBER, 0, number=int(default)), _instruction(_EXIT)]
    return b"".join(program)


def _aimed(instruction: bytes, distance: int) -> bytes:
    if instruction[0] not in (_JUMP_IF_NOT, _JUMP_IF_NOT_NUMBER, _JUMP_IF_NUMBER):
        return instruction
    return instruction[:2] + struct.pack("<h", distance) + instruction[4:]


def allow(cgroup: Cgroup, rules: Sequence[DeviceRule]) -> None:
    """Make `rules` what the group's processes may use, in place of the rules before; at no moment is more open.

    Raises  Unsupported: neither a version 1 devices controller nor a version 2 tree. KernelError: EPERM a parent group
            forbids it, or a capability is missing (CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN).
    """
    if directory := cgroup.directory("devices"):
        _allow_v1(str(directory), rules)
    elif directory := cgroup.directory():
        _allow_v2(str(directory), rules)
    else:
        raise Unsupported("devices cannot be restricted: no devices controller and no cgroup v2 tree that we may write")


def _allow_v1(directory: str, rules: Sequence[DeviceRule]) -> None:
    lines = plan_v1(rules)
    if lines[0] == ("devices.allow", "a") and files.read(f"{directory}/devices.list").strip() == "a *:* rwm":
        lines = lines[1:]  # a fresh group allows all that its parent does
    fds: dict[str, int] = {}
    try:
        for file, line in lines:
            if file not in fds:
                fds[file] = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fds[file], line.encode())
    except OSError as error:
        hint = f"rule {line!r}; a group may have only what its parent has, and no children while all is denied"
        raise KernelError("write", f"{directory}/{file}", error.errno or 0, hint) from error
    finally:
        for fd in fds.values():
            os.close(fd)


_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 2, 4  # multi: a group made inside may add a program of its own, and both must agree
_MAX_PROGRAMS = 64


def _allow_v2(directory: str, rules: Sequence[DeviceRule]) -> None:
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", directory, error.errno or 0) from error
    try:
        before = _attached(group, directory)
        program = _load(bpf_program(rules), directory)
        try:
            _attach(group, program, before, directory)
        finally:
            os.close(program)
    finally:
        os.close(group)


def _attach(group: int, program: int, before: list[int], directory: str) -> None:
    """Attach `program`; one that is there is exchanged in one step, more are detached once the new one is in force."""
    if len(before) == 1:
        old = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", before[0], 0, 0), directory)
        try:
            flags = _ALLOW_MULTI | _REPLACE
            attributes = struct.pack("<IIIII", group, program, _ATTACH_CGROUP_DEVICE, flags, old)
            _bpf(_PROG_ATTACH, attributes, directory)
            return
        except KernelError as error:
            if error.errno != errno.EINVAL:  # before Linux 5.6 there was no exchange
                raise
        finally:
            os.close(old)
    _bpf(_PROG_ATTACH, struct.pack("<IIIII", group, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI, 0), directory)
    for number in before:
        old = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", number, 0, 0), directory)
        try:
            _bpf(_PROG_DETACH, struct.pack("<IIIII", group, old, _ATTACH_CGROUP_DEVICE, 0, 0), directory)
        finally:
            os.close(old)


def _load(program: bytes, subject: str) -> int:
    """Hand the program to the kernel's verifier; a descriptor comes back."""
    code, license = array("B", program), array("B", b"Apache-2.0\0")  # arrays, because their address is known
    attributes = struct.pack(
        "<IIQQIIQII16s",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        code.buffer_info()[0],
        license.buffer_info()[0],
        0,
        0,
        0,
        0,
        0,
        b"devices",
    )
    return _bpf(_PROG_LOAD, attributes, subject)


def _attached(group: int, subject: str) -> list[int]:
    """Numbers of the device programs attached to this very group."""
    numbers = array("I", [0] * _MAX_PROGRAMS)
    attributes = bytearray(
        struct.pack("<IIIIQI4x", group, _ATTACH_CGROUP_DEVICE, 0, 0, numbers.buffer_info()[0], len(numbers))
    )
    _bpf(_PROG_QUERY, attributes, subject)
    (count,) = struct.unpack_from("<I", attributes, 24)
    return list(numbers[:count])


def _bpf(command: int, attributes: bytes | bytearray, subject: str) -> int:
    hints = {
        errno.EPERM: "needs CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN, in the first user namespace",
        errno.EINVAL: "this kernel refuses device programs (CONFIG_CGROUP_BPF) or the program itself",
        errno.ENOSYS: "this kernel has no bpf(2)",
    }
    return syscall("bpf", command, attributes, len(attributes), path=subject, hint=hints)


_NODE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_node(
    dir_fd: int, name: str, *, type: str, major: int, minor: int, mode: int = 0o666, uid: int = 0, gid: int = 0
) -> None:
    """Make a device node in the open directory `dir_fd`, with its exact mode whatever the umask is.

    name    one component, no path.
    type    "c" or "u" (character), "b" (block), "p" (a FIFO; the numbers are unused).
    Raises  InvalidArgument: not such a node. KernelError: EEXIST; EPERM without CAP_MKNOD in the first user namespace.
    Source  mknod(2).
    """
    if "/" in name or name in ("", ".", "..") or type not in _NODE_TYPES:
        raise InvalidArgument(f"{name!r} of type {type!r} is not a device node that can be made here")
    try:
        os.mknod(name, _NODE_TYPES[type] | mode, os.makedev(major, minor) if type != "p" else 0, dir_fd=dir_fd)
        # By name is safe: mknod has just made it (it fails on whatever exists) where nobody else can write yet.
        os.chmod(name, mode, dir_fd=dir_fd)
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        raise KernelError("mknod", name, error.errno or 0) from error
