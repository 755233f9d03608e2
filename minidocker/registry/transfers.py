"""Transfers: work that several pulls want and that is done once.

Source  moby `distribution/xfer` (three downloads at a time, watchers of one transfer).
Rules   - the work lives as long as someone waits for it: when the last one is cancelled, so is the work, and `share`
          returns only after it has ended and cleaned up.
        - one who joined and saw it fail tries by himself: it may have failed for want of the other's rights.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from minidocker.errors import MinidockerError
from minidocker.registry.client import outlast
from minidocker.registry.progress import Progress, Report

T = TypeVar("T")


class _Shared:
    """One piece of work under way."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.watchers: list[Report] = []
        self.last: Progress | None = None

    def report(self, progress: Progress) -> None:
        self.last = progress
        for watcher in self.watchers:
            watcher(progress)


class Transfers:
    """All transfers of one engine.

    downloads  how many blobs may come in at once. unpacks  how many layers may be unpacked at once.
    """

    def __init__(self, *, downloads: int = 3, unpacks: int = 2) -> None:
        self.downloading = asyncio.Semaphore(downloads)
        self.unpacking = asyncio.Semaphore(unpacks)
        self._running: dict[str, _Shared] = {}

    async def share(self, key: str, work: Callable[[Report], Awaitable[T]], report: Report) -> T:
        """The result of `work`, started unless work under `key` runs already.

        work    gets a `Report` that reaches everyone who waits.
        Raises  what `work` raises.
        """
        while True:
            shared = self._running.get(key)
            joined = shared is not None
            if shared is None:
                shared = self._start(key, work)
            try:
                result: T = await self._wait(key, shared, report)
                return result
            except MinidockerError:
                if not joined:
                    raise

    def _start(self, key: str, work: Callable[[Report], Awaitable[T]]) -> _Shared:
        shared = self._running[key] = _Shared()
        shared.task = asyncio.ensure_future(work(shared.report))
        shared.task.add_done_callback(lambda _: self._forget(key, shared))
        return shared

    def _forget(self, key: str, shared: _Shared) -> None:
        if self._running.get(key) is shared:
            del self._running[key]

    async def _wait(self, key: str, shared: _Shared, report: Report) -> Any:
        assert shared.task is not None
        if shared.last is not None:
            report(shared.last)
        shared.watchers.append(report)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.watchers.remove(report)
            if not shared.watchers and not shared.task.done():
                self._forget(key, shared)  # nobody may join what is about to end
                shared.task.cancel()
                await outlast(shared.task)
