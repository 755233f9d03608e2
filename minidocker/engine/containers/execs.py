"""Execs: further commands in running containers.

Source  Docker Engine API 1.44: ContainerExec, ExecStart, ExecInspect, ExecResize; replies recorded from dockerd.
Rules   - create only remembers; start makes the process, attached before its command runs, so no output is missed.
        - the exit code is recorded before `finished` is set: who waits for it reads a final ExitCode.
        - `exec.json` beside the runtime's own files lets the next daemon know a running exec again.
"""

import asyncio
import logging
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from minidocker import typed
from minidocker.engine import names
from minidocker.engine.containers import attaching, spec
from minidocker.engine.containers.container import PAUSED, RESTARTING, Container
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound
from minidocker.oci import codec
from minidocker.oci import runtime_spec as oci
from minidocker.runtime.lifecycle import Created, StartError
from minidocker.runtime.remains import Adopted

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

_KEPT_ENDED = 100  # ended execs that inspect still knows, a container
_RECORD_NAME = "exec.json"
_BEGIN_SECONDS = 10.0  # as dockerd


class ExecConfig(msgspec.Struct, rename="pascal"):
    """The body of an exec create."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: tuple[int, int] | None = None


def read_config(raw: dict[str, Any]) -> ExecConfig:
    """Read the body. Raises InvalidArgument: no command, a bad value."""
    try:
        config = typed.convert_loosely(raw, ExecConfig)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid exec config: {error}") from None
    if not config.cmd:
        raise InvalidArgument("No exec command specified")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if any("\0" in word for word in [*config.cmd, *(config.env or []), config.user, config.working_dir]):
        raise InvalidArgument("the command, environment, user and working directory must not hold NUL bytes")
    return config


class Exec:
    """One exec. `exit_code` None: it has not ended."""

    def __init__(self, id: str, container: Container, config: ExecConfig) -> None:
        self.id = id
        self.container = container
        self.config = config
        self.started = False
        self.running = False
        self.exit_code: int | None = None
        self.pid = 0
        self.begun = asyncio.Event()
        self.finished = asyncio.Event()

    def ended(self, code: int) -> None:
        """Record how it ended, once."""
        if self.exit_code is None:
            self.exit_code = code
        self.running = False
        self.begun.set()
        self.finished.set()

    def container_ended(self) -> None:
        """The container has ended, and this with it. What still runs is told by its own monitor."""
        if not self.started:
            self.finished.set()


class Execs:
    """All execs of an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._by_id: dict[str, Exec] = {}

    def get(self, id: str) -> Exec:
        """By its whole ID or an unambiguous prefix. Raises NotFound."""
        if id in self._by_id:
            return self._by_id[id]
        found = [one for key, one in self._by_id.items() if len(id) >= 12 and key.startswith(id)]
        if len(found) != 1:
            raise NotFound(f"No such exec instance: {id}")
        return found[0]

    def create(self, container: Container, config: ExecConfig) -> Exec:
        """Remember a command to run. Raises Conflict: the container does not run or is paused."""
        check_runs(container)
        execution = Exec(names.new_id(), container, config)
        self._by_id[execution.id] = execution
        container.execs[execution.id] = execution
        self._forget_old(container)
        self._tell(execution, f"exec_create: {_told(config)}")
        return execution

    def _forget_old(self, container: Container) -> None:
        ended = [e for e in container.execs.values() if e.exit_code is not None]
        for execution in ended[:-_KEPT_ENDED]:
            del container.execs[execution.id]
            self._by_id.pop(execution.id, None)

    def forget_unstarted(self, container: Container) -> None:
        """The container has ended: what was to run in it never will, not even after its next start."""
        for execution in [e for e in container.execs.values() if not e.started]:
            del container.execs[execution.id]
            self._by_id.pop(execution.id, None)

    def forget_container(self, container: Container) -> None:
        """The container was removed."""
        for id in container.execs:
            self._by_id.pop(id, None)
        container.execs.clear()

    def _tell(self, execution: Exec, action: str, **more: str) -> None:
        container = execution.container
        attributes = container.attributes(execID=execution.id, **more)
        self._engine.events.emit("container", action, container.id, attributes)

    def check_start(self, execution: Exec) -> None:
        """Raises Conflict: it has run, or its container can't run it now."""
        if execution.started:
            raise Conflict(f"Error: Exec command {execution.id} has already run")
        check_runs(execution.container)

    async def start(
        self, execution: Exec, *, attach: bool, size: tuple[int, int] | None = None
    ) -> socket.socket | None:
        """Run it.

        attach  True: the streams that its config asks for, as a socket that the caller owns; else None comes back.
        Raises  Conflict: see `check_start`. StartError: it did not run; ExitCode is 126 or 127 then.
        """
        self.check_start(execution)
        execution.started = True
        config, runtime = execution.config, self._engine.runtime
        stream: socket.socket | None = None
        try:
            created = await asyncio.to_thread(self._prepare, execution, size or config.console_size or (0, 0))
            try:
                if attach:
                    stream = await attaching.open_stream(
                        lambda: runtime.open_attach(execution.id),
                        stdin=config.attach_stdin,
                        stdout=config.attach_stdout,
                        stderr=config.attach_stderr,
                    )
            except BaseException:
                await asyncio.to_thread(runtime.abandon, created)
                raise
            await asyncio.to_thread(self._begin, execution, created)
        except BaseException as error:
            if stream is not None:
                stream.close()
            execution.ended(error.exit_code if isinstance(error, StartError) else 126)
            raise
        self._watch(execution, created.pid, created.monitor_pidfd)
        self._tell(execution, f"exec_start: {_told(config)}")
        return stream

    def _prepare(self, execution: Exec, size: tuple[int, int]) -> Created:
        config, record = execution.config, execution.container.record
        caps = list(self._engine.starter.available) if config.privileged else None
        process = oci.Process(
            cwd=config.working_dir or record.config.working_dir or "/",
            args=config.cmd or [],
            env=exec_environment(spec.environment(record, self._engine.links.environment(record)), config),
            terminal=config.tty,
            capabilities=None if caps is None else oci.Capabilities(bounding=caps, effective=caps, permitted=caps),
            no_new_privileges=spec.no_new_privileges(record),
        )
        return self._engine.runtime.prepare_exec(
            record.id,
            execution.id,
            process,
            user=config.user or record.config.user or None,
            privileged=config.privileged,
            size=size if config.tty else (0, 0),
            open_stdin=config.attach_stdin,
        )

    def _begin(self, execution: Exec, created: Created) -> None:
        (created.directory / _RECORD_NAME).write_bytes(codec.encode(execution.config))
        self._engine.runtime.start(created)

    def _watch(self, execution: Exec, pid: int, monitor_fd: int) -> None:
        execution.started = execution.running = True
        execution.pid = pid
        execution.begun.set()
        self._engine.background.on_end(monitor_fd, lambda: self._ended(execution))

    async def _ended(self, execution: Exec) -> None:
        code = await asyncio.to_thread(self._take_exit, execution.id)
        execution.ended(code)
        self._tell(execution, "exec_die", exitCode=str(code))

    def _take_exit(self, id: str) -> int:
        """In a thread: the exit code (137 if the monitor died without a word), and everything of it gone."""
        runtime = self._engine.runtime
        try:
            found = runtime.exit_status(id)
            runtime.forget(id)
        except MinidockerError as error:
            log.warning("exec not cleaned up", extra={"exec": id, "reason": str(error)})
            return 137
        return 137 if found is None else found.code

    def adopt(self, one: Adopted) -> None:
        """An exec of an earlier daemon: known again while it runs, swept when it has ended."""
        container = next((c for c in self._engine.containers.all() if c.id == one.container), None)
        if one.monitor_pidfd is None or container is None:
            if one.monitor_pidfd is not None:
                os.close(one.monitor_pidfd)
            self._take_exit(one.id)
            return
        directory = self._engine.runtime.exec_root / "execs" / one.id
        execution = Exec(one.id, container, _read_record(directory))
        self._by_id[one.id] = container.execs[one.id] = execution
        self._watch(execution, one.pid, one.monitor_pidfd)

    async def resize(self, execution: Exec, rows: int, columns: int) -> None:
        """Set the size of its terminal, once it runs: clients ask for it while it is being started.

        Raises  Conflict: it has ended. MinidockerError: it does not start in ten seconds.
        """
        try:
            await asyncio.wait_for(execution.begun.wait(), _BEGIN_SECONDS)
        except TimeoutError:
            raise MinidockerError("timeout waiting for exec session ready") from None
        if not execution.running:
            raise Conflict(f"exec {execution.id} is not running")
        await attaching.resize(lambda: self._engine.runtime.open_attach(execution.id), rows, columns)

    @staticmethod
    def inspect(execution: Exec, version: tuple[int, int]) -> dict[str, Any]:
        """The inspect document. Before API 1.42 dockerd knew one exit code for whatever had not started: 126."""
        config, code = execution.config, execution.exit_code
        if code is not None and not execution.pid and version < (1, 42):
            code = 126
        words = config.cmd or [""]
        document: dict[str, Any] = {
            "ID": execution.id,
            "Running": execution.running,
            "ExitCode": code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": words[0],
                "arguments": words[1:],
                "privileged": config.privileged,
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": False,
            "ContainerID": execution.container.id,
            "DetachKeys": config.detach_keys,
            "Pid": execution.pid,
        }
        if config.user:
            document["ProcessConfig"]["user"] = config.user
        return document


