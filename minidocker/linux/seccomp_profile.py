"""Seccomp profiles as documents: the OCI form, which the compiler takes, and Docker's form, which depends on the host.

Source  OCI runtime-spec config-linux.md ("Seccomp"); Docker's profile format and default rules (docs.docker.com,
        "Seccomp security profiles for Docker"); Documentation/userspace-api/seccomp_filter.rst.
Rules   - Docker's form has `includes` and `excludes` by capability, machine and kernel; it is resolved once, when a
          container is made, and what comes out (OCI) is written to config.json.
        - seccomp_default.json holds Docker's default rules: everything gives EPERM but what is listed.
        - a document that is not understood is refused whole; a syscall's name that this kernel lacks is no error.
"""

import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from minidocker import typed
from minidocker.errors import InvalidArgument

Action = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]
Operator = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]


class Argument(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A test of one argument (0 to 5). MASKED_EQ: (argument & value) == value_two."""

    index: int
    value: int
    op: Operator
    value_two: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 5:
            raise ValueError(f"argument {self.index} is none of 0 to 5")
        if not (0 <= self.value < 1 << 64 and 0 <= self.value_two < 1 << 64):
            raise ValueError("an argument is a number of 64 bits")


class Rule(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What becomes of the calls `names` if all tests of `args` hold."""

    names: tuple[str, ...]
    action: Action
    errno_ret: int | None = None
    args: tuple[Argument, ...] | None = None


class Profile(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A profile in the form of the OCI runtime-spec (`linux.seccomp`)."""

    default_action: Action
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: tuple[Rule, ...] | None = None


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """When a rule of Docker's form applies: for `includes` all must hold, for `excludes` one is enough."""

    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None
    min_kernel: str | None = None


class DockerRule(msgspec.Struct, frozen=True, rename="camel"):
    """A rule of Docker's form; `name` is the old way to give one name."""

    action: Action
    names: tuple[str, ...] | None = None
    name: str | None = None
    errno_ret: int | None = None
    args: tuple[Argument, ...] | None = None
    includes: Condition | None = None
    excludes: Condition | None = None


class Family(msgspec.Struct, frozen=True, rename="camel"):
    """An architecture, and those that the same machine runs too."""

    architecture: str
    sub_architectures: tuple[str, ...] | None = None


class DockerProfile(msgspec.Struct, frozen=True, rename="camel"):
    """A profile in Docker's form (`--security-opt seccomp=FILE`)."""

    default_action: Action
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    arch_map: tuple[Family, ...] | None = None
    flags: tuple[str, ...] | None = None
    syscalls: tuple[DockerRule, ...] | None = None


NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}  # `includes.arches` has the Go language's names


def default_profile(
    capabilities: Collection[str], *, machine: str | None = None, kernel: str | None = None
) -> dict[str, object]:
    """Docker's default profile for a container with `capabilities` ("CAP_CHOWN", ..), ready for config.json."""
    text = Path(__file__).with_name("seccomp_default.json").read_bytes()
    return parse_docker_profile(text, capabilities, machine=machine, kernel=kernel)


def parse_docker_profile(
    text: str | bytes, capabilities: Collection[str], *, machine: str | None = None, kernel: str | None = None
) -> dict[str, object]:
    """A profile in Docker's form (or in the OCI form, which is a part of it) resolved to the OCI form.

    capabilities  the container's bounding set, "CAP_CHOWN" and so on.
    machine       as uname says; this one's by default. kernel: a release such as "6.1.0-17"; this one's by default.
    Raises        InvalidArgument: the text is no such profile; the message says where.
    """
    try:
        profile = typed.decode(text, DockerProfile)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"not a seccomp profile: {error}") from None
    if profile.architectures and profile.arch_map:
        raise InvalidArgument("not a seccomp profile: it has both architectures and archMap, use one of them")
    machine = machine or platform.machine()
    here = _Circumstances(frozenset(capabilities), machine, _release(kernel or platform.release()))
    rules = [_resolved(rule) for rule in profile.syscalls or () if here.apply(rule)]
    resolved = Profile(
        default_action=profile.default_action,
        default_errno_ret=profile.default_errno_ret,
        architectures=profile.architectures or _family(profile.arch_map or (), machine),
        flags=profile.flags,
        syscalls=tuple(rules),
    )
    document: dict[str, object] = msgspec.to_builtins(resolved)
    return document


def read(document: Mapping[str, object] | msgspec.Struct | bytes) -> Profile:
    """The OCI form from `linux.seccomp` as parsed JSON, a struct of the same fields, or JSON text.

    Raises  InvalidArgument: it is not in that form; the message says where.
    """
    try:
        if isinstance(document, (bytes, bytearray, memoryview, msgspec.Raw)):
            return typed.decode(document, Profile)
        return typed.convert(msgspec.to_builtins(document), Profile)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"linux.seccomp is not a seccomp profile: {error}") from None


class _Circumstances(msgspec.Struct, frozen=True):
    capabilities: frozenset[str]
    machine: str
    kernel: tuple[int, int]

    def apply(self, rule: DockerRule) -> bool:
        only, never, go_name = rule.includes or Condition(), rule.excludes or Condition(), _GO_NAMES.get(self.machine)
        if not self.capabilities >= set(only.caps or ()) or self.capabilities & set(never.caps or ()):
            return False
        if (only.arches and go_name not in only.arches) or go_name in (never.arches or ()):
            return False
        if only.min_kernel and self.kernel < _release(only.min_kernel):
            return False
        return not (never.min_kernel and self.kernel >= _release(never.min_kernel))


def _resolved(rule: DockerRule) -> Rule:
    if rule.name and rule.names:
        raise InvalidArgument(f"not a seccomp profile: rule for {rule.name} has both name and names, use one of them")
    names = rule.names or ((rule.name,) if rule.name else ())
    return Rule(names=names, action=rule.action, errno_ret=rule.errno_ret, args=rule.args or None)


def _family(families: Collection[Family], machine: str) -> tuple[str, ...] | None:
    for family in families:
        if family.architecture == NATIVE.get(machine):
            return (family.architecture, *(family.sub_architectures or ()))
    return None


def _release(text: str) -> tuple[int, int]:
    """Major and minor of a kernel release: "6.1.0-17-amd64" is (6, 1)."""
    major, _, rest = text.partition(".")
    minor = "".join(digit for digit in rest.partition(".")[0].partition("-")[0] if digit.isdigit())
    if not major.isdigit() or not minor:
        raise InvalidArgument(f"{text!r} is not a kernel version such as 4.8")
    return int(major), int(minor)
