"""JSON read as a type, from any thread.

Source  msgspec's documentation, "Performance Tips" (reuse decoders).
Rules   - msgspec learns a struct when it is first used, and a second thread that uses it meanwhile reads what is half
          learnt: the process is killed by SIGSEGV. So each type is learnt under one lock, before its first use.
        - whoever reads typed JSON asks here; `msgspec.json.decode(..., type=...)` is used nowhere else.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

Hook = Callable[[type, Any], Any]

_learning = threading.Lock()
_decoders: dict[Any, "msgspec.json.Decoder[Any]"] = {}


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
