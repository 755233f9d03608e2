"""Exits: who notices that a container ended, what is recorded, and what happens next.

Source  DESIGN of the processes: monitors are waited for by pidfd; exit.json is the truth about an exit.
Rules   - a monitor that died without an exit.json has taken its container along: that counts as 137.
        - order of an exit: record, network, event, waiters, then removal (--rm) or restart.
"""

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from minidocker.engine import clock
from minidocker.engine.containers.container import (
    CREATED,
    EXITED,
    PAUSED,
    RESTARTING,
    RUNNING,
    VOLATILE_NAME,
    Container,
    Volatile,
)
from minidocker.engine.containers.starting import Launched
from minidocker.engine.networks.attachments import RESOLVER_ADDRESS, live_endpoints
from minidocker.errors import MinidockerError
from minidocker.network.endpoint import LiveEndpoint
from minidocker.oci import codec
from minidocker.runtime.records import Exit
from minidocker.runtime.remains import Adopted

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
LAST_DELAY_SECONDS = 60.0
STEADY_SECONDS = 10.0
KILLED = 137


class Supervision:
    """Watches the processes of one engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.closing = False

    def began(self, container: Container, launched: Launched) -> None:
        """Write down that the container runs, and watch for its end."""
        state = container.state
        state.status, state.pid, state.error, state.exit_code, state.oom_killed = RUNNING, launched.pid, "", 0, False
        self._remember(container, launched.volatile)
        self.watch(container, launched.monitor_fd)
        self._engine.resolving.came(container)
        self._engine.links.came(container)
        if launched.resolver:
            self._engine.background.spawn(self._engine.resolving.serve(container, launched.resolver))
        self._engine.health.begin(container)
        if not container.record.host.auto_remove:
            self._engine.background.spawn(container.note())  # in the background: adopt() knows as much without it

    @staticmethod
    def _remember(container: Container, volatile: Volatile) -> None:
        container.state.started_at = volatile.started_at
        record = container.record
        record.attached = {name: endpoint for name, endpoint in volatile.attached.items() if name in record.networks}
        record.ports, record.published_on = volatile.ports, volatile.published_on
        record.resolver = volatile.resolver

    def watch(self, container: Container, monitor_fd: int) -> None:
        """Take over a container's monitor's pidfd and act when the monitor ends."""
        container.watched = True
        self._engine.background.on_end(monitor_fd, lambda: self._ended(container))

    async def _ended(self, container: Container) -> None:
        record = container.record
        async with container.lock:
            container.watched = False
            await self._record_exit(container)
            restart = not self.closing and not container.stopping and self._wants_restart(container)
            if restart:
                container.state.status = RESTARTING
                self._engine.background.spawn(container.note())
            container.tell_exit()
            remove = record.host.auto_remove and not restart
            # exit.json goes only now: a crash before this line must find the exit code again.
            await asyncio.to_thread(self._engine.runtime.forget, container.id)
        if restart:
            self._restart_later(container)
        elif remove:
            with contextlib.suppress(MinidockerError):
                await self._engine.removal.discard(container, volumes=True)

    async def _record_exit(self, container: Container) -> None:
        record, state = container.record, container.state
        self._engine.health.suspend(container)
        self._engine.resolving.left_all(container)
        found = await asyncio.to_thread(self._release, container)
        await self._engine.volume_use.give_back(record, container.directory)
        state.status, state.pid = EXITED, 0
        state.exit_code = KILLED if found is None else found.code
        state.oom_killed = found is not None and found.oom_killed
        state.error = (found.error or "") if found is not None else "the container's monitor died"
        state.finished_at = found.finished_at if found is not None else clock.now()
        left, record.attached, record.ports, record.published_on = list(record.networks), {}, [], ""
        record.resolver = False
        for execution in container.execs.values():
            execution.container_ended()
        self._engine.execs.forget_unstarted(container)
        if not record.host.auto_remove:
            await container.note()
        events = self._engine.events
        if state.oom_killed:
            events.emit("container", "oom", record.id, container.attributes())
        events.emit("container", "die", record.id, container.attributes(exitCode=str(state.exit_code)))
        self._engine.networks.tell("disconnect", container, left)
        self._engine.containers.tell_volumes(container, "unmount")
        log.info("exited", extra={"container": record.id, "code": state.exit_code})

    def _release(self, container: Container) -> Exit | None:
        """In a thread: read the exit and give the networks back."""
        found = self._exit_of(container)
        try:
            self._engine.attachments.release_all(container.record.attached)
        except MinidockerError as error:
            log.warning("network not released", extra={"container": container.id, "reason": str(error)})
        return found

    def _exit_of(self, container: Container) -> Exit | None:
        """How it ended; None: the monitor died without a word, or a boot lies between. What is left of it is killed."""
        runtime = self._engine.runtime
        try:
            found = runtime.exit_status(container.id)
            if found is None:
                runtime.kill_all(container.id)
        except MinidockerError:
            return None
        return found

    def _wants_restart(self, container: Container) -> bool:
        policy, state = container.record.host.restart_policy, container.state
        if policy.name in ("always", "unless-stopped"):
            return True
        tries = container.record.restart_count
        return (
            policy.name == "on-failure"
            and state.exit_code != 0
            and (policy.maximum_retry_count == 0 or tries < policy.maximum_retry_count)
        )

    def _restart_later(self, container: Container) -> None:
        """Start again after a delay that doubles each time, up to a minute; a steady run sets it back."""
        state = container.state
        ran = (clock.nanoseconds_of(state.finished_at) - clock.nanoseconds_of(state.started_at)) / 1e9
        steady = ran >= STEADY_SECONDS
        container.restart_delay = (
            FIRST_DELAY_SECONDS if steady else min(container.restart_delay * 2, LAST_DELAY_SECONDS)
        )
        delay = container.restart_delay = container.restart_delay or FIRST_DELAY_SECONDS

        async def again() -> None:
            await asyncio.sleep(delay)
            async with container.lock:
                if container.state.status != RESTARTING or container.stopping or container.removed:
                    return
                container.record.restart_count += 1
                try:
                    await self._engine.running.start_locked(container)
                except MinidockerError as error:
                    log.warning("restart failed", extra={"container": container.id, "reason": str(error)})

        container.restart_task = self._engine.background.spawn(again())

    async def end_restart(self, container: Container) -> bool:
        """Forget a restart that is to come; one that is under way is waited for, and stays. True if there was one."""
        if container.state.status != RESTARTING:
            return False
        async with container.lock:
            return self.cancel_restart(container)

    def cancel_restart(self, container: Container) -> bool:
        """`end_restart` for who holds the lock: a start that is under way holds it, too."""
        task, container.restart_task = container.restart_task, None
        if container.state.status != RESTARTING:
            return False
        if task is not None:
            task.cancel()
        container.state.status = EXITED
        return True

    # -- the daemon's start and end --

    async def adopt(self) -> None:
        """Find again what lives, record what ended meanwhile, and finish what was begun.

        Called once, before requests are served. The network is ensured here too, since live addresses must be kept.
        """
        everything = await asyncio.to_thread(self._engine.runtime.adopt)
        found = {one.id: one for one in everything if not one.container}
        live: list[LiveEndpoint] = []
        dead: dict[str, Adopted] = {}
        for container in list(self._engine.containers.all()):
            one = found.pop(container.id, None)
            if one is not None and one.exit is None and one.monitor_pidfd is not None:
                self._resume(container, one)
                live += live_endpoints(container.record)
            elif one is not None:
                dead[container.id] = one
        await asyncio.to_thread(self._engine.networks.restore, live)
        await asyncio.to_thread(self._engine.volume_use.sweep)
        for container in list(self._engine.containers.all()):
            if container.state.running and container.watched:
                self._engine.resolving.came(container)
                if container.record.resolver:
                    self._engine.background.spawn(self._serve_again(container))
        for one in found.values():
            await asyncio.to_thread(self._engine.removal.sweep, one)
        for one in everything:
            if one.container:
                self._engine.execs.adopt(one)
        for container in list(self._engine.containers.all()):
            await self._settle(container, dead.get(container.id))

    def _resume(self, container: Container, one: Adopted) -> None:
        state = container.state
        self._recall(container)
        frozen = self._engine.runtime.cgroup(container.id).frozen()
        state.status, state.pid = PAUSED if frozen else RUNNING, one.pid
        assert one.monitor_pidfd is not None
        self.watch(container, one.monitor_pidfd)
        self._engine.volume_use.adopt(container)
        if not frozen:
            self._engine.health.resume(container)

    async def _serve_again(self, container: Container) -> None:
        """New DNS sockets: the old ones ended with the daemon that held them."""
        change = self._engine.runtime.change_network
        try:
            sockets = await asyncio.to_thread(change, container.id, resolver=RESOLVER_ADDRESS)
        except MinidockerError as error:  # it has ended meanwhile
            log.warning("names are not resolved", extra={"container": container.id, "reason": str(error)})
            return
        await self._engine.resolving.serve(container, sockets)

    def _recall(self, container: Container) -> None:
        """What the daemon that started it wrote in the exec-root."""
        path = self._engine.runtime.exec_root / "containers" / container.id / VOLATILE_NAME
        with contextlib.suppress(OSError, MinidockerError):
            self._remember(container, codec.decode(path.read_bytes(), Volatile, f"record {path}"))

    async def _settle(self, container: Container, left: Adopted | None) -> None:
        """One container at the daemon's start, if it does not run any more. left: what the runtime still has of it."""
        record, state = container.record, container.state
        if not container.watched:
            self._engine.volume_use.settle(container.directory)
        if record.removing:
            await self._engine.removal.discard(container, volumes=record.host.auto_remove)
            return
        if container.watched:
            await container.note()
            return
        was_running = state.status in (RUNNING, PAUSED, RESTARTING)
        if left is not None and not was_running and _never_ran(left):
            await asyncio.to_thread(self._engine.runtime.forget, container.id)
        elif was_running or left is not None:
            self._recall(container)
            record.attached, record.ports, record.published_on = {}, [], ""
            async with container.lock:
                await self._record_exit(container)
                await asyncio.to_thread(self._engine.runtime.forget, container.id)
        if record.host.auto_remove:  # as Docker: also one that was never started, since its client is gone
            await self._engine.removal.discard(container, volumes=True)
        elif was_running or state.status != CREATED:
            self._restart_at_boot(container)

    def _restart_at_boot(self, container: Container) -> None:
        policy = container.record.host.restart_policy.name
        # One that a daemon's end stopped runs again, one that a user stopped does not, except with "always".
        wanted = policy == "always" or not container.record.stopped_by_user
        if wanted and self._wants_restart(container):
            container.state.status = RESTARTING
            self._restart_later(container)

    async def close(self, *, stop: bool, timeout_seconds: float) -> None:
        """End watching. `stop`: containers are stopped first (SIGTERM of a daemon without live-restore)."""
        self.closing = True
        self._engine.health.close()
        for container in self._engine.containers.all():
            if container.restart_task is not None:
                container.restart_task.cancel()
        if stop:
            deadline = time.monotonic() + timeout_seconds
            stops = [self._engine.running.stop(c, None) for c in self._engine.containers.all() if c.state.running]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    asyncio.gather(*stops, return_exceptions=True), max(0.1, deadline - time.monotonic())
                )
            await self._engine.background.finish(timeout_seconds)
        self._engine.background.close()


def _never_ran(left: Adopted) -> bool:
    """A start that the daemon's death cut short: nothing of the container's command has run."""
    return left.state is None if left.exit is None else left.exit.error is not None
