"""JSON read as a type, from any thread.

Source  msgspec's documentation, "Performance Tips" (reuse decoders).
Rules   - msgspec learns a struct when it is first used, and a second thread that uses it meanwhile reads what is half
          learnt: the process is killed by SIGSEGV. So each type is learnt under one lock, before its first use.
        - whoever reads typed JSON asks here; `msgspec.json.decode(..., type=...)` is used nowhere else.
"""

import _thread
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

Hook = Callable[[type, Any], Any]

_learning = _thread.allocate_lock()  # `threading` would cost each child of the launcher 0.4 MB
_decoders: dict[Any, "msgspec.json.Decoder[Any]"] = {}
_shapes: dict[Any, Any] = {}


def decoder(kind: Any, hook: Hook | None = None) -> "msgspec.json.Decoder[Any]":
    """The one decoder of a type (or union of types). hook: reads what msgspec does not know (its `dec_hook`)."""
    with _learning:
        found = _decoders.get((kind, hook))
        if found is None:
            found = _decoders[kind, hook] = msgspec.json.Decoder(kind, dec_hook=hook)
        return found


def decode(content: bytes | str, kind: type[T]) -> T:
    """Read JSON `content` as a `kind`. Raises msgspec.MsgspecError, UnicodeDecodeError, RecursionError."""
    value: T = decoder(kind).decode(content)
    return value


def convert(value: Any, kind: type[T], *, from_attributes: bool = False) -> T:
    """Read built-in objects as a `kind`. Raises msgspec.ValidationError."""
    decoder(kind)
    return msgspec.convert(value, kind, from_attributes=from_attributes)


_NULL = re.compile(r"got `null` - at `\$(.*)`\Z")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_NULLS_LIMIT = 1000


def convert_loosely(value: Any, kind: type[T]) -> T:
    """Read built-in objects as a `kind`, as a Go program does: null is "not said" for whatever cannot be null, and
    fields are found in any case of letters.

    Raises msgspec.ValidationError: anything else that does not fit.
    """
    value = _folded(value, _shape(kind))
    for _ in range(_NULLS_LIMIT):
        try:
            return convert(value, kind)
        except msgspec.ValidationError as error:
            place = _NULL.search(str(error))
            if place is None:
                raise
            value = _without_null(value, [match[1] or match[2] for match in _STEP.finditer(place[1])])
    return convert(value, kind)


def _without_null(value: Any, steps: list[str]) -> Any:
    """`value` without the nulls at a place in it. A step is a field, a number in a list, or "..." for every key."""
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(value, list):
        changed = [_without_null(item, rest) if str(at) == step else item for at, item in enumerate(value)]
        return [item for at, item in enumerate(changed) if rest or str(at) != step or item is not None]
    if not isinstance(value, dict):
        return value
    found = {key: _without_null(item, rest) if step in (key, "...") else item for key, item in value.items()}
    return {key: item for key, item in found.items() if rest or step not in (key, "...") or item is not None}


def named(value: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """`value` with its keys spelt as in `names`, whatever the case of their letters; other keys stay. The last wins.

    >>> named({"image": "busybox", "Other": 1}, ["Image"])
    {'Image': 'busybox', 'Other': 1}
    """
    spelt = {name.lower(): name for name in names}
    return {key if key in names else spelt.get(key.lower(), key): item for key, item in value.items()}


def _shape(kind: Any) -> Any:
    """What msgspec.inspect tells of a type. Kept: it is asked for at each request."""
    import msgspec.inspect  # not for the launcher, whose children would all have it

    with _learning:
        found = _shapes.get(kind)
        if found is None:
            found = _shapes[kind] = msgspec.inspect.type_info(kind)
        return found


def _folded(value: Any, shape: Any) -> Any:
    """`value` with the fields of all its structs named as they declare them."""
    parts = getattr(shape, "types", None)  # a union: an object or a list is meant by at most one of them
    if parts is not None:
        for part in parts:
            value = _folded(value, part)
    elif isinstance(value, list):
        item = getattr(shape, "item_type", None)
        return [_folded(one, item) for one in value] if item is not None else value
    elif isinstance(value, dict) and hasattr(shape, "fields"):
        fields = {field.encode_name: field.type for field in shape.fields}
        return {key: _folded(one, fields.get(key)) for key, one in named(value, fields).items()}
    elif isinstance(value, dict) and hasattr(shape, "value_type"):
        return {key: _folded(one, shape.value_type) for key, one in value.items()}
    return value
