"""Words of Dockerfile instructions: split at blanks, quotes taken off, variables put in.

Source  Dockerfile reference, "Parser directives" and "Environment replacement"; moby's shell lexer for the rest.
Rules   - splitting keeps quotes and escapes, so that `expand` still knows what was quoted.
        - single quotes keep everything, double quotes all but $ and \\.
"""

import re
from collections.abc import Mapping

from minidocker.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_SPECIAL_IN_DOUBLE_QUOTES = '"$\\'


def split(text: str) -> list[str]:
    """Words as they are written.

    >>> split('a="b c" d\\\\ e')
    ['a="b c"', 'd\\\\ e']
    """
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word, at = "", at + 1
            continue
        word += char
        at += 1
    return [*words, word] if word else words


def expand(word: str, env: Mapping[str, str]) -> str:
    """`word` without its quotes, with variables from `env`.

    Raises  InvalidArgument: an open quote, an unknown kind of substitution.

    >>> expand('"$A"-${B:-none}', {"A": "x"})
    'x-none'
    """
    result, at = "", 0
    while at < len(word):
        char = word[at]
        if char == "'":
            end = word.find("'", at + 1)
            if end < 0:
                raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
            result, at = result + word[at + 1 : end], end + 1
        elif char == '"':
            inside, at = _double_quoted(word, at + 1, env)
            result += inside
        elif char == "\\":
            result, at = result + word[at + 1 : at + 2], at + 2
        elif char == "$":
            value, at = _variable(word, at + 1, env)
            result += value
        else:
            result, at = result + char, at + 1
    return result


def _double_quoted(word: str, at: int, env: Mapping[str, str]) -> tuple[str, int]:
    result = ""
    while at < len(word):
        char = word[at]
        if char == '"':
            return result, at + 1
        if char == "$":
            value, at = _variable(word, at + 1, env)
            result += value
        elif char == "\\" and word[at + 1 : at + 2] and word[at + 1] in _SPECIAL_IN_DOUBLE_QUOTES:
            result, at = result + word[at + 1], at + 2
        else:
            result, at = result + char, at + 1
    raise InvalidArgument("unexpected end of statement while looking for matching double-quote")


def _variable(word: str, at: int, env: Mapping[str, str]) -> tuple[str, int]:
    """What stands for the variable whose `$` is before `at`, and where the text goes on."""
    if word[at : at + 1] == "{":
        return _braced(word, at + 1, env)
    name = _NAME.match(word, at)
    if name is None:
        return "$", at
    return env.get(name.group(), ""), name.end()


def _braced(word: str, at: int, env: Mapping[str, str]) -> tuple[str, int]:
    name = _NAME.match(word, at)
    if name is None:
        raise InvalidArgument("bad substitution")
    value, at = env.get(name.group()), name.end()
    if word[at : at + 1] == "}":
        return value or "", at + 1
    colon = word[at : at + 1] == ":"
    at += colon
    operator, end = word[at : at + 1], _closing(word, at)
    if not operator or operator not in "+-?":
        raise InvalidArgument(f"unsupported modifier ({operator}) in substitution")
    other = expand(word[at + 1 : end], env)
    unset = not value if colon else value is None
    if operator == "?" and unset:
        raise InvalidArgument(f"{name.group()}: {other or 'not allowed to be unset'}")
    if operator == "+":
        return ("" if unset else other), end + 1
    return (other if unset else value or ""), end + 1


def _closing(word: str, at: int) -> int:
    """Where the brace that is open at `at` closes."""
    depth = 1
    for index in range(at, len(word)):
        depth += {"{": 1, "}": -1}.get(word[index], 0)
        if not depth:
            return index
    raise InvalidArgument("syntax error: missing '}'")
