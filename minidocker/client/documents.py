"""JSON in and out, through the interpreter's own C scanner and encoder.

Source  RFC 8259; CPython Lib/json (the module that these two C objects serve).
Rules   - on the command line's hot path: importing `json` costs 6 ms, because it imports `re`.
        - output is ASCII and compact; members keep their order.
"""

from _json import encode_basestring_ascii, make_encoder, make_scanner, scanstring

_BLANKS = " \t\r\n"


class _Settings:
    """What the C scanner wants to be told: strict strings, plain dicts, Python's own numbers."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_scan = make_scanner(_Settings)  # type: ignore[arg-type]
_encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
_encode_sorted = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", True, False, True)


def loads(text: bytes | str) -> object:
    """The value of one JSON document. Raises ValueError if `text` is not exactly one."""
    value, end = scan(text.decode() if isinstance(text, bytes) else text, 0)
    if end < 0:
        raise ValueError("incomplete JSON document")
    return value


def scan(text: str, start: int) -> tuple[object, int]:
    """The first JSON value at or after `start`, and the index after it; the index is -1 if it is not complete yet."""
    length = len(text)
    while start < length and text[start] in _BLANKS:
        start += 1
    if start == length:
        return None, -1
    try:
        return _scan(text, start)
    except StopIteration:
        return None, -1
    except ValueError:
        # An unfinished string or object raises too: complete text that is wrong stays "incomplete" for ever,
        # and is reported as such at the end of the stream.
        return None, -1


def dumps(value: object, *, sort_keys: bool = False) -> str:
    """`value` (dicts, lists, strings, numbers, bools, None) as compact JSON. Raises TypeError for anything else."""
    return "".join((_encode_sorted if sort_keys else _encode)(value, 0))


def indent(text: str, unit: str = "    ") -> str:
    """JSON `text` laid out over lines; strings and numbers stay as they were written (as Go's json.Indent)."""
    pieces: list[str] = []
    depth = 0
    index = 0
    length = len(text)
    while index < length:
        char = text[index]
        if char == '"':
            end = scanstring(text, index + 1, False)[1]
            pieces.append(text[index:end])
            index = end
            continue
        index += 1
        if char in _BLANKS:
            continue
        if char in "{[":
            rest = index
            while rest < length and text[rest] in _BLANKS:
                rest += 1
            if rest < length and text[rest] in "}]":
                pieces.append(char + text[rest])
                index = rest + 1
                continue
            depth += 1
            pieces.append(char + "\n" + unit * depth)
        elif char in "}]":
            depth -= 1
            pieces.append("\n" + unit * depth + char)
        elif char == ",":
            pieces.append(",\n" + unit * depth)
        else:
            pieces.append(": " if char == ":" else char)
    return "".join(pieces)
