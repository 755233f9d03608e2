"""The monitor's event loop: descriptors and what to do when they are ready. poll(2), nothing more.

Rules   - a descriptor that is watched for nothing is not registered: poll reports a hang-up whether asked or not, for
          ever.
        - handlers may watch and forget descriptors, their own too.
"""

import select
from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT
HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
Handler = Callable[[int], None]


class Loop:
    """Descriptors, the events wanted of each, and its handler, which gets the events that came."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Handler] = {}

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

    def __contains__(self, fd: int) -> bool:
        return fd in self._handlers

    def turn(self, timeout_ms: int | None = None) -> bool:
        """Wait for events and handle them. Returns False if none came in time."""
        ready = self._poll.poll(timeout_ms)
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        return bool(ready)
