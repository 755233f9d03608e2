"""What an engine does besides answering: tasks in the background, and waiting for the ends of processes.

Rules   - the loop watches each process's pidfd; no thread waits and nothing is polled.
        - a task that fails is logged, since nobody waits for it.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)


class Background:
    """The tasks and watched processes of one engine."""

    def __init__(self) -> None:
        self._watched: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def on_end(self, monitor_fd: int, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Take over a pidfd; when its process ends, close it and run `work` in the background."""
        loop = asyncio.get_running_loop()
        self._watched.add(monitor_fd)

        def ended() -> None:
            self._watched.discard(monitor_fd)
            loop.remove_reader(monitor_fd)
            os.close(monitor_fd)
            self.spawn(work())

        loop.add_reader(monitor_fd, ended)

    def spawn(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        """Run `work` in the background; its failure is logged."""
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    async def _guarded(work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("background work failed")

    async def finish(self, timeout_seconds: float) -> None:
        """Wait for what is under way."""
        pending = [task for task in self._tasks if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=timeout_seconds)

    def close(self) -> None:
        """Watch no process any more."""
        loop = asyncio.get_running_loop()
        for fd in self._watched:
            loop.remove_reader(fd)
            os.close(fd)
        self._watched.clear()
