"""Events: what happened, to all who listen and to those who ask later.

Source  Docker Engine API 1.44, SystemEvents; moby keeps the last 256 for `since`.
Rules   - a slow listener loses its oldest events rather than holding up the engine.
        - for containers and images the old fields status, id and from are there too.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

KEPT = 256
QUEUE_LIMIT = 1024
FILTERS = {
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
}
Event = dict[str, Any]


def matches(event: Event, filters: dict[str, list[str]]) -> bool:
    """True if `event` passes all `filters` (any value of each). What is no filter is passed over, as in Docker."""
    attributes = event["Actor"]["Attributes"]
    for name, values in filters.items():
        if not values or name not in FILTERS:
            continue
        if name == "type":
            found = event["Type"] in values
        elif name == "event":
            found = any(event["Action"] == v or event["Action"].split(":")[0] == v for v in values)
        elif name == "scope":
            found = event["scope"] in values
        elif name == "label":
            found = all(_label(attributes, value) for value in values)
        elif name == "image":
            found = any(value in _image_names(event) for value in values)
        else:
            found = any(_begins(event, value) for value in values)
        if not found:
            return False
    return True


def _label(attributes: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def _begins(event: Event, wanted: str) -> bool:
    """The actor's ID or name begins like that: how Docker matches container, network, volume and the other kinds."""
    actor = event["Actor"]
    return bool(actor["ID"].startswith(wanted) or actor["Attributes"].get("name", "").startswith(wanted))


def _image_names(event: Event) -> set[str]:
    """What an image filter may call the image of this event, which may be a container's; with its tag and without."""
    actor = event["Actor"]
    name = actor["Attributes"].get("name" if event["Type"] == "image" else "image", "")
    return {actor["ID"], name, _without_tag(actor["ID"]), _without_tag(name)} - {""}


def _without_tag(name: str) -> str:
    head, separator, tag = name.partition("@")[0].rpartition(":")
    return head if separator and "/" not in tag else name


class Events:
    """The engine's one stream of events. Only its loop's thread emits and subscribes."""

    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=KEPT)
        self._queues: set[asyncio.Queue[Event]] = set()

    def emit(self, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
        """Tell that `action` happened to the `kind` ("container", "image", ...) with ID `actor`."""
        nanoseconds = time.time_ns()
        event: Event = {}
        if kind in ("container", "image"):
            event |= {"status": action, "id": actor} if actor else {"status": action}
            if "image" in attributes:
                event["from"] = attributes["image"]
        event |= {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": attributes},
            "scope": "local",
            "time": nanoseconds // 1_000_000_000,
            "timeNano": nanoseconds,
        }
        self._past.append(event)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        return len(self._queues)

    async def listen(
        self, filters: dict[str, list[str]], since_ns: int | None = None, until_ns: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Past events within the bounds (none without a bound), then new ones until `until_ns` (None: for ever)."""
        queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)
        self._queues.add(queue)
        try:
            for event in list(self._past) if since_ns is not None or until_ns is not None else []:
                in_time = event["timeNano"] >= (since_ns or 0) and (until_ns is None or event["timeNano"] <= until_ns)
                if in_time and matches(event, filters):
                    yield event
            while True:
                left = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if left is not None and left <= 0:
                    return
                try:
                    event = await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
                if matches(event, filters):
                    yield event
        finally:
            self._queues.discard(queue)
