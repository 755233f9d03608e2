"""Functions of the template language, and how Go prints values.

Source  Go's text/template ("Functions") and fmt; docker's templates package.
"""

from collections.abc import Callable

from minidocker.client.documents import dumps

_PAD_LIMIT = 10_000


class TemplateError(Exception):
    """The template, or what it asks for, is wrong; in Go's words."""


def go_text(value: object) -> str:
    """`value` as Go's fmt prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<no value>"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_inner(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_inner(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    plain = getattr(value, "plain", None)
    return go_text(plain()) if plain is not None else str(value)


def _inner(value: object) -> str:
    return "<nil>" if value is None else go_text(value)


def truth(value: object) -> bool:
    """False for what is empty."""
    return bool(value) or hasattr(value, "plain")


def to_json(value: object) -> str:
    """`value` as Go writes JSON: keys of maps in order, `<`, `>` and `&` escaped."""
    plain = getattr(value, "plain", None)
    text = dumps(plain() if plain is not None else value)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    # Go leaves other characters as they are.
    return _unescape(text)


def _unescape(text: str) -> str:
    if "\\u" not in text:
        return text
    import re

    def decode(match: re.Match[str]) -> str:
        if len(match.group(1)) % 2 == 0:
            return match.group()
        code = int(match.group(2), 16)
        keep = code < 0x80 or 0xD800 <= code < 0xE000 or code in (0x2028, 0x2029)
        return match.group() if keep else match.group(1)[:-1] + chr(code)

    return re.sub(r"(\\+)u([0-9a-f]{4})", decode, text)


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, list):
            if not isinstance(key, int):
                raise TemplateError(f"cannot index slice/array with {go_text(key)}")
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}")
            value = value[key]
        elif value is None:
            raise TemplateError("index of untyped nil")
        else:
            raise TemplateError("can't index item of this type")
    return value


def _slice(value: str | list[object], start: int = 0, end: int | None = None) -> object:
    return value[start:end]


def _format(form: str, *values: object) -> str:
    """printf: %s %v %d %q %t %x %f with flags and widths."""
    import re

    left = list(values)

    def convert(match: re.Match[str]) -> str:
        flags, verb = match.groups()
        if any(len(digits) > 4 for digits in flags.split(".")):
            raise TemplateError(f"bad width or precision in {match.group()}")
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        value = left.pop(0)
        if verb in "vst":
            return f"%{flags}s" % go_text(value)
        if verb == "q":
            return f"%{flags}s" % dumps(value)
        return f"%{flags}{verb}" % value

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([%a-zA-Z])", convert, form)


def _print(*values: object) -> str:
    text = ""
    for index, value in enumerate(values):
        both = index and not isinstance(value, str) and not isinstance(values[index - 1], str)
        text += (" " if both else "") + go_text(value)
    return text


def _pad(text: str, before: int, after: int) -> str:
    if max(before, after) > _PAD_LIMIT:
        raise TemplateError(f"padding is longer than {_PAD_LIMIT}")
    return " " * before + text + " " * after if text else text


def _and(*values: object) -> object:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: object) -> object:
    return next((value for value in values if truth(value)), values[-1])


def _length(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, (str, list, dict)):
        raise TemplateError("len of a value that has none")
    return len(value.encode()) if isinstance(value, str) else len(value)


FUNCTIONS: dict[str, Callable[..., object]] = {
    "json": to_json,
    "index": _index,
    "slice": _slice,
    "len": _length,
    "printf": _format,
    "print": _print,
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "join": lambda values, separator: separator.join(map(go_text, values or [])),
    "split": lambda text, separator: text.split(separator),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": lambda text: " ".join(word[:1].upper() + word[1:] for word in text.split(" ")),
    "pad": _pad,
    "truncate": lambda text, length: text[:length],
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
}
