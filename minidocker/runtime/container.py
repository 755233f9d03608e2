"""A container as its monitor starts it: control group, pid namespace, and the fork of pid 1.

Source  pid_namespaces(7), user_namespaces(7), time_namespaces(7), cgroups(7).
Rules   - the monitor unshares pid (and time) only, whose effect is on its child; pid 1 unshares the rest, because
          pivot_root moves every process that shares a mount namespace.
        - with a user namespace a process in between makes it, since whoever makes it loses its power over the host;
          the monitor writes the maps and is the subreaper that pid 1 falls to.
        - the device filter stands before anything of the container runs, or the container does not.
"""

import os
import socket
from pathlib import Path

import msgspec

from minidocker import typed
from minidocker.errors import KernelError
from minidocker.linux import devices, namespaces, process, userns
from minidocker.linux.birth import fork_into
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.namespaces import CloneFlag
from minidocker.oci import runtime_spec
from minidocker.runtime import controls, plan, program, records, shifted
from minidocker.runtime.init import become, flags_of, join_namespace
from minidocker.runtime.records import State
from minidocker.runtime.stdio import Streams
from minidocker.runtime.step import FAILED, Filter, Host, Inside, Step
from minidocker.runtime.sync import Channel, Message


class CreateRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="create"):
    """What the launcher is asked: make a container of the bundle, in `directory` below the exec-root."""

    id: str
    directory: str
    bundle: str
    created: str
    streams: Streams


