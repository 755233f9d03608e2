"""What a container does and is told: start, stop, kill, restart, pause, wait.

Source  Docker Engine API 1.44: ContainerStart, Stop, Kill, Restart, Pause, Wait; texts recorded from dockerd.
Rules   - start and the exit's record hold the container's lock; stop and wait never hold it while they wait.
        - a container that is asked to be what it is already gives NotModified.
"""

import asyncio
import contextlib
import re
import signal
import socket
from typing import TYPE_CHECKING

from minidocker.engine import clock
from minidocker.engine.containers import attaching
from minidocker.engine.containers.attaching import AttachWaiter
from minidocker.engine.containers.container import CREATED, EXITED, PAUSED, RESTARTING, RUNNING, Container
from minidocker.engine.values import signal_number
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotModified
from minidocker.runtime.lifecycle import StartError

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

STOP_SECONDS = 10
KILL_SECONDS = 10
WAIT_CONDITIONS = ("not-running", "next-exit", "removed")


def start_text(error: StartError) -> str:
    """A start's failure in Docker's words: the docker CLI makes its exit status (125, 126, 127) from them."""
    unknown = re.search(r"unable to find (?:user|group) .*", str(error))
    if unknown:
        return unknown[0]
    return (
        f"failed to create task for container: failed to create shim task: OCI runtime create failed: {error}: unknown"
    )


