"""Plain values as text: how arguments go to a learner's process, and how results come back.

Source  RFC 8259 (JSON).
Rules   - a result comes from a process that nobody trusts, so it is read as JSON and never unpickled.
        - JSON knows no bytes, tuples, sets, nor keys that are not strings: these travel as {"kind": content}.
        - a member of an enumeration (CloneFlag.NEWUTS, signal.SIGTERM) may go in as an argument: the learner's process
          makes the member again. It comes out as the number or the text that it is.
"""

import base64
import enum
import importlib
import json
from typing import Any

PLAIN = "None, bool, int, float, str, bytes, list, tuple, dict or set"
DEEPEST = 100


class NotPlain(TypeError):
    """A value, or a part of it, is of a type that cannot travel."""


def encode(value: Any, *, members: bool = False) -> str:
    """The text of a plain value.

    members  True: members of enumerations keep their type; `decode` must be told so, too.
    Raises   NotPlain: the value or a part of it is of another type, or is nested too deeply.
    """
    return json.dumps(_tagged(value, members, 0))


def decode(text: str, *, members: bool = False) -> Any:
    """The value of a text that `encode` made; any other text raises ValueError."""
    try:
        return _untagged(json.loads(text), members)
    except (TypeError, KeyError, AttributeError, RecursionError, ImportError) as error:
        raise ValueError(f"this is not the text of a plain value: {error}") from None


def _tagged(value: Any, members: bool, depth: int) -> Any:
    if depth > DEEPEST:
        raise NotPlain(f"a value is nested more than {DEEPEST} deep")
    if isinstance(value, enum.Enum) and members:
        return {"member": [type(value).__module__, type(value).__qualname__, _tagged(value.value, members, depth + 1)]}
    if value is None or isinstance(value, bool):
        return value
    for scalar in (int, float, str):  # a subclass, such as IntFlag, comes out as what it is based on
        if isinstance(value, scalar):
            return scalar.__str__(value) if scalar is str else scalar(value)
    if isinstance(value, bytes | bytearray):
        return {"bytes": base64.b64encode(value).decode()}
    if type(value) is dict:
        return {"dict": [[_tagged(part, members, depth + 1) for part in pair] for pair in value.items()]}
    for tag, kinds in (("list", list), ("tuple", tuple), ("set", set | frozenset)):
        if isinstance(value, kinds):
            return {tag: [_tagged(item, members, depth + 1) for item in value]}
    raise NotPlain(f"{type(value).__name__} is not a plain value, which is {PLAIN}")


def _untagged(tree: Any, members: bool) -> Any:
    if not isinstance(tree, dict):
        if isinstance(tree, list):
            raise TypeError("a list without its kind")
        return tree
    ((tag, content),) = tree.items()
    if tag == "bytes":
        return base64.b64decode(content)
    if tag == "dict":
        return {_untagged(key, members): _untagged(item, members) for key, item in content}
    if tag == "member" and members:
        module, name, value = content
        return getattr(importlib.import_module(module), name)(_untagged(value, members))
    items = [_untagged(item, members) for item in content]
    return {"list": list, "tuple": tuple, "set": set}[tag](items)
