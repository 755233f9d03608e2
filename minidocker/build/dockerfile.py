"""The Dockerfile's lines: parser directives, comments, continued lines, here-documents; one Line an instruction.

Source  Dockerfile reference, "Format" and "Parser directives"; moby/buildkit frontend/dockerfile/parser.
Rules   - pure: bytes in, lines out. What an instruction's words mean is in `instructions`.
        - a directive stands before anything else, once; an unknown one is a comment. `syntax` is ignored: there is one.
        - a comment or an empty line inside of a continued instruction is passed over.
"""

import json
import re

import msgspec

from minidocker.errors import InvalidArgument

DOCKERFILE_LIMIT_BYTES = 16 << 20
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*\Z")
_DIRECTIVES = ("escape", "syntax", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)(['\"]?)([a-zA-Z0-9_.]+)\3\Z")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document.

    word    as it stands in the instruction (`<<EOF`).
    name    what ends it, and what COPY names the file if nothing else does.
    raw     its lines as they are written.
    expand  variables are put in, since the name is not quoted.
    chomp   leading tabs are cut off (`<<-`).
    """

    word: str
    name: str
    raw: str
    expand: bool = True
    chomp: bool = False

    @property
    def content(self) -> str:
        """Its text."""
        return re.sub(r"(?m)^\t+", "", self.raw) if self.chomp else self.raw


class Line(msgspec.Struct, frozen=True):
    """One instruction as it is written.

    name      in upper case.
    rest      all after the name and the flags.
    flags     in order, each `--name=value` or `--name`.
    original  the whole, continued lines joined.
    number    of its first line in the file, from 1.
    """

    name: str
    rest: str
    flags: tuple[str, ...]
    original: str
    number: int
    heredocs: tuple[Heredoc, ...] = ()


class Dockerfile(msgspec.Struct, frozen=True):
    """The whole file. `warnings` are for the build's output."""

    lines: tuple[Line, ...]
    escape: str = "\\"
    warnings: tuple[str, ...] = ()


class ParseError(InvalidArgument):
    """The Dockerfile is wrong; the text names the line."""

    def __init__(self, number: int, text: object) -> None:
        super().__init__(f"dockerfile parse error line {number}: {text}")


def parse(content: bytes) -> Dockerfile:
    """Read a Dockerfile.

    Raises  ParseError. InvalidArgument: too large, or nothing in it.
    """
    if len(content) > DOCKERFILE_LIMIT_BYTES:
        raise InvalidArgument(f"the Dockerfile is larger than {DOCKERFILE_LIMIT_BYTES} bytes")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    reader = _Reader(text.split("\n"))
    lines = tuple(reader.lines())
    if not lines:
        raise InvalidArgument("failed to parse Dockerfile: file with no instructions")
    warnings = reader.warnings
    if warnings:
        warnings.append("[WARNING]: Empty continuation lines will become errors in a future release.\n")
    return Dockerfile(lines, reader.escape, tuple(warnings))


def lines_of(text: str, escape: str = "\\") -> list[Line]:
    """The instructions of a text that has no parser directives. Raises ParseError."""
    return _Reader(text.split("\n"), escape=escape).lines()


def parse_one(text: str, escape: str = "\\") -> Line:
    """One instruction, such as an ONBUILD trigger. Raises InvalidArgument: none, or several."""
    lines = lines_of(text, escape)
    if len(lines) != 1:
        raise InvalidArgument("onbuild trigger should be a single expression")
    return lines[0]


class _Reader:
    def __init__(self, raw: list[str], escape: str = "") -> None:
        self._raw = [line.removesuffix("\r") for line in raw]
        self._at = 0
        self.warnings: list[str] = []
        self.escape = escape or self._directives()
        escaped = re.escape(self.escape)
        self._continued = re.compile(rf"(?<!{escaped}){escaped}[ \t]*\Z")

    def _directives(self) -> str:
        """The escape character; the directives themselves are comments to all that follows."""
        seen: dict[str, str] = {}
        for number, line in enumerate(self._raw, 1):
            match = _DIRECTIVE.match(line.strip())
            if match is None or match[1].lower() not in _DIRECTIVES:
                break
            name = match[1].lower()
            if name in seen:
                raise ParseError(number, f"only one {name} parser directive can be used")
            seen[name] = match[2]
            if name == "escape" and match[2] not in ("\\", "`"):
                raise ParseError(number, f"invalid escape token '{match[2]}' does not match ` or \\")
        return seen.get("escape", "\\")

    def lines(self) -> list[Line]:
        found = []
        while self._at < len(self._raw):
            text = self._raw[self._at].lstrip()
            self._at += 1
            number = self._at
            if not text.strip() or text.startswith("#"):
                continue
            text = self._joined(text)
            if text.strip():
                found.append(self._line(text.strip(), number))
        return found

    def _joined(self, text: str) -> str:
        """`text` with the lines that go on with it; what stands between them, comments and empty lines, is dropped."""
        parts: list[str] = []
        empty = False
        while (match := self._continued.search(text)) is not None:
            parts.append(text[: match.start()])
            text, skipped = "", False
            while self._at < len(self._raw) and not text:
                more = self._raw[self._at]
                self._at += 1
                if more.strip() and not more.lstrip().startswith("#"):
                    text = more
                skipped = skipped or not more.strip()
            empty = empty or (skipped and bool(text))
        text = "".join(parts) + text
        if empty:
            self.warnings.append(f"[WARNING]: Empty continuation line found in:\n    {text.strip()}\n")
        return text

    def _line(self, text: str, number: int) -> Line:
        name, _, rest = re.sub(r"\s", " ", text, count=1).partition(" ")
        flags, rest = _split_flags(rest.strip())
        upper = name.upper()
        heredocs = self._heredocs(rest, number) if upper in _WITH_HEREDOCS else ()
        return Line(upper, rest, flags, text, number, heredocs)

    def _heredocs(self, rest: str, number: int) -> tuple[Heredoc, ...]:
        found = []
        for word in heredoc_words(rest):
            match = _HEREDOC.match(word)
            assert match is not None
            chomp, name = bool(match[2]), match[4]
            content = ""
            while True:
                if self._at >= len(self._raw):
                    raise ParseError(number, f"unterminated heredoc {name}")
                line = self._raw[self._at]
                self._at += 1
                if (line.lstrip("\t") if chomp else line) == name:
                    break
                content += line + "\n"
            found.append(Heredoc(word, name, content, not match[3], chomp))
        return tuple(found)


def heredoc_words(rest: str) -> list[str]:
    """The words of an instruction that begin a here-document; none in its JSON form."""
    if json_words(rest) is not None:
        return []
    return [word for word in _shell_words(rest) if _HEREDOC.match(word)]


def _shell_words(text: str) -> list[str]:
    """Blank-separated words; what is in quotes belongs to its word."""
    return re.findall(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*"|['"\\])+""", text)


def _split_flags(rest: str) -> tuple[tuple[str, ...], str]:
    """Leading `--name=value` words, and what follows them. `--` alone ends the flags and is dropped."""
    flags: list[str] = []
    while rest.startswith("--"):
        end = _flag_end(rest)
        word, rest = rest[:end], rest[end:].lstrip()
        if word == "--":
            break
        flags.append(word)
    return tuple(flags), rest


def _flag_end(rest: str) -> int:
    """Where the first word ends; quotes and backslashes keep blanks in it."""
    quote, at = "", 0
    while at < len(rest):
        char = rest[at]
        if char == "\\":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            return at
        at += 1
    return len(rest)


def json_words(text: str) -> list[str] | None:
    """The exec form: a JSON list of strings. None: it is not JSON. Raises InvalidArgument: a list of other things.

    What follows the list is passed over, as in Docker: `CMD ["a"] # comment` is the exec form.
    """
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return value