def _read_record(directory: Path) -> ExecConfig:
    try:
        return codec.decode((directory / _RECORD_NAME).read_bytes(), ExecConfig, "exec record")
    except (OSError, InvalidArgument):
        return ExecConfig()


def check_runs(container: Container) -> None:
    """Raises Conflict, in Docker's words: no exec can start in it now."""
    state = container.state
    if state.status == PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
    if state.status == RESTARTING:
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if not state.running:
        raise Conflict(f"Container {container.id} is not running")


def failure_text(error: MinidockerError) -> str:
    """Why an exec did not start, in the words that Docker sends where its output would be."""
    unknown = re.search(r"unable to find (?:user|group) .*", str(error))
    if unknown or not isinstance(error, StartError):
        return unknown[0] if unknown else str(error)
    return f"OCI runtime exec failed: exec failed: {error}: unknown"


def _told(config: ExecConfig) -> str:
    """The command as events tell it: the program, a blank, and its arguments, as in Docker also where it has none."""
    program, *arguments = config.cmd or [""]
    return f"{program} {' '.join(arguments)}"


def exec_environment(container: list[str], config: ExecConfig) -> list[str]:
    """The container's environment, TERM for a terminal, then the exec's own; the later of two wins."""
    merged = {entry.partition("=")[0]: entry for entry in container if config.tty or not entry.startswith("TERM=xterm")}
    if config.tty:
        merged.setdefault("TERM", "TERM=xterm")
    for entry in config.env or []:
        if "=" in entry:
            merged[entry.partition("=")[0]] = entry
        else:
            merged.pop(entry, None)
    return list(merged.values())
