"""The monitor's event loop: descriptors and what to do when they are ready. poll(2), nothing more.

Rules   - a descriptor that is watched for nothing is not registered: poll reports a hang-up whether asked or not, for
          ever.
        - handlers may watch and forget descriptors, their own too.
"""

import select
import time
from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT
HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
Handler = Callable[[int], None]


class Loop:
    """Descriptors, the events wanted of each, and its handler, which gets the events that came."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Handler] = {}
        self._alarms: dict[object, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call `handler` when `fd` is ready; replaces what was asked of it before. `events` 0: as `forget`."""
        if not events:
            self.forget(fd)
            return
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """No more of this descriptor. To be called before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def alarm(self, owner: object, seconds: float | None, handler: Callable[[], None]) -> None:
        """Call `handler` once, so many seconds from now; one alarm an owner. None: not any more."""
        if seconds is None:
            self._alarms.pop(owner, None)
        else:
            self._alarms[owner] = (time.monotonic() + seconds, handler)

    def __contains__(self, fd: int) -> bool:
        return fd in self._handlers

    def turn(self, timeout_ms: int | None = None) -> bool:
        """Wait for events and handle them. Returns False if none came in time."""
        if self._alarms:
            timeout_ms = self._ring(timeout_ms)
        ready = self._poll.poll(timeout_ms)
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        return bool(ready)

    def _ring(self, timeout_ms: int | None) -> int:
        """Handle the alarms that are due. Returns how long the next turn may wait at most."""
        now = time.monotonic()
        for owner, (moment, handler) in list(self._alarms.items()):
            if moment <= now:
                del self._alarms[owner]
                handler()
        waits = [max(0, int((moment - now) * 1000) + 1) for moment, _ in self._alarms.values()]
        return min([*waits, *([] if timeout_ms is None else [timeout_ms])], default=0)
