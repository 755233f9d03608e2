"""Events: past ones, new ones, filters."""

import asyncio
import time

from minidocker.engine.events import KEPT, Events, matches

FOREVER = time.time_ns() * 2


def collect(events: Events, filters: dict[str, list[str]], until: int | None = None) -> list[str]:
    async def run() -> list[str]:
        return [event["Action"] async for event in events.listen(filters, 0, until or time.time_ns())]

    return asyncio.run(run())


def test_past_events_pass_the_filters() -> None:
    events = Events()
    events.emit("container", "create", "c" * 64, {"image": "busybox", "name": "one", "label": "x"})
    events.emit("image", "pull", "busybox:latest", {"name": "busybox"})
    events.emit("container", "exec_start: ls", "d" * 64, {"image": "other", "name": "two"})
    assert collect(events, {}) == ["create", "pull", "exec_start: ls"]
    assert collect(events, {"type": ["image"]}) == ["pull"]
    assert collect(events, {"container": ["one"]}) == ["create"]
    assert collect(events, {"container": ["dddd"]}) == ["exec_start: ls"]
    assert collect(events, {"event": ["exec_start"]}) == ["exec_start: ls"]
    assert collect(events, {"label": ["label=x"]}) == ["create"]
    assert collect(events, {"image": ["busybox"]}) == ["create", "pull"]


def test_only_the_last_are_kept() -> None:
    events = Events()
    for number in range(KEPT + 5):
        events.emit("container", str(number), "c", {})
    assert collect(events, {})[0] == "5"


def test_a_listener_gets_what_happens_after_it_came() -> None:
    async def run() -> list[str]:
        events = Events()
        stream = events.listen({})
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert events.listeners == 1
        events.emit("container", "start", "c", {})
        found = [(await first)["Action"]]
        await stream.aclose()
        assert events.listeners == 0
        return found

    assert asyncio.run(run()) == ["start"]


def test_what_is_no_filter_is_passed_over_as_docker_does() -> None:
    event = {"Type": "container", "Action": "start", "scope": "local", "Actor": {"ID": "1", "Attributes": {}}}
    assert matches(event, {"colour": ["red"]})
    assert not matches(event, {"colour": ["red"], "event": ["stop"]})
