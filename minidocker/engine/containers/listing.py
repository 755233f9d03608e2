"""`docker ps`: which containers, in which order.

Source  Docker Engine API 1.44, ContainerList (filters); moby daemon/list.go.
Rules   - values of one filter are alternatives (labels: all must hold), different filters must all hold.
        - newest first. Without `all`, `limit` or a filter on status only running containers are listed.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from minidocker.engine import clock
from minidocker.engine.containers.container import Container
from minidocker.errors import InvalidArgument, NotFound

FILTERS = {
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
}  # fmt: skip
HEALTHS = {"starting", "healthy", "unhealthy", "none"}
STATUSES = {"created", "running", "paused", "restarting", "removing", "exited", "dead"}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list. `limit` counts from the newest; 0: no limit."""

    all: bool = False
    limit: int = 0
    filters: dict[str, list[str]] | None = None


def select(
    containers: Collection[Container],
    query: ListQuery,
    find: Callable[[str], Container],
    ancestors: Callable[[str], Collection[str]],
) -> list[Container]:
    """The containers that `query` means, newest first.

    find       a container by name or ID (for before, since).
    ancestors  the IDs of images that descend from a named one.
    Raises     InvalidArgument: an unknown filter or value. NotFound: before or since name no container.
    """
    filters = query.filters or {}
    for name in filters:
        if name not in FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    for health in filters.get("health", []):
        if health not in HEALTHS:
            raise InvalidArgument(f"invalid filter 'health={health}'")
    for status in filters.get("status", []):
        if status not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={status}'")
    _check_ports(filters)
    if len({value in ("1", "true") for value in filters.get("is-task", [])}) > 1 or any(
        value not in ("0", "1", "false", "true") for value in filters.get("is-task", [])
    ):
        raise InvalidArgument(f"invalid filter 'is-task=[{' '.join(filters['is-task'])}]'")
    ordered = sorted(containers, key=lambda c: clock.nanoseconds_of(c.record.created), reverse=True)
    if not (query.all or query.limit > 0 or filters.get("status")):
        ordered = [c for c in ordered if c.state.running or c.state.status == "restarting"]
    ordered = _between(ordered, filters, find)
    images = {image for name in filters.get("ancestor", []) for image in _images(ancestors, name)}
    for value in filters.get("exited", []):
        _code(value)
    chosen = [c for c in ordered if all(_fits(c, name, values, images) for name, values in filters.items() if values)]
    return chosen[: query.limit] if query.limit > 0 else chosen


def _images(ancestors: Callable[[str], Collection[str]], name: str) -> Collection[str]:
    try:
        return ancestors(name)
    except (NotFound, InvalidArgument):
        return ()


def _between(
    ordered: Sequence[Container], filters: dict[str, list[str]], find: Callable[[str], Container]
) -> list[Container]:
    chosen = list(ordered)
    for name in filters.get("before", []):
        limit = clock.nanoseconds_of(find(name).record.created)
        chosen = [c for c in chosen if clock.nanoseconds_of(c.record.created) < limit]
    for name in filters.get("since", []):
        limit = clock.nanoseconds_of(find(name).record.created)
        chosen = [c for c in chosen if clock.nanoseconds_of(c.record.created) > limit]
    return chosen


def _fits(container: Container, name: str, values: list[str], images: set[str]) -> bool:
    record, state = container.record, container.state
    if name == "label":
        return all(has_label(record.config.labels or {}, value) for value in values)
    tests: dict[str, Callable[[str], bool]] = {
        "id": lambda v: record.id.startswith(v) or _matches(v, record.id),
        "name": lambda v: _matches(v, record.name) or _matches(v, f"/{record.name}"),
        "status": lambda v: state.status == v,
        "exited": lambda v: state.status in ("exited", "dead") and _code(v) == state.exit_code,
        "ancestor": lambda v: record.image_id in images,
        "volume": lambda v: any(v in (p.name, p.destination, p.source) for p in record.mounts),
        "network": lambda v: v in record.networks or v == record.host.network_mode,
        "publish": lambda v: any(_in_range(v, p.container_port, p.protocol) for p in record.ports),
        "expose": lambda v: any(_exposes(v, port) for port in record.config.exposed_ports or {}),
        "health": lambda v: v == (container.health.status if container.health is not None else "none"),
        "is-task": lambda v: v in ("false", "0"),
        "isolation": lambda v: True,  # of Windows
        "before": lambda v: True,
        "since": lambda v: True,
    }
    return any(tests[name](value) for value in values)


def has_label(labels: dict[str, str], wanted: str) -> bool:
    """`key` or `key=value` holds."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text


def _code(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise InvalidArgument(f"invalid filter 'exited={text}'")
    return int(text)


def _check_ports(filters: dict[str, list[str]]) -> None:
    for name in ("publish", "expose"):
        for value in filters.get(name, []):
            low, _, high = value.partition("/")[0].partition("-")
            if not low.isdecimal() or (high and not high.isdecimal()) or int(high or low) < int(low):
                raise InvalidArgument(f"invalid filter '{name}={value}'")


def _in_range(wanted: str, port: int, protocol: str) -> bool:
    ports, _, kind = wanted.partition("/")
    low, _, high = ports.partition("-")
    return int(low) <= port <= int(high or low) and (kind or "tcp") == protocol


def _exposes(wanted: str, port: str) -> bool:
    number, _, protocol = port.partition("/")
    return number.isdecimal() and _in_range(wanted, int(number), protocol or "tcp")
