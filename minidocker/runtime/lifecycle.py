"""Containers from the caller's side: create, start, exec, signal, pause; remains.py finds them again and forgets them.

Source  OCI runtime-spec, runtime.md (lifecycle); DESIGN: "Processes".
Rules   - synchronous; an engine calls it in threads, a notebook directly. Nothing here forks: the launcher does.
        - a container is found by its directory and the lock in it, and its processes by pid and start time together.
        - whoever gets a `Created` gives it to `start` or to `abandon`. A start that fails has released everything.

    runtime = Runtime(exec_root, ForkServer.spawn("minidocker-launcher", LAUNCHER, exec_root=exec_root, python_path=[]))
    created = runtime.create("c1", bundle)
    runtime.start(created)
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from minidocker.errors import Conflict, InvalidArgument, KernelError, MinidockerError, NotFound
from minidocker.linux import process
from minidocker.linux.cgroups import Cgroup, Hierarchies, Statistics
from minidocker.linux.forkserver import ForkedProcess, ForkServer
from minidocker.oci import runtime_spec
from minidocker.runtime import records
from minidocker.runtime.bundle import read_spec
from minidocker.runtime.container import CreateRequest, apply_resources
from minidocker.runtime.exec import ExecRequest
from minidocker.runtime.jsonlog import timestamp
from minidocker.runtime.network import NetworkRequest, Route
from minidocker.runtime.records import Exit, State
from minidocker.runtime.remains import Adopted, Remains, remove, until_end_of, wait
from minidocker.runtime.rotating_log import LogTarget
from minidocker.runtime.stdio import Streams
from minidocker.runtime.sync import LOGGING_STEP, Channel, Message

LAUNCHER = "minidocker.runtime.launcher:main"
_KINDS = {127: "not_found", 126: "not_executable"}


class StartError(MinidockerError):
    """The command did not run.

    kind       "not_found", "not_executable" or "failed"; exit_code: 127, 126 or 128
    step       where it failed, "" for the execution itself; the logging driver's failure is told in Docker's words
    """

    def __init__(self, message: Message) -> None:
        text = f"{message.step}: {message.text}" if message.step else message.text
        begin = "failed to" if message.step == LOGGING_STEP else "unable to start container process:"
        super().__init__(f"{begin} {text}")
        self.kind = _KINDS.get(message.exit_code, "failed")
        self.step = message.step
        self.exit_code = message.exit_code or 128


@dataclass(slots=True)
class Created:
    """A process that waits for `start`: its namespaces are made, its rootfs may still be being mounted.

    pid            pid 1 (or the exec's process), in the host's numbers
    monitor_pidfd  readable when the monitor has ended; the caller's to close
    warnings       what could not be done but is no reason to stop
    """

    id: str
    pid: int
    monitor_pid: int
    monitor_pidfd: int
    directory: Path
    channel: Channel = field(repr=False)
    warnings: list[str] = field(default_factory=list)


class Runtime:
    """All containers below one exec-root."""

    def __init__(self, exec_root: Path, launcher: ForkServer, hierarchies: Hierarchies | None = None) -> None:
        self.exec_root = exec_root
        self.launcher = launcher
        self._hierarchies = hierarchies or Hierarchies.detect()
        self._remains = Remains(self._hierarchies)

    def create(
        self,
        id: str,
        bundle: Path,
        *,
        log: LogTarget | None = None,
        terminal: bool | None = None,
        size: tuple[int, int] = (0, 0),
        open_stdin: bool = False,
        stdin_once: bool = False,
    ) -> Created:
        """Make a container of the bundle; its command waits for `start`.

        log       where its output goes, None: nowhere
        terminal  must be config.json's process.terminal; None: taken from there
        size      rows and columns of its terminal
        Raises    StartError: a namespace or the control group could not be made. Conflict: the id is in use.
                  InvalidArgument: config.json is refused, with the reason.
        """
        if terminal is None:
            wanted = read_spec(bundle).process
            terminal = wanted is not None and wanted.terminal
        streams = Streams(terminal, *size, open_stdin, stdin_once, log)
        directory = self._make_directory("containers", id)
        request = CreateRequest(id, str(directory), str(bundle), timestamp(time.time_ns()), streams)
        return self._launch(id, directory, msgspec.json.encode(request))

    def prepare_exec(
        self,
        container_id: str,
        exec_id: str,
        process: runtime_spec.Process,
        *,
        user: str | None = None,
        privileged: bool = False,
        size: tuple[int, int] = (0, 0),
        open_stdin: bool = False,
    ) -> Created:
        """Make one more process in a running container; its command waits for `start`, so a client can attach first.

        process     what it leaves empty (capabilities None, env, cwd "", rlimits) is the container's own
        user        Docker's user string, looked up in the container; None: process.user has the numbers
        privileged  True: without the container's seccomp filter
        Raises      Conflict: the container is not running, or the exec_id is in use. StartError.
        """
        container = self.state(container_id)
        if self.exit_status(container_id) is not None:
            raise Conflict(f"container {container_id} is not running")
        streams = Streams(process.terminal, *size, open_stdin, stdin_once=True)
        directory = self._make_directory("execs", exec_id)
        created = timestamp(time.time_ns())
        request = ExecRequest(exec_id, str(directory), created, container, process, streams, user, privileged)
        return self._launch(exec_id, directory, msgspec.json.encode(request))

    def exec(self, container_id: str, exec_id: str, process: runtime_spec.Process, **options: Any) -> Created:
        """`prepare_exec` and `start` at once, if nobody waits for its first output. Options as `prepare_exec`."""
        created = self.prepare_exec(container_id, exec_id, process, **options)
        self.start(created)
        return created

    def start(self, created: Created, network: Mapping[str, Any] | None = None) -> None:
        """Let it go on, and return when the command runs.

        network  the interfaces to configure: {"interfaces": [...]}; None or empty: loopback alone.
        Raises   StartError: a step failed; nothing of it is left, `created` neither.
        """
        created.channel.send(Message("start", network=dict(network) if network else None))
        message = self._next(created)
        if message.kind != "started":
            raise self._failed(created, message)
        created.channel.close()

    def abandon(self, created: Created) -> None:
        """Give up what was created and not started."""
        created.channel.close()
        wait(created.monitor_pidfd)
        os.close(created.monitor_pidfd)
        self._remains.clear(created.directory)

    def change_network(
        self,
        id: str,
        network: Mapping[str, Any] | None = None,
        *,
        routes: Sequence[Route] = (),
        resolver: str = "",
    ) -> list[socket.socket]:
        """Work in the network namespace of a container that was created, from its pid 1's birth to its end.

        network   interfaces that are in the namespace already and shall be configured, as `start` takes them
        routes    the default routes from now on, one a family; a family without one keeps what it has
        resolver  an address of loopback, to get DNS sockets on: then [UDP, listening TCP] come back, the caller's to
                  close when pid 1 ends, since they keep the namespace; "": none, []
        Raises    MinidockerError: it has ended, has the host's namespace, or the kernel refused. NotFound.
        """
        request = NetworkRequest(self.state(id), dict(network or {}), tuple(routes), resolver)
        ours, theirs = Channel.pair()
        try:
            child = self.launcher.fork(msgspec.json.encode(request), [theirs.fileno()])
            theirs.close()
            message, descriptors = ours.receive()
            os.close(child.pidfd)
        finally:
            ours.close()
            theirs.close()
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if message is None or message.kind != "network":
            reason = message.text if message is not None else "the launcher's child has ended without a word"
            raise MinidockerError(f"network of container {id[:12]} could not be changed: {reason}")
        return sockets

    def open_pidfd(self, id: str) -> int | None:
        """A pidfd of its first process, the caller's to close; None: it has ended."""
        state = self.state(id)
        return records.open_process(state.pid, state.start_time)

    def while_alive(self, id: str, work: Callable[[int], object]) -> None:
        """Call `work` with the pid of its first process, which nobody else can have meanwhile.

        Raises  Conflict: it ended before or during that; the work may then have met another process of that pid.
        """
        pidfd = self.open_pidfd(id)
        if pidfd is None:
            raise Conflict(f"container {id} is not running")
        try:
            work(self.state(id).pid)
            process.pidfd_send(pidfd, 0)
        except KernelError as error:
            if error.errno == errno.ESRCH:
                raise Conflict(f"container {id} is not running") from error
            raise
        finally:
            os.close(pidfd)

    def state(self, id: str) -> State:
        """The record of a container or an exec. Raises NotFound."""
        state = records.read(self._find(id) / "state.json", State)
        if state is None:
            raise NotFound(f"{id} has no running process")
        return state

    def exit_status(self, id: str) -> Exit | None:
        """How it ended, or None while it lives."""
        return records.read(self._find(id) / "exit.json", Exit)

    def signal(self, id: str, signal: int) -> None:
        """Send a signal to its first process. Raises Conflict: it has ended; NotFound."""
        state = self.state(id)
        pidfd = records.open_process(state.pid, state.start_time)
        if pidfd is None:
            raise Conflict(f"{id} is not running")
        try:
            process.pidfd_send(pidfd, signal)
        except KernelError as error:
            raise Conflict(f"{id} is not running") from error
        finally:
            os.close(pidfd)

    def pause(self, id: str) -> None:
        """Freeze all its processes; returns when they stand."""
        self.cgroup(id).freeze(True)

    def resume(self, id: str) -> None:
        """Let them go on."""
        self.cgroup(id).freeze(False)

    def update(self, id: str, resources: runtime_spec.Resources) -> None:
        """Change its limits while it runs; what is None stays."""
        apply_resources(self.cgroup(id), resources, with_devices=False)

    def statistics(self, id: str) -> Statistics:
        """What its control group has used."""
        return self.cgroup(id).statistics()

    def oom_kills(self, id: str) -> int:
        """How many of its processes were killed for want of memory."""
        return self.cgroup(id).oom_kills()

    def pids(self, id: str) -> list[int]:
        """All its processes, in the host's numbers."""
        return self.cgroup(id).pids()

    def kill_all(self, id: str) -> None:
        """SIGKILL for all its processes, by their control group; returns when its first process has ended."""
        state = self.state(id)
        with until_end_of(state):
            self.cgroup(id).kill()

    def cgroup(self, id: str) -> Cgroup:
        """Its control group. Raises NotFound."""
        path = self.state(id).cgroup
        if not path:
            raise NotFound(f"{id} has no control group of its own")
        return Cgroup.open(path, self._hierarchies)

    def resize(self, id: str, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        with self.open_attach(id) as connection:
            connection.sendall(msgspec.json.encode({"op": "resize", "rows": rows, "columns": columns}) + b"\n")
            connection.recv(4096)

    def open_attach(self, id: str) -> socket.socket:
        """A connection to its attach.sock; see attach.py for what to say. Raises NotFound: it has ended."""
        directory = os.open(self._find(id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(f"/proc/self/fd/{directory}/attach.sock")  # an address has room for 108 bytes only
        except OSError as error:
            connection.close()
            raise NotFound(f"{id} has ended: nothing to attach to ({error.strerror})") from None
        finally:
            os.close(directory)
        return connection

    def adopt(self) -> list[Adopted]:
        """Everything that earlier daemons left below the exec-root, containers first; see remains.py."""
        return self._remains.adopt(self.exec_root)

    def forget(self, id: str) -> None:
        """Remove what is left of it: its processes if any, its control group, its directory. Nothing there is fine.

        Raises  Conflict: it runs.
        """
        with suppress(NotFound):
            self._remains.forget(self._find(id))

    def _find(self, id: str) -> Path:
        for kind in ("containers", "execs"):
            directory = f"{self.exec_root}/{kind}/{id}"
            if os.path.isdir(directory):
                return Path(directory)
        raise NotFound(f"no container or exec {id} below {self.exec_root}")

    def _make_directory(self, kind: str, id: str) -> Path:
        if not id or "/" in id or id.startswith("."):
            raise InvalidArgument(f"{id!r} is not an id")
        parent = self.exec_root / kind
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            (parent / id).mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"{id} exists already below {parent}") from None
        return parent / id

    def _launch(self, id: str, directory: Path, request: bytes) -> Created:
        ours, theirs = Channel.pair()
        try:
            forked: ForkedProcess = self.launcher.fork(request, [theirs.fileno()])
        except BaseException:
            ours.close()
            remove(directory)
            raise
        finally:
            theirs.close()
        created = Created(id, 0, forked.pid, forked.pidfd, directory, ours)
        message = self._next(created)
        if message.kind != "created":
            raise self._failed(created, message)
        created.pid = message.pid
        return created

    @staticmethod
    def _next(created: Created) -> Message:
        """The next message that is no warning; an error if the monitor is gone."""
        while True:
            message, _ = created.channel.receive()
            if message is None:
                return Message("error", text="the monitor has ended", exit_code=128)
            if message.kind != "warning":
                return message
            created.warnings.append(message.text)

    def _failed(self, created: Created, message: Message) -> StartError:
        """Wait for the monitor, which has undone its part, and remove ours."""
        created.channel.close()
        wait(created.monitor_pidfd)
        os.close(created.monitor_pidfd)
        self._remains.clear(created.directory)
        return StartError(message)