class ContainerJob:
    """One container for a monitor (see `monitor.Job`)."""

    def __init__(
        self,
        request: CreateRequest,
        spec: runtime_spec.Spec,
        steps: tuple[Step, ...],
        filter_: Filter | None,
        host: Host,
        *,
        keep: tuple[int, ...] = (),
    ) -> None:
        self.directory = Path(request.directory)
        self.streams = request.streams
        self._request = request
        self._spec = spec
        self._steps = steps
        self._filter = filter_
        self._host = host
        self._keep = keep  # descriptors that pid 1 needs besides its stdio and channel
        self._made = plan.new_namespaces(spec)
        self._cgroup: Cgroup | None = None
        self._trees: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the control group with its limits and its device filter."""
        if not self._spec.linux.cgroups_path:
            return
        # Before the group exists: whoever finds this directory without a state.json must find the group, too.
        records.write(f"{self.directory}/{records.CGROUP_NAME}", self._spec.linux.cgroups_path.encode())
        self._cgroup = Cgroup.create(self._spec.linux.cgroups_path, self._host.hierarchies)
        apply_resources(self._cgroup, self._spec.linux.resources)
        if owner := controls.owner_of_groups(self._spec):
            self._cgroup.delegate(*owner)

    def fork(self, channel: Channel, stdio: tuple[int, ...]) -> int:
        """Start pid 1. Returns its pid."""
        for namespace in self._spec.linux.namespaces:
            if namespace.path and namespace.type in ("pid", "time"):
                join_namespace(namespace.type, namespace.path)
        before_fork = flags_of(kind for kind in self._made if kind in ("pid", "time"))
        if "user" in self._made:
            return self._fork_in_user_namespace(channel, stdio, before_fork)
        if before_fork:
            namespaces.unshare(before_fork)
        pid, born_in_group = fork_into(self._cgroup)
        if pid == 0:
            self._child(channel, stdio, born_in_group=born_in_group)
        return pid

    def _child(self, channel: Channel, stdio: tuple[int, ...], *, born_in_group: bool) -> None:
        try:
            process.close_from(3, keep=(channel.fileno(), *stdio, *self._keep, *self._trees.values()))
            if "user" not in self._made:
                process.set_dumpable(False)
            inside = Inside(channel, self._host, filter=self._filter, born_in_group=born_in_group)
            inside.trees = self._trees
            inside.proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            inside.stdio = (stdio[0], stdio[1], stdio[2]) if stdio else None
            inside.env = program.environment(plan.process_of(self._spec).env)
            become(self._steps, inside)
        finally:
            os._exit(125)

    def _fork_in_user_namespace(self, channel: Channel, stdio: tuple[int, ...], before_fork: CloneFlag) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process.set_child_subreaper()
        middle, born_in_group = fork_into(self._cgroup)
        if middle == 0:
            ours.close()
            if self._cgroup is not None:
                self._cgroup.join(0, trees="v1" if born_in_group else "all")
            self._middle(channel, stdio, before_fork, theirs)
        theirs.close()
        try:
            if not ours.recv(16):
                raise self._middle_failed()
            linux = self._spec.linux
            uids, gids = ([userns.IdMap(m.container_id, m.host_id, m.size) for m in maps]
                          for maps in (linux.uid_mappings, linux.gid_mappings))  # fmt: skip
            userns.write_id_maps(middle, uids, gids)
            # Only layers of ours: a caller without privileges has a root that it may mount itself.
            made = {}
            if runtime_spec.OVERLAY in self._spec.annotations:
                made = shifted.prepare(self._steps, middle, controls.root_outside(linux))
            socket.send_fds(ours, [msgspec.json.encode(list(made))], list(made.values()))
            for fd in made.values():
                os.close(fd)
            answer = ours.recv(16)
            if not answer:
                raise self._middle_failed()
            return int(answer)
        finally:
            ours.close()
            os.waitpid(middle, 0)

    @staticmethod
    def _middle_failed() -> KernelError:
        return KernelError("unshare", "user namespace", 1, "the process that makes it has ended")

    def _middle(self, channel: Channel, stdio: tuple[int, ...], before_fork: CloneFlag, parent: socket.socket) -> None:
        try:
            namespaces.unshare(CloneFlag.NEWUSER)
            parent.send(b"made")
            names, descriptors, _, _ = socket.recv_fds(parent, 1 << 17, 250, socket.MSG_CMSG_CLOEXEC)
            if names:
                self._trees = dict(zip(typed.decode(names, list[str]), descriptors, strict=True))
                os.setgroups(())
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                if before_fork:
                    namespaces.unshare(before_fork)
                pid = os.fork()
                if pid == 0:
                    parent.close()
                    self._child(channel, stdio, born_in_group=True)
                parent.send(str(pid).encode())
        except BaseException as error:
            channel.send(Message("error", step="make user namespace", text=str(error), exit_code=FAILED))
        finally:
            os._exit(0)

    def state(self, pid: int) -> State:
        """The record of the running container."""
        request, group = self._request, self._spec.linux.cgroups_path
        return records.state_of(pid, request.id, request.created, bundle=request.bundle, cgroup=group)

    def oom_kills_before(self) -> int:
        """None: the control group is new."""
        return 0

    def oom_kills(self) -> int:
        """From the control group."""
        return self._cgroup.oom_kills() if self._cgroup else 0

    def ended(self) -> None:
        """A pid namespace dies with its pid 1; without one of its own, the processes left are killed by their group."""
        if "pid" not in self._made and self._cgroup is not None:
            self._cgroup.kill()

    def release(self) -> None:
        """Take the control group away."""
        if self._cgroup is not None:
            self._cgroup.remove()


def apply_resources(cgroup: Cgroup, resources: runtime_spec.Resources | None, *, with_devices: bool = True) -> None:
    """Write the limits of config.json to a group, and set its device filter.

    with_devices  False: leave the filter as it is (an update of limits).
    """
    cgroup.apply(controls.limits(resources))
    if with_devices:
        devices.allow(cgroup, device_rules(resources.devices if resources else []))


def device_rules(rules: list[runtime_spec.DeviceRule]) -> list[devices.DeviceRule]:
    """Deny all, then what config.json says, then what every container needs; a negative number means any."""
    given = [
        devices.DeviceRule(rule.allow, rule.type or "a", _number(rule.major), _number(rule.minor), rule.access or "rwm")
        for rule in rules
    ]
    return [devices.DeviceRule(allow=False), *given, *devices.DEFAULT_RULES[1:]]


def _number(number: int | None) -> int | None:
    return number if number is not None and number >= 0 else None
