"""File patterns as Docker has them: Go's filepath.Match for COPY and ADD, and the lists of .dockerignore.

Source  Go's path/filepath, Match and Clean; moby/patternmatcher and its ignorefile (`**`, `!`, a parent's match).
Rules   - pure, and imports nothing: client and daemon both use it; anyone may import it, as `errors`.
        - all places of a pattern that a text can have reached are carried through the text together, so no pattern is
          slow, however many stars it has.
        - in a .dockerignore `*` and `?` stop at a slash, `**` does not, and a match of a directory is one of all in it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Takes = Callable[[str], bool]
    Token = tuple[str, Takes]

# A token takes one character, or any number of them; SKIP takes nothing and may also pass over the two tokens after it.
_ONE, _MANY, _SKIP = "one", "many", "skip"


class BadPattern(ValueError):
    """The pattern is malformed: an open `[`, an empty range, a lone backslash at its end."""


def _no_slash(char: str) -> bool:
    return char != "/"


def _any(_: str) -> bool:
    return True


def _is(wanted: str) -> "Takes":
    return lambda char: char == wanted


# `**` between slashes: nothing, or anything up to a slash.
_DIRECTORIES: "list[Token]" = [(_SKIP, _any), (_MANY, _any), (_ONE, _is("/"))]


def _matches(tokens: "list[Token]", text: str, *, with_parents: bool = False) -> bool:
    """Whether the tokens take all of `text`, or (`with_parents`) the path of a directory above it."""
    places = _spread({0}, tokens)
    for char in text:
        if with_parents and char == "/" and len(tokens) in places:
            return True
        reached = set()
        for place in places:
            if place < len(tokens):
                kind, takes = tokens[place]
                if kind != _SKIP and takes(char):
                    reached.add(place if kind == _MANY else place + 1)
        places = _spread(reached, tokens)
        if not places:
            return False
    return len(tokens) in places


def _spread(places: "set[int]", tokens: "list[Token]") -> "set[int]":
    """The places, and all that are reached from them without taking anything."""
    waiting, found = list(places), set()
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        kind = tokens[place][0] if place < len(tokens) else _ONE
        if kind != _ONE:
            waiting.append(place + 1)
        if kind == _SKIP:
            waiting.append(place + len(_DIRECTORIES))
    return found


def _character(pattern: str, at: int) -> tuple[str, int]:
    """One character of a class, an escaped one too, and where the next thing is."""
    if at < len(pattern) and pattern[at] == "\\":
        at += 1
    elif at >= len(pattern) or pattern[at] in "-]":
        raise BadPattern(f"syntax error in pattern: {pattern}")
    if at + 1 >= len(pattern):  # the class is not closed
        raise BadPattern(f"syntax error in pattern: {pattern}")
    return pattern[at], at + 1


def _class(pattern: str, at: int) -> "tuple[Takes, int]":
    """The class whose `[` is before `at`, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while not ranges or pattern[at : at + 1] != "]":
        low, at = _character(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _character(pattern, at + 1)
        ranges.append((low, high))

    def takes(char: str) -> bool:
        return any(low <= char <= high for low, high in ranges) != negated

    return takes, at + 1


def _compile(pattern: str) -> "list[Token]":
    """A pattern of filepath.Match."""
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            tokens.append((_MANY, _no_slash))
        elif char == "?":
            tokens.append((_ONE, _no_slash))
        elif char == "[":
            takes, at = _class(pattern, at)
            tokens.append((_ONE, takes))
        elif char == "\\":
            if at >= len(pattern):
                raise BadPattern(f"syntax error in pattern: {pattern}")
            tokens.append((_ONE, _is(pattern[at])))
            at += 1
        else:
            tokens.append((_ONE, _is(char)))
    return tokens


# What a backslash and a letter mean to a regular expression of Go; other letters and digits are errors there.
_CONTROLS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_KINDS: "dict[str, Takes]" = {
    "d": lambda char: char.isascii() and char.isdigit(),
    "s": lambda char: char in "\t\n\f\r ",
    "w": lambda char: char == "_" or (char.isascii() and char.isalnum()),
}


def _regular(pattern: str) -> "list[Token]":
    """A .dockerignore's pattern: Docker makes a regular expression of it, step by step, and so the same is read here.

    That is why `[*]` is no star in a class: the star is replaced first, and the class ends before it.
    """
    at, text = 0, ""
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            text += "(.*/)?" if at < len(pattern) else ".*"
        elif char in "*?":
            text += "[^/]" + char.replace("?", "")
        elif char in ".+()|{}$":
            text += "\\" + char
        elif char == "\\":
            text += char + (pattern[at : at + 1] or char)
            at += 1
        else:
            text += char
    return _of_regular(text, pattern)


def _of_regular(text: str, pattern: str) -> "list[Token]":
    """The expression's tokens: of all that one can hold, only what `_regular` writes."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text.startswith("(.*/)?", at):
            tokens += _DIRECTORIES
            at += len("(.*/)?")
            continue
        char = text[at]
        at += 1
        if char == "*":
            if not tokens:
                raise BadPattern(f"syntax error in pattern: {pattern}")
            tokens[-1] = (_MANY, tokens[-1][1])
        elif char == "[":
            takes, at = _regular_class(text, at, pattern)
            tokens.append((_ONE, takes))
        elif char == "\\":
            tokens.append((_ONE, _escaped(text[at], pattern)))
            at += 1
        elif char == "^":
            tokens.append((_ONE, lambda _: False))  # the text's beginning, which is not here
        else:
            tokens.append((_ONE, _any if char == "." else _is(char)))
    return tokens


def _escaped(char: str, pattern: str) -> "Takes":
    if char in _CONTROLS:
        return _is(_CONTROLS[char])
    if char.lower() in _KINDS:
        kind, wanted = _KINDS[char.lower()], char.islower()
        return lambda found: kind(found) == wanted
    if char.isalnum() and char.isascii():
        raise BadPattern(f"syntax error in pattern: {pattern}")
    return _is(char)


def _regular_class(text: str, at: int, pattern: str) -> "tuple[Takes, int]":
    negated = text[at : at + 1] == "^"
    at += negated
    parts: list[Takes] = []
    while not parts or text[at : at + 1] != "]":
        first, at = _regular_character(text, at, pattern)
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("", "]"):
            last, at = _regular_character(text, at + 1, pattern)
            parts.append(lambda char, low=first, high=last: low <= char <= high)  # type: ignore[misc]
        else:
            parts.append(_is(first))
    return (lambda char: any(part(char) for part in parts) != negated), at + 1


def _regular_character(text: str, at: int, pattern: str) -> tuple[str, int]:
    if text[at : at + 1] == "\\":
        at += 1
        if text[at : at + 1] in _CONTROLS:
            return _CONTROLS[text[at]], at + 1
    if at >= len(text):
        raise BadPattern(f"syntax error in pattern: {pattern}")
    return text[at], at + 1


def has_wildcard(path: str) -> bool:
    """Whether COPY and ADD take a source for a pattern: it has `*`, `?` or `[`, not behind a backslash."""
    at = 0
    while at < len(path):
        if path[at] == "\\":
            at += 1
        elif path[at] in "*?[":
            return True
        at += 1
    return False


class Glob:
    """A pattern of Go's filepath.Match. Raises BadPattern."""

    def __init__(self, pattern: str) -> None:
        self._tokens = _compile(pattern)

    def matches(self, path: str) -> bool:
        """Whether all of `path` fits: `*` and `?` never take a slash."""
        return _matches(self._tokens, path)


def clean(path: str) -> str:
    """Go's filepath.Clean: no `.`, no double slash, `..` worked out as far as it goes; "." for nothing."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and (not rooted or parts):
            if parts and parts[-1] != "..":
                parts.pop()
            elif not rooted:
                parts.append(part)
        elif part not in ("", ".", ".."):
            parts.append(part)
    return ("/" if rooted else "") + "/".join(parts) or ("/" if rooted else ".")


class _Ignored:
    """One line: its pattern, and whether it takes back (`!`) what others ignored."""

    def __init__(self, text: str) -> None:
        self.exception = text.startswith("!")
        self.pattern = text.removeprefix("!")
        Glob(self.pattern)  # the syntax is filepath.Match's
        plain = not any(char in "*?[]\\" for char in self.pattern[2:])
        # As the original: two stars in front of a plain text are "ends with", whatever stands before.
        self._suffix = self.pattern[2:] if self.pattern.startswith("**") and plain else None
        self._is_plain = plain and not any(char in "*?[]\\" for char in self.pattern[:2])
        self._tokens = _regular(self.pattern)

    def matches(self, path: str) -> bool:
        """Whether it fits the path or a directory above it."""
        if self._is_plain:
            return path == self.pattern or path.startswith(f"{self.pattern}/")
        if self._suffix is not None:
            # Each directory above ends in front of a slash.
            return self._ends(path) or any(self._ends(path[:at]) for at, char in enumerate(path) if char == "/")
        return _matches(self._tokens, path, with_parents=True)

    def _ends(self, path: str) -> bool:
        suffix = self._suffix or ""
        return path.endswith(suffix) or (suffix[:1] == "/" and path == suffix[1:])


class IgnoreList:
    """The patterns of a .dockerignore, in order: the last one that matches decides.

    patterns  as `read_ignore_file` gives them, or of one's own.
    Raises    BadPattern.
    """

    def __init__(self, patterns: "Iterable[str]") -> None:
        self._lines: list[_Ignored] = []
        for text in patterns:
            stripped = text.strip()
            if not stripped:
                continue
            if stripped == "!":
                raise BadPattern('illegal exclusion pattern: "!"')
            self._lines.append(_Ignored(clean(stripped)))

    def text(self) -> str:
        """The patterns as a .dockerignore's lines."""
        return "".join(f"{'!' if line.exception else ''}{line.pattern}\n" for line in self._lines)

    def ignores(self, path: str) -> bool:
        """Whether `path` (relative, no leading slash), or a directory that it is in, is ignored."""
        ignored = False
        for line in self._lines:
            if line.exception == ignored and line.matches(path):
                ignored = not line.exception
        return ignored

    def may_hold_exceptions(self, directory: str) -> bool:
        """Whether an ignored directory must be looked into: a `!` pattern begins with its name."""
        return any(line.exception and f"{line.pattern}/".startswith(f"{directory}/") for line in self._lines)


def read_ignore_file(content: bytes) -> list[str]:
    """The patterns of a .dockerignore: comments and empty lines left out, absolute paths made relative.

    >>> read_ignore_file(b"# no\\n/a/../b/ \\n! *.md\\n")
    ['b', '!*.md']
    """
    found = []
    for line in content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").splitlines():
        text = line.strip()
        if line.startswith("#") or not text:
            continue
        exception = text.startswith("!")
        if exception:
            text = text[1:].strip()
        if text:
            text = clean(text)
            if len(text) > 1 and text.startswith("/"):
                text = text[1:]
        found.append("!" + text if exception else text)
    return found
