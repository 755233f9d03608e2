"""Health checks: a command run in the container again and again, and what its results say.

Source  Docker Engine API 1.44, HealthConfig and Health; moby daemon/health.go (when what counts); dockerd seen.
Rules   - one task a container probes it from its start to its end; a pause stops the task, not the status.
        - a probe is an ordinary exec, killed when it takes longer than its timeout; that is a failure with code -1.
        - failures within the start period do not count until the container was healthy once.
        - the last five results are kept beside the record, so a stopped container and the next daemon still have them.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker import typed
from minidocker.engine import clock
from minidocker.engine.containers.config import ContainerConfig, Healthcheck
from minidocker.engine.containers.container import RUNNING, Container
from minidocker.engine.containers.execs import ExecConfig
from minidocker.errors import MinidockerError

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

STARTING, HEALTHY, UNHEALTHY, NONE = "starting", "healthy", "unhealthy", "none"
KEPT, OUTPUT_BYTES = 5, 4096
TIMED_OUT = -1
FILE_NAME = "health.json"
_SECOND = 1_000_000_000
_INTERVAL_NS, _TIMEOUT_NS, _START_INTERVAL_NS, _RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3
_READ_BYTES = 65536


class Result(msgspec.Struct, rename="pascal", frozen=True):
    """One probe. Times are RFC 3339; exit code 0 is healthy, -1: it did not end in time, or could not run."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(msgspec.Struct, rename="pascal"):
    """What is known of a container's health; inspect shows it as it is."""

    status: str = STARTING
    failing_streak: int = 0
    log: list[Result] = []

    def take(self, result: Result, *, retries: int, counts: bool) -> None:
        """Draw the conclusion from one more result. counts: a failure is one of `retries` that make it unhealthy."""
        self.log = [*self.log, result][-KEPT:]
        if result.exit_code == 0:
            self.failing_streak, self.status = 0, HEALTHY
        elif counts or self.status != STARTING:
            self.failing_streak += 1
            if self.failing_streak >= retries:
                self.status = UNHEALTHY

    @property
    def words(self) -> str:
        """As `docker ps` puts it into brackets."""
        return f"health: {self.status}" if self.status == STARTING else self.status


def command_of(config: ContainerConfig) -> list[str] | None:
    """The probe's command; None: there is no check.

    >>> command_of(ContainerConfig(healthcheck=Healthcheck(test=["CMD-SHELL", "true"])))
    ['/bin/sh', '-c', 'true']
    """
    test = config.healthcheck.test if config.healthcheck is not None else None
    if not test or len(test) < 2:
        return None
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*(config.shell or ["/bin/sh", "-c"]), test[1]]
    return None


def read(directory: Path) -> Health | None:
    """What an earlier daemon or run wrote about the container of this directory."""
    try:
        return typed.decode((directory / FILE_NAME).read_bytes(), Health)
    except (OSError, msgspec.MsgspecError):
        return None


def next_delay_seconds(check: Healthcheck, status: str, since_start_ns: int) -> float:
    """How long until the next probe: shorter while it is starting, within its start period."""
    starting = status == STARTING and since_start_ns < check.start_period
    nanoseconds = (check.start_interval or _START_INTERVAL_NS) if starting else (check.interval or _INTERVAL_NS)
    return nanoseconds / _SECOND


class HealthChecks:
    """The probing of all containers of one engine. Used from the loop's thread."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def load(self, container: Container) -> None:
        """At the daemon's start: remember what was known."""
        if command_of(container.record.config) is not None:
            container.health = read(container.directory)

    def begin(self, container: Container) -> None:
        """The container has started: its health is not known yet. The results of its last run stay visible."""
        command = command_of(container.record.config)
        if command is None:
            container.health = None
            return
        earlier = container.health.log if container.health is not None else []
        container.health = Health(log=earlier)
        self.resume(container)

    def resume(self, container: Container) -> None:
        """Go on probing: after a pause, or for the next daemon."""
        command, check = command_of(container.record.config), container.record.config.healthcheck
        self.suspend(container)
        if command is None or check is None:
            return
        if container.health is None:
            container.health = Health()
        self._tasks[container.id] = self._engine.background.spawn(self._watch(container, command, check))

    def suspend(self, container: Container) -> None:
        """Stop probing: it is paused, has ended, or the daemon ends."""
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """The daemon ends."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _watch(self, container: Container, command: list[str], check: Healthcheck) -> None:
        while True:
            assert container.health is not None
            started_ns = clock.nanoseconds_of(container.state.started_at)
            await asyncio.sleep(next_delay_seconds(check, container.health.status, time.time_ns() - started_ns))
            if container.state.status != RUNNING:
                return
            begin_ns = time.time_ns()
            code, output = await self._probe(container, command, (check.timeout or _TIMEOUT_NS) / _SECOND)
            if container.state.status != RUNNING:
                return  # it ended under the probe: that says nothing about its health
            result = Result(clock.text_of(begin_ns), clock.now(), code, output)
            await self._record(container, result, check, begin_ns - started_ns >= check.start_period)

    async def _record(self, container: Container, result: Result, check: Healthcheck, counts: bool) -> None:
        health = container.health
        assert health is not None
        before = health.status
        health.take(result, retries=check.retries or _RETRIES, counts=counts)
        await asyncio.to_thread(_write, container.directory, msgspec.json.encode(health))
        if health.status != before:
            action = f"health_status: {health.status}"
            self._engine.events.emit("container", action, container.id, container.attributes())

    async def _probe(self, container: Container, command: list[str], timeout_seconds: float) -> tuple[int, str]:
        """Run the command once: its exit code and the beginning of its output."""
        execs = self._engine.execs
        try:
            config = ExecConfig(attach_stdout=True, attach_stderr=True, cmd=command)
            execution = execs.create(container, config)
            stream = await execs.start(execution, attach=True)
        except MinidockerError as error:
            return TIMED_OUT, str(error)
        assert stream is not None
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_seconds):
                await _read_output(stream, output)
                await execution.finished.wait()
        except TimeoutError:
            await asyncio.to_thread(self._kill, execution.id)
            text = f"Health check exceeded timeout ({_duration(timeout_seconds)})"
            return TIMED_OUT, f"{text}: {_text(output)}" if output else text
        except asyncio.CancelledError:
            await asyncio.to_thread(self._kill, execution.id)
            raise
        finally:
            stream.close()
        return execution.exit_code if execution.exit_code is not None else TIMED_OUT, _text(output)

    def _kill(self, exec_id: str) -> None:
        with contextlib.suppress(MinidockerError):
            self._engine.runtime.signal(exec_id, signal.SIGKILL)


async def _read_output(stream: socket.socket, output: bytearray) -> None:
    """Collect the payload of frames until the stream ends; beyond the bound it is read and dropped."""
    loop = asyncio.get_running_loop()
    pending = b""
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(stream, _READ_BYTES):
            pending += data
            while len(pending) >= 8 and len(pending) >= 8 + (length := int.from_bytes(pending[4:8], "big")):
                output += pending[8 : 8 + length][: OUTPUT_BYTES - len(output)]
                pending = pending[8 + length :]


def _text(output: bytearray) -> str:
    return bytes(output).decode(errors="replace")


def _duration(seconds: float) -> str:
    """As Go prints a duration, for the simple ones that people choose."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def _write(directory: Path, content: bytes) -> None:
    """Beside the record, replaced as a whole, not synced: the next probe says it again."""
    temporary = directory / f".{FILE_NAME}"
    with contextlib.suppress(FileNotFoundError):  # the container is being removed
        temporary.write_bytes(content)
        os.rename(temporary, directory / FILE_NAME)
