"""Exec: one more process in a container that runs.

Source  setns(2) with a pidfd, pid_namespaces(7); CVE-2019-5736, CVE-2016-9962, CVE-2024-21626.
Rules   - the container's pid 1 is named by a pidfd whose start time was checked, never by a pid alone.
        - the monitor enters the pid namespace only, so that its child is born there; the child enters all others by
          one call.
        - the child closes every descriptor and becomes non-dumpable before it enters: what is in there must not get
          hold of us.
        - capabilities, filter and no_new_privs are the container's own unless the request says otherwise.
"""

import errno
import os
from pathlib import Path

import msgspec

from minidocker.errors import Conflict, KernelError
from minidocker.linux import namespaces, process, terminal
from minidocker.linux.birth import fork_into
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.namespaces import KINDS, CloneFlag
from minidocker.oci import runtime_spec
from minidocker.runtime import init, plan, program, records
from minidocker.runtime.dev import take_terminal
from minidocker.runtime.records import State
from minidocker.runtime.stdio import Streams
from minidocker.runtime.step import Filter, Host, Inside, Step
from minidocker.runtime.sync import Channel, Message


class ExecRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="exec"):
    """What the launcher is asked: run `process` in the container.

    user        Docker's user string, or None: process.user has the numbers.
    privileged  True: without the container's filter (`process` says which capabilities).
    """

    id: str
    directory: str
    created: str
    container: State
    process: runtime_spec.Process
    streams: Streams
    user: str | None = None
    privileged: bool = False


class EnterContainer(Step, frozen=True):
    """Enter the namespaces of a process, all at once."""

    pidfd: int
    kinds: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"enter namespaces {' '.join(self.kinds)}"

    def apply(self, inside: Inside) -> None:
        flags = init.flags_of(self.kinds)
        if flags:
            namespaces.setns(self.pidfd, flags)
        if flags & CloneFlag.NEWUSER:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.close(self.pidfd)


class ExecConsole(Step, frozen=True):
    """A pty of the container's devpts for this process."""

    rows: int
    columns: int

    @property
    def name(self) -> str:
        return "make console"

    def apply(self, inside: Inside) -> None:
        master, slave, _ = terminal.open_pty("/dev/pts")
        if self.rows and self.columns:
            terminal.set_window_size(master, self.rows, self.columns)
        if not inside.channel.send(Message("console"), (master,)):
            raise KernelError("sendmsg", "console", errno.EPIPE, "the monitor is gone")
        os.close(master)
        take_terminal(slave)


def exec_plan(
    spec: runtime_spec.Spec,
    process_spec: runtime_spec.Process,
    user: str | None,
    cgroup: str,
    pidfd: int,
    kinds: tuple[str, ...],
    *,
    die_with_monitor: bool = True,
) -> tuple[Step, ...]:
    """The steps of an exec'ed process, in order. `kinds`: the namespaces of the container that differ from ours."""
    steps: list[Step] = [init.JoinCgroup(cgroup)] if cgroup else []
    steps.append(EnterContainer(pidfd, kinds))
    if process_spec.terminal:
        size = process_spec.console_size or runtime_spec.ConsoleSize(0, 0)
        steps.append(ExecConsole(size.height, size.width))
    steps += [init.Report("namespaces"), init.AwaitStart()]
    annotations = {runtime_spec.USER: user} if user is not None else {}
    group_add = spec.annotations.get(runtime_spec.GROUP_ADD)
    if user is not None and group_add:
        annotations[runtime_spec.GROUP_ADD] = group_add
    return (
        *steps,
        *plan.command_steps(process_spec, list(process_spec.args), annotations, die_with_monitor=die_with_monitor),
    )


def merged(spec: runtime_spec.Spec, process_spec: runtime_spec.Process) -> runtime_spec.Process:
    """The process with what it leaves open taken from the container's own."""
    own = plan.process_of(spec)
    changes: dict[str, object] = {}
    if process_spec.capabilities is None:
        changes["capabilities"] = own.capabilities
    if not process_spec.env:
        changes["env"] = own.env
    if not process_spec.cwd:
        changes["cwd"] = own.cwd
    if not process_spec.rlimits:
        changes["rlimits"] = own.rlimits
    if process_spec.oom_score_adj is None:
        changes["oom_score_adj"] = own.oom_score_adj
    if own.no_new_privileges:
        changes["no_new_privileges"] = True
    for label in ("apparmor_profile", "selinux_label"):
        if not getattr(process_spec, label):
            changes[label] = getattr(own, label)
    return msgspec.structs.replace(process_spec, **changes)


def differing(pid: int) -> tuple[str, ...]:
    """The kinds of namespace that process `pid` does not share with us; pid is left to the monitor."""
    kinds = [kind for kind in KINDS if kind not in ("pid", "time")]
    return tuple(kind for kind in kinds if namespaces.inode(kind, pid) != namespaces.inode(kind))


class ExecJob:
    """One exec for a monitor (see `monitor.Job`)."""

    def __init__(
        self,
        request: ExecRequest,
        spec: runtime_spec.Spec,
        filter_: Filter | None,
        host: Host,
        *,
        die_with_monitor: bool = True,
    ) -> None:
        self.directory = Path(request.directory)
        self.streams = request.streams
        self._request = request
        self._spec = spec
        self._filter = None if request.privileged else filter_
        self._host = host
        self._die_with_monitor = die_with_monitor
        self._process = merged(spec, request.process)
        self._cgroup = Cgroup.open(request.container.cgroup, host.hierarchies) if request.container.cgroup else None

    def prepare(self) -> None:
        """Get hold of the container's pid 1."""
        container = self._request.container
        pidfd = records.open_process(container.pid, container.start_time)
        if pidfd is None:
            raise Conflict(f"container {container.id} is not running")
        self._pidfd = pidfd

    def fork(self, channel: Channel, stdio: tuple[int, ...]) -> int:
        """Start the process in the container's pid namespace. Returns its pid as the host sees it."""
        pid = self._request.container.pid
        kinds = differing(pid)
        for kind in ("pid", "time"):
            if namespaces.inode(kind, pid) != namespaces.inode(kind):
                namespaces.setns(self._pidfd, KINDS[kind])
        steps = exec_plan(
            self._spec,
            self._process,
            self._request.user,
            self._request.container.cgroup,
            self._pidfd,
            kinds,
            die_with_monitor=self._die_with_monitor,
        )
        child, born_in_group = fork_into(self._cgroup)
        if child == 0:
            self._child(channel, stdio, steps, born_in_group=born_in_group)
        return child

    def _child(self, channel: Channel, stdio: tuple[int, ...], steps: tuple[Step, ...], *, born_in_group: bool) -> None:
        try:
            process.set_dumpable(False)
            process.close_from(3, keep=(channel.fileno(), self._pidfd, *stdio))
            inside = Inside(channel, self._host, filter=self._filter, born_in_group=born_in_group)
            inside.proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            inside.stdio = (stdio[0], stdio[1], stdio[2]) if stdio else None
            inside.env = program.environment(self._process.env)
            init.become(steps, inside)
        finally:
            os._exit(125)

    def state(self, pid: int) -> State:
        """The record of the running exec."""
        request = self._request
        return records.state_of(pid, request.id, request.created, container=request.container.id)

    def oom_kills_before(self) -> int:
        """What the container has had so far."""
        return self.oom_kills()

    def oom_kills(self) -> int:
        """From the container's control group."""
        return self._cgroup.oom_kills() if self._cgroup else 0

    def ended(self) -> None:
        """What an exec leaves running belongs to the container."""

    def release(self) -> None:
        """Nothing was made."""
