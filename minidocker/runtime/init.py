"""Pid 1: the steps from a fresh process to the user's command, and the one function that takes them.

Source  OCI runtime-spec: config.md, config-linux.md, runtime.md (lifecycle); namespaces(7), cgroups(7).
Rules   - control groups are joined before the cgroup namespace is made, or its root would be the wrong group.
        - `report namespaces` lets the daemon attach the network while the rootfs is being mounted; `await start` is
          where both meet again.
        - whatever fails is reported over the channel, and the process ends with 125 without running anything of the
          user's.
"""

import errno
import os
import resource
from collections.abc import Iterable
from typing import NoReturn

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import ipv6, namespaces, netlink, process, terminal
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.mounts import Resolve, openat2
from minidocker.linux.namespaces import KINDS, CloneFlag
from minidocker.linux.syscall import syscall
from minidocker.oci import runtime_spec
from minidocker.runtime.step import FAILED, Inside, Step, StepFailed, run
from minidocker.runtime.sync import Message

_PROC_SUPER_MAGIC = 0x9FA0
_UNLIMITED = 1 << 63
_BENEATH = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS


class JoinCgroup(Step, frozen=True):
    """Enter the container's control group, in every hierarchy."""

    path: str

    @property
    def name(self) -> str:
        return f"join cgroup {self.path}"

    def apply(self, inside: Inside) -> None:
        Cgroup.open(self.path, inside.host.hierarchies).join(0, trees="v1" if inside.born_in_group else "all")


class JoinNamespace(Step, frozen=True):
    """Enter a namespace that exists."""

    kind: str
    path: str

    @property
    def name(self) -> str:
        return f"join {self.kind} namespace {self.path}"

    def apply(self, inside: Inside) -> None:
        join_namespace(self.kind, self.path)


class MakeNamespaces(Step, frozen=True):
    """Leave the host's namespaces for new ones."""

    kinds: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"make namespaces {' '.join(self.kinds)}"

    def apply(self, inside: Inside) -> None:
        namespaces.unshare(flags_of(self.kinds))


class Report(Step, frozen=True):
    """Tell the monitor how far we are."""

    kind: str

    @property
    def name(self) -> str:
        return f"report {self.kind}"

    def apply(self, inside: Inside) -> None:
        if not inside.channel.send(Message(self.kind)):
            raise KernelError("sendmsg", self.kind, errno.EPIPE, "the monitor is gone")


class AwaitStart(Step, frozen=True):
    """Wait until we are told to go on."""

    @property
    def name(self) -> str:
        return "await start"

    def apply(self, inside: Inside) -> None:
        message, _ = inside.channel.receive()
        if message is None or message.kind != "start":
            raise StepFailed(self.name, "the container was given up before its start")
        inside.network = message.network


class ConfigureNetwork(Step, frozen=True):
    """Bring up loopback and what the start message lists."""

    @property
    def name(self) -> str:
        return "configure network"

    def apply(self, inside: Inside) -> None:
        if inside.network is not None:  # else a caller sets the namespace up
            check_procfs(inside.proc_fd)
            ipv6.switch_namespace(inside.proc_fd, inside.network)
        netlink.configure_interfaces(inside.network or {})


class SetHostname(Step, frozen=True):
    """Names of the container's own UTS namespace."""

    hostname: str
    domainname: str

    @property
    def name(self) -> str:
        return f"set hostname {self.hostname}"

    def apply(self, inside: Inside) -> None:
        for call, value in (("sethostname", self.hostname), ("setdomainname", self.domainname)):
            if value:
                encoded = os.fsencode(value)
                syscall(call, encoded, len(encoded), path=value)


class SetSysctl(Step, frozen=True):
    """One kernel setting of the container's namespaces."""

    key: str
    value: str

    @property
    def name(self) -> str:
        return f"set sysctl {self.key}"

    def apply(self, inside: Inside) -> None:
        check_procfs(inside.proc_fd)
        fd = openat2(inside.proc_fd, f"sys/{sysctl_path(self.key)}", os.O_WRONLY, 0, _BENEATH)
        try:
            os.write(fd, self.value.encode())
        finally:
            os.close(fd)


