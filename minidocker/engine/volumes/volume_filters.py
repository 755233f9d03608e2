"""Filters of volumes: which there are, and which volumes pass.

Source  Docker Engine API 1.44: VolumeList, VolumePrune; replies recorded from dockerd.
"""

import re
from collections.abc import Collection

from minidocker.engine.containers import listing
from minidocker.errors import InvalidArgument
from minidocker.storage.volumes import Volume

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
OF_LISTS = ("dangling", "driver", "label", "name")
OF_PRUNE = ("all", "label", "label!")
_TRUE, _FALSE = ("1", "true", "t"), ("0", "false", "f")
Filters = dict[str, list[str]]


def labels_of(volume: Volume) -> dict[str, str]:
    """The user's labels, and Docker's own of an anonymous volume."""
    return {**volume.labels, ANONYMOUS_LABEL: ""} if volume.anonymous else volume.labels


def check(filters: Filters, known: Collection[str]) -> None:
    """Raises InvalidArgument: a filter that is not one of `known`."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def flag(filters: Filters, name: str) -> bool | None:
    """A boolean filter; None: not given."""
    values = {value.lower() for value in filters.get(name, [])}
    if not values:
        return None
    if values <= set(_TRUE):
        return True
    if values <= set(_FALSE):
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{' '.join(filters[name])}]'")


def fits(volume: Volume, filters: Filters) -> bool:
    """Whether a volume passes the filters that need no more than itself."""
    labels = labels_of(volume)
    names, drivers = filters.get("name", []), filters.get("driver", [])
    return (
        (not names or any(_matches(pattern, volume.name) for pattern in names))
        and (not drivers or volume.driver in drivers)
        and all(listing.has_label(labels, wanted) for wanted in filters.get("label", []))
        and not any(listing.has_label(labels, wanted) for wanted in filters.get("label!", []))
    )


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return pattern in name
