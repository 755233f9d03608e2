"""The OCI runtime without a daemon: whoever calls (conmon, a shim, a shell) is the monitor.

Source  OCI runtime-spec, runtime.md; runc's files below --root.
Rules   - `create` leaves pid 1 waiting at a socket in the container's directory; `start` connects, and hears how
          execve went.
        - stdio is the caller's own; a console goes out over the socket that the caller listens at.
        - pid 1 is the caller's to reap: it falls to the nearest subreaper when `create` ends.
"""

import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from minidocker.errors import Conflict, KernelError, MinidockerError, NotFound
from minidocker.linux import namespaces, process
from minidocker.linux.cgroups import Cgroup, Hierarchies
from minidocker.oci import runtime_spec
from minidocker.runtime import hooks, init, plan, program, records
from minidocker.runtime.bundle import read_spec
from minidocker.runtime.container import ContainerJob, CreateRequest
from minidocker.runtime.exec import ExecJob, ExecRequest
from minidocker.runtime.handshake import await_exec, connect, expect
from minidocker.runtime.jsonlog import timestamp
from minidocker.runtime.launcher import Filters
from minidocker.runtime.records import State
from minidocker.runtime.stdio import Streams
from minidocker.runtime.step import Host, Inside, Step, StepFailed
from minidocker.runtime.sync import Channel, Message

_START_SOCKET = "start.sock"
_KILL_TIMEOUT_SECONDS = 10.0


class AwaitConnection(Step, frozen=True):
    """Say that the rootfs stands, then wait until `start` connects; from then on errors go to it."""

    listener: int
    command: str = ""

    @property
    def name(self) -> str:
        return "await start"

    def apply(self, inside: Inside) -> None:
        if self.command and ("/" not in self.command or self.command.startswith("/")):
            program.find(
                self.command, inside.env.get("PATH", program.DEFAULT_PATH)
            )  # callers want to hear of it at `create`
        inside.channel.send(Message("mounted"))
        inside.channel.close()
        with socket.socket(fileno=self.listener) as listener:
            connection, _ = listener.accept()
        inside.channel = Channel(connection)
        message, _ = inside.channel.receive()
        if message is None or message.kind != "start":
            raise StepFailed(self.name, "the container was given up before its start")


@dataclass(frozen=True, slots=True)
class Standing:
    """A container as `state` shows it: "created", "running", "paused" or "stopped"."""

    state: State
    status: str
    annotations: dict[str, str]

    def document(self) -> dict[str, Any]:
        """The state document of the specification (and runc's `created`)."""
        return {
            "ociVersion": runtime_spec.SPEC_VERSION,
            "id": self.state.id,
            "pid": self.state.pid if self.status != "stopped" else 0,
            "status": self.status,
            "bundle": self.state.bundle,
            "created": self.state.created,
            "annotations": self.annotations,
        }