class SetLimits(Step, frozen=True):
    """Resource limits and the OOM score of the process itself."""

    rlimits: tuple[runtime_spec.Rlimit, ...]
    oom_score_adj: int | None = None

    @property
    def name(self) -> str:
        return "set rlimits"

    def apply(self, inside: Inside) -> None:
        for limit in self.rlimits:
            set_rlimit(inside, limit)
        if self.oom_score_adj is not None:
            self._set_oom_score(inside, self.oom_score_adj)

    @staticmethod
    def _set_oom_score(inside: Inside, score: int) -> None:
        fd = os.open("self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC, dir_fd=inside.proc_fd)
        try:
            if int(os.read(fd, 16)) != score:
                os.write(fd, str(score).encode())
        except PermissionError:
            inside.channel.send(
                Message("warning", text=f"oom_score_adj {score} needs CAP_SYS_RESOURCE: left as it was")
            )
        finally:
            os.close(fd)


class SecurityLabel(Step, frozen=True):
    """What a security module (AppArmor, SELinux) shall call the command from execve on."""

    file: str
    label: str

    @property
    def name(self) -> str:
        return f"set security label {self.label}"

    def apply(self, inside: Inside) -> None:
        check_procfs(inside.proc_fd)
        fd = os.open(f"self/{self.file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=inside.proc_fd)
        os.write(fd, self.label.encode())
        os.close(fd)


class TakeStdio(Step, frozen=True):
    """A session of its own, descriptors 0 to 2, the working directory; nothing else of ours stays open."""

    cwd: str
    terminal: bool
    umask: int

    @property
    def name(self) -> str:
        return f"chdir to {self.cwd}"

    def apply(self, inside: Inside) -> None:
        os.umask(self.umask)
        if os.getsid(0) != os.getpid():
            os.setsid()
        if inside.stdio is not None:
            for number, fd in enumerate(inside.stdio):
                os.dup2(fd, number, inheritable=True)
        if self.terminal:
            terminal.make_controlling(0)
        process.close_from(3, keep=(inside.channel.fileno(),))
        inside.proc_fd = inside.root_fd = -1
        enter_directory(self.cwd)


class OwnStdio(Step, frozen=True):
    """The user may open /dev/stdout and the like again, so they become the user's."""

    @property
    def name(self) -> str:
        return "chown stdio"

    def apply(self, inside: Inside) -> None:
        if not inside.identity.uid:
            return
        null = os.stat("/dev/null").st_rdev if os.path.exists("/dev/null") else 0
        for fd in range(3):
            status = os.fstat(fd)
            if status.st_uid != inside.identity.uid and status.st_rdev != null:
                try:
                    os.fchown(fd, inside.identity.uid, -1)
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.EROFS, errno.EINVAL):
                        raise


def flags_of(kinds: Iterable[str]) -> CloneFlag:
    """The CLONE_NEW* bits of some kinds of namespace."""
    bits = 0
    for kind in kinds:
        bits |= KINDS[kind].value  # plain numbers: an enum makes and keeps an object for each step on the way
    return CloneFlag(bits)


def join_namespace(kind: str, path: str) -> None:
    """Enter the namespace of `kind` that the file `path` names."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", path, error.errno or 0, f"no such {kind} namespace") from None
    namespaces.setns(fd, KINDS[kind])
    os.close(fd)


def enter_directory(path: str) -> None:
    """Change to `path`, and prove that it lies in this root.

    Raises  StepFailed: it is not there, or it is the host's, reached over a leaked descriptor (CVE-2024-21626).
    """
    try:
        os.chdir(path)
        here = os.getcwd()
    except OSError as error:
        raise StepFailed(
            "", f'chdir to cwd ("{path}") failed: {os.strerror(error.errno or 0).lower()}', FAILED
        ) from None
    if not here.startswith("/"):
        raise StepFailed("", f'chdir to cwd ("{path}") failed: the directory is outside of the container', FAILED)


def check_procfs(fd: int) -> None:
    """Raises  StepFailed: `fd` is not on a procfs, so a write would go who knows where."""
    status = bytearray(256)
    syscall("fstatfs", fd, status, path="/proc")
    if int.from_bytes(status[:8], "little") != _PROC_SUPER_MAGIC:
        raise StepFailed("check /proc", "it is not a procfs")


def sysctl_path(key: str) -> str:
    """The file below /proc/sys of a key, with dots or slashes between its parts (sysctl(8): the first of both counts).

    >>> sysctl_path("net.ipv4.ip_forward"), sysctl_path("net/ipv4/conf/eth0.1/forwarding")
    ('net/ipv4/ip_forward', 'net/ipv4/conf/eth0.1/forwarding')
    """
    slash, dot = key.find("/"), key.find(".")
    if dot < 0 or 0 <= slash < dot:
        return key
    return key.translate(str.maketrans("./", "/."))


def set_rlimit(inside: Inside, limit: runtime_spec.Rlimit) -> None:
    """setrlimit(2). A hard limit above the present one needs CAP_SYS_RESOURCE; without it the present one stays.

    That is told as a warning: the limit is the stricter one, so nothing is open that was to be shut.
    """
    number = getattr(resource, limit.type, None)
    if not limit.type.startswith("RLIMIT_") or number is None:
        raise InvalidArgument(f"unknown rlimit {limit.type}")
    soft, hard = (resource.RLIM_INFINITY if value >= _UNLIMITED else value for value in (limit.soft, limit.hard))
    try:
        resource.setrlimit(number, (soft, hard))
    except ValueError as error:
        if "not allowed to raise" not in str(error):
            raise InvalidArgument(f"{limit.type} {limit.soft}:{limit.hard}: {error}") from None
        present = resource.getrlimit(number)[1]
        text = f"{limit.type} {limit.hard} needs CAP_SYS_RESOURCE: {present} kept"
        inside.channel.send(Message("warning", text=text))
        resource.setrlimit(number, (present if soft == resource.RLIM_INFINITY else min(soft, present), present))


def become(steps: Iterable[Step], inside: Inside) -> NoReturn:
    """Take all steps, of which the last executes the command. After an error it is reported, and the process ends."""
    try:
        run(steps, inside)
        raise StepFailed("", "the plan ended without a command", FAILED)
    except StepFailed as failure:
        inside.channel.send(Message("error", step=failure.step, text=failure.why, exit_code=failure.exit_code))
    except BaseException as error:  # nothing may fall through to a half-isolated command
        inside.channel.send(Message("error", text=repr(error), exit_code=FAILED))
    finally:
        os._exit(125)