class Running:
    """The verbs of running containers."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    # -- start --

    async def start(self, container: Container) -> None:
        """Start it.

        Raises  NotModified: it runs. Conflict: paused, or being removed. InvalidArgument, MinidockerError: the command
                did not start; the reason is also in State.Error, and the exit code 125, 126 or 127 in State.ExitCode.
        """
        async with container.lock:
            if container.removed or container.record.removing:
                raise Conflict("container is marked for removal and cannot be started")
            if container.state.status == PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.status == RUNNING:
                raise NotModified("the container runs already")
            self._engine.supervision.cancel_restart(container)
            container.stopping = False
            container.restart_delay = 0.0
            container.record.restart_count = 0
            await self.start_locked(container)
        if container.state.status == EXITED and container.record.host.auto_remove:
            await self._engine.removal.discard(container, volumes=True)

    async def start_locked(self, container: Container) -> None:
        """`start` for who holds the lock."""
        record = container.record
        record.stopped_by_user = False
        try:
            await self._engine.volume_use.take(record, container.directory)
            launched = await asyncio.to_thread(self._engine.starter.launch, container)
        except Exception as error:
            await self._engine.volume_use.give_back(record, container.directory)
            await self._start_failed(container, error)
            raise AssertionError("not reached") from error
        self._engine.supervision.began(container, launched)
        self._engine.networks.tell("connect", container, record.networks)
        self.join(container)
        self._engine.containers.tell_volumes(container, "mount")
        self._engine.events.emit("container", "start", record.id, container.attributes())

    async def _start_failed(self, container: Container, error: Exception) -> None:
        """Record the failure and raise it as what a client understands."""
        state = container.state
        text = start_text(error) if isinstance(error, StartError) else str(error)
        state.error = text
        state.exit_code = error.exit_code if isinstance(error, StartError) else 128
        if state.status != CREATED or isinstance(error, StartError):
            state.finished_at = clock.now() if state.status == RESTARTING else state.finished_at
        state.status = CREATED if state.started_at == clock.NEVER else EXITED
        await container.note()
        if container.record.host.auto_remove:
            self._engine.background.spawn(self._engine.removal.discard(container, volumes=True))
        if isinstance(error, StartError):
            kind = InvalidArgument if error.exit_code in (126, 127) else MinidockerError
            raise kind(text) from error
        if isinstance(error, OSError) and not isinstance(error, MinidockerError):
            raise MinidockerError(f"container {container.id} cannot be started: {error}") from error
        raise error

    # -- signals --

    async def kill(self, container: Container, signal_text: str) -> None:
        """Send a signal ("" is SIGKILL). Raises Conflict: it does not run. InvalidArgument: no such signal."""
        number = signal_number(signal_text) if signal_text else int(signal.SIGKILL)
        state = container.state
        if await self._engine.supervision.end_restart(container):
            container.stopping = True
            container.tell_exit()
            return
        if not state.running:
            raise Conflict(f"Container {container.id} is not running")
        if number == signal.SIGKILL or number == self._stop_signal(container):
            container.stopping = True
            container.record.stopped_by_user = True
        ended = container.exit_future()
        await asyncio.to_thread(self._signal, container, number)
        self._engine.events.emit("container", "kill", container.id, container.attributes(signal=str(number)))
        if number == signal.SIGKILL:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended, KILL_SECONDS)
        else:
            ended.cancel()

    async def end(self, container: Container) -> None:
        """SIGKILL, and wait until its end is recorded; for one that ends by itself at this moment, too."""
        ended = container.exit_future()
        try:
            await self.kill(container, "SIGKILL")
        except Conflict:
            if container.state.running:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(ended), KILL_SECONDS)
        finally:
            ended.cancel()

    def _signal(self, container: Container, number: int) -> None:
        self._engine.runtime.signal(container.id, number)
        if container.state.status == PAUSED and number == signal.SIGKILL:
            self._engine.runtime.resume(container.id)  # a frozen process of cgroup v1 dies only once it is thawed

    @staticmethod
    def _stop_signal(container: Container) -> int:
        return signal_number(container.record.config.stop_signal or "SIGTERM")

    async def stop(self, container: Container, timeout_seconds: int | None, signal_text: str = "") -> None:
        """Ask it to end, and kill it after `timeout_seconds` (None: the container's own or 10; negative: never).

        Raises  NotModified: it does not run.
        """
        number = signal_number(signal_text) if signal_text else self._stop_signal(container)
        if await self._engine.supervision.end_restart(container):
            container.stopping = container.record.stopped_by_user = True
            container.tell_exit()
            await container.note()
            return
        if not container.state.running:
            raise NotModified("the container is stopped already")
        own = container.record.config.stop_timeout
        seconds = timeout_seconds if timeout_seconds is not None else STOP_SECONDS if own is None else own
        container.stopping = True
        container.record.stopped_by_user = not self._engine.supervision.closing
        ended = container.exit_future()
        attributes = container.attributes
        try:
            with contextlib.suppress(Conflict):  # it ends by itself at this moment: that is waited for
                await asyncio.to_thread(self._stop_signal_send, container, number)
            self._engine.events.emit("container", "kill", container.id, attributes(signal=str(number)))
            try:
                await asyncio.wait_for(asyncio.shield(ended), None if seconds < 0 else seconds)
            except TimeoutError:
                with contextlib.suppress(Conflict):
                    await asyncio.to_thread(self._signal, container, int(signal.SIGKILL))
                self._engine.events.emit("container", "kill", container.id, attributes(signal="9"))
                await asyncio.wait_for(ended, KILL_SECONDS)
        except TimeoutError:
            raise MinidockerError(
                f"container {container.id} did not end {KILL_SECONDS} seconds after SIGKILL"
            ) from None
        finally:
            ended.cancel()
        self._engine.events.emit("container", "stop", container.id, attributes())

    def _stop_signal_send(self, container: Container, number: int) -> None:
        self._signal(container, number)
        if container.state.status == PAUSED:
            self._engine.runtime.resume(container.id)

    async def restart(self, container: Container, timeout_seconds: int | None, signal_text: str = "") -> None:
        """Stop it if it runs, then start it."""
        auto_remove = container.record.host.auto_remove
        container.record.host.auto_remove = False  # the stop in between must not remove it
        try:
            with contextlib.suppress(NotModified):
                await self.stop(container, timeout_seconds, signal_text)
            await self.start(container)
        finally:
            container.record.host.auto_remove = auto_remove
        self._engine.events.emit("container", "restart", container.id, container.attributes())

    async def pause(self, container: Container) -> None:
        """Freeze its processes. Raises Conflict: not running, or paused already."""
        async with container.lock:
            state = container.state
            if state.status == PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            if state.status == RESTARTING:
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            if state.status != RUNNING:
                raise Conflict(f"Container {container.id} is not running")
            await asyncio.to_thread(self._engine.runtime.pause, container.id)
            state.status = PAUSED
            self._engine.health.suspend(container)
            await container.note()
        self._engine.events.emit("container", "pause", container.id, container.attributes())

    async def unpause(self, container: Container) -> None:
        """Thaw its processes. Raises MinidockerError: not paused."""
        async with container.lock:
            if container.state.status != PAUSED:
                raise MinidockerError(f"Container {container.id} is not paused")
            await asyncio.to_thread(self._engine.runtime.resume, container.id)
            container.state.status = RUNNING
            self._engine.health.resume(container)
            await container.note()
        self._engine.events.emit("container", "unpause", container.id, container.attributes())

    # -- attach and wait --

    def attach(
        self, container: Container, *, stdin: bool, stdout: bool, stderr: bool
    ) -> "asyncio.Future[socket.socket | None]":
        """A future of the container's streams: now if it runs, else at its next start; None if it is removed first."""
        future: asyncio.Future[socket.socket | None] = asyncio.get_running_loop().create_future()
        waiter = AttachWaiter(attaching.wish_of(stdin=stdin, stdout=stdout, stderr=stderr), future)
        container.attach_waiters.append(waiter)

        def forget(_: object) -> None:
            if waiter in container.attach_waiters:
                container.attach_waiters.remove(waiter)

        future.add_done_callback(forget)
        if container.state.running:
            self.join(container)
        return future

    def join(self, container: Container) -> None:
        """Connect those who wait, while the container runs."""

        def connect() -> None:
            with contextlib.suppress(MinidockerError):  # it has ended: they wait for the next start
                attaching.connect_waiters(
                    lambda: self._engine.runtime.open_attach(container.id), container.attach_waiters
                )

        if container.attach_waiters:
            self._engine.background.spawn(asyncio.to_thread(connect))

    def wait(self, container: Container, condition: str) -> "asyncio.Future[int]":
        """A future of the exit code by `condition`: "not-running" ("" too), "next-exit" or "removed".

        Raises  InvalidArgument: another word.
        """
        if condition not in ("", *WAIT_CONDITIONS):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        if condition == "removed":
            return container.removal_future()
        if condition == "next-exit" or container.state.running or container.state.status == RESTARTING:
            return container.exit_future()
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(container.state.exit_code)
        return done