class Standalone:
    """All containers below one --root."""

    def __init__(self, root: Path, *, systemd_cgroup: bool = False) -> None:
        self.root = root
        self.systemd_cgroup = systemd_cgroup

    def create(self, id: str, bundle: Path, console_socket: Path | None = None) -> int:
        """Make a container that waits for `start`. Returns the pid of its pid 1.

        Raises  Conflict: the id is in use. StartError: a step failed, all is undone.
        """
        spec = self._placed(read_spec(bundle), id)
        directory = self._make(id)
        try:
            listener = _listen(directory)
            await_start = AwaitConnection(listener.fileno(), next(iter(plan.process_of(spec).args), ""))
            steps = plan.plan(spec, bundle, await_start=await_start, die_with_monitor=False)
            if _early_hooks(
                spec
            ):  # they are to meet a process whose namespaces are new and whose rootfs is not yet entered
                place = next(number for number, step in enumerate(steps) if isinstance(step, init.Report)) + 1
                steps = (*steps[:place], init.AwaitStart(), *steps[place:])
            created = timestamp(time.time_ns())
            request = CreateRequest(id, str(directory), str(bundle), created, _streams(plan.process_of(spec)))
            keep = (listener.fileno(),)
            job = ContainerJob(request, spec, steps, Filters().of(spec), Host.detect(), keep=keep)
            self._bring_up(job, spec, directory, console_socket)
            return self.find(id).state.pid
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def _bring_up(self, job: ContainerJob, spec: runtime_spec.Spec, directory: Path, console: Path | None) -> None:
        pid = 0
        try:
            job.prepare()
            ours, theirs = Channel.pair()
            pid = _fork(job, theirs)
            while (message := expect(ours, console)).kind != "mounted":
                if message.kind == "namespaces":
                    records.write(directory / "state.json", job.state(pid))
                    if early := _early_hooks(spec):
                        hooks.run(early, self.find(directory.name).document())
                        ours.send(Message("start"))
        except BaseException:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            job.release()
            raise

    def start(self, id: str) -> None:
        """Let the command run. Raises Conflict: it was started already. StartError."""
        standing = self.find(id)
        if standing.status != "created":
            raise Conflict(f"cannot start a container that is {standing.status}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connect(connection, self.root / id, _START_SOCKET)
            channel = Channel(connection)
            os.unlink(self.root / id / _START_SOCKET)
            channel.send(Message("start"))
            await_exec(channel)
        spec = read_spec(Path(standing.state.bundle))
        hooks.run((spec.hooks or runtime_spec.Hooks()).poststart, self.find(id).document())

    def exec(
        self, id: str, wanted: runtime_spec.Process, *, console_socket: Path | None = None, user: str | None = None
    ) -> int:
        """Run one more process in a container. Returns its pid, our child, once the command runs.

        Raises  Conflict: the container is not running. StartError.
        """
        standing = self.find(id)
        if standing.status not in ("running", "created"):
            raise Conflict(f"cannot exec in a container that is {standing.status}")
        spec = read_spec(Path(standing.state.bundle))
        created = timestamp(time.time_ns())
        request = ExecRequest(id, str(self.root / id), created, standing.state, wanted, _streams(wanted), user)
        job = ExecJob(request, spec, Filters().of(spec), Host.detect(), die_with_monitor=False)
        job.prepare()
        ours, theirs = Channel.pair()
        pid = _fork(job, theirs)
        while expect(ours, console_socket).kind != "namespaces":
            pass
        ours.send(Message("start"))
        await_exec(ours)
        return pid

    def find(self, id: str) -> Standing:
        """How a container stands. Raises NotFound."""
        state = records.read(self.root / id / "state.json", State) if id and "/" not in id else None
        if state is None:
            raise NotFound(f"container {id!r} does not exist")
        try:
            annotations = read_spec(Path(state.bundle)).annotations
        except MinidockerError:
            annotations = {}
        return Standing(state, self._status(state), annotations)

    def _status(self, state: State) -> str:
        if not _alive(state):
            return "stopped"
        if (self.root / state.id / _START_SOCKET).exists():
            return "created"
        return "paused" if self.cgroup(state).frozen() else "running"

    def all(self) -> list[Standing]:
        """Every container, by id."""
        if not self.root.is_dir():
            return []
        names = sorted(path.name for path in self.root.iterdir() if (path / "state.json").exists())
        return [self.find(name) for name in names]

    def cgroup(self, state: State) -> Cgroup:
        """A container's control group."""
        return Cgroup.open(state.cgroup, Hierarchies.detect())

    def kill(self, id: str, signal_number: int, *, everything: bool = False) -> None:
        """Signal pid 1, or with `everything` all processes. Raises Conflict: it has stopped."""
        standing = self.find(id)
        if everything:
            for pid in self.cgroup(standing.state).pids():
                try:
                    os.kill(pid, signal_number)
                except ProcessLookupError:
                    pass
            return
        pidfd = records.open_process(standing.state.pid, standing.state.start_time)
        if pidfd is None or standing.status == "stopped":
            raise Conflict("container not running")
        process.pidfd_send(pidfd, signal_number)
        os.close(pidfd)

    def delete(self, id: str, *, force: bool = False) -> None:
        """Remove what is left of a stopped container; with `force` kill it first.

        Raises  Conflict: it runs. NotFound (not with `force`).
        """
        try:
            standing = self.find(id)
        except NotFound:
            if force:
                return
            raise
        if standing.status != "stopped" and standing.status != "created" and not force:
            raise Conflict(f"cannot delete container {id} that is not stopped: {standing.status}")
        if standing.status != "stopped":
            self._kill(standing.state)
        self.cgroup(standing.state).remove()
        bundle = Path(standing.state.bundle)
        shutil.rmtree(self.root / id)
        try:
            wanted = read_spec(bundle).hooks or runtime_spec.Hooks()
        except NotFound:
            return
        hooks.run(wanted.poststop, Standing(standing.state, "stopped", standing.annotations).document())

    def _kill(self, state: State) -> None:
        try:
            self.cgroup(state).kill()
        except OSError:
            os.kill(state.pid, signal.SIGKILL)
        end = time.monotonic() + _KILL_TIMEOUT_SECONDS
        while _alive(state) and time.monotonic() < end:
            time.sleep(0.005)  # its parent is another process: there is nothing to wait on but its state

    def _make(self, id: str) -> Path:
        if not id or "/" in id or id.startswith("."):
            raise NotFound(f"invalid container id {id!r}")
        self.root.mkdir(parents=True, exist_ok=True, mode=0o711)
        try:
            (self.root / id).mkdir(mode=0o711)
        except FileExistsError:
            raise Conflict(f"container with id {id} already exists") from None
        return self.root / id

    def _placed(self, spec: runtime_spec.Spec, id: str) -> runtime_spec.Spec:
        """The spec with an absolute control group path, made up if there is none, or of systemd's slice:prefix:name."""
        path = spec.linux.cgroups_path or f"/minidocker/{id}"
        if self.systemd_cgroup and path.count(":") == 2:
            slice_, prefix, name = path.split(":")
            path = f"/{slice_ or 'system.slice'}/{prefix}-{name}.scope"
        linux = msgspec.structs.replace(spec.linux, cgroups_path="/" + path.strip("/"))
        return msgspec.structs.replace(spec, linux=linux)


def _fork(job: ContainerJob | ExecJob, channel: Channel) -> int:
    """Fork the container's process; our later children (hooks) are born in our own pid namespace again, not in its."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = job.fork(channel, ())
    finally:
        namespaces.setns(own, namespaces.CloneFlag.NEWPID)
        os.close(own)
    channel.close()
    return pid


def _early_hooks(spec: runtime_spec.Spec) -> list[runtime_spec.Hook]:
    return [*spec.hooks.prestart, *spec.hooks.create_runtime] if spec.hooks else []


def _streams(wanted: runtime_spec.Process) -> Streams:
    return Streams(terminal=wanted.terminal)


def _alive(state: State) -> bool:
    """True if pid 1 is there and no zombie."""
    try:
        if process.start_time(state.pid) != state.start_time:
            return False
        text = Path(f"/proc/{state.pid}/stat").read_text(errors="replace")
    except (KernelError, OSError):
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def _listen(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener.bind(f"/proc/self/fd/{parent}/{_START_SOCKET}")
    os.close(parent)
    listener.listen(1)
    return listener
