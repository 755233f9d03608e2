"""Words of a Dockerfile: variables put in, quotes and escapes taken off.

Source  Dockerfile reference, "Environment replacement"; moby/buildkit frontend/dockerfile/shell (the lexer's corners).
Rules   - single quotes keep everything; in double quotes only `$` and the escape character have a meaning.
        - `split` cuts where the instruction's author put blanks; `Lexer.words` also where a variable brought them in.
        - pure: the variables are a mapping that the caller gives.
"""

from collections.abc import Mapping

from minidocker.build.trimming import replaced, without_prefix, without_suffix
from minidocker.errors import InvalidArgument

_SPECIAL_PARAMETERS = "@*#?-$!0"
_OPERATORS = "+-?"
_CUTTING = "#%/"


def split(text: str, escape: str = "\\") -> list[str]:
    """Words as they are written, quotes and escapes still on.

    >>> split('a="b c" d\\\\ e')
    ['a="b c"', 'd\\\\ e']
    """
    words: list[str] = []
    word: str | None = None
    quote, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if word:
                words.append(word)
            word = None
            continue
        word = word or ""
        if char == escape and quote != "'":
            if at == len(text):
                break  # an escape at the very end is dropped
            word += char + text[at]
            at += 1
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        word += char
    return [*words, word] if word else words


class Lexer:
    """Expands words. escape: the Dockerfile's escape character."""

    def __init__(self, escape: str = "\\") -> None:
        self._escape = escape

    def word(self, text: str, variables: Mapping[str, str]) -> str:
        """`text` as one word.

        Raises  InvalidArgument: an open quote or brace, an operator that does not exist, `${x?why}` of an unset x.

        >>> Lexer().word('"$A"-${B:-none}', {"A": "x"})
        'x-none'
        """
        return self._walk(text, variables).text

    def words(self, text: str, variables: Mapping[str, str]) -> list[str]:
        """`text` as words: blanks that no quote keeps part them, those of variables too.

        >>> Lexer().words('$A "c d"', {"A": "a b"})
        ['a', 'b', 'c d']
        """
        return self._walk(text, variables).words()

    def text(self, text: str, variables: Mapping[str, str]) -> str:
        """`text`, of a here-document, with variables; quotes are like other characters, escapes stay."""
        return self._walk(text, variables, plain=True).text

    def _walk(self, text: str, variables: Mapping[str, str], *, plain: bool = False) -> "_Walk":
        walk = _Walk(text, variables, self._escape, plain=plain)
        try:
            walk.run("")
        except _Malformed as error:
            raise InvalidArgument(f"failed to process {go_quoted(text)}: {error}") from None
        return walk


class _Malformed(Exception):
    pass


class _Walk:
    """One pass over a text; `text` is the result so far."""

    def __init__(
        self,
        source: str,
        variables: Mapping[str, str],
        escape: str,
        at: int = 0,
        *,
        plain: bool = False,
        keep_escapes: bool = False,
    ) -> None:
        self._source, self._variables, self._escape = source, variables, escape
        self.at = at
        self._plain = plain  # quotes mean nothing, escapes are kept
        self._kept = escape if plain or keep_escapes else ""
        self.text = ""
        self._words: list[str] = []
        self._word: str | None = None

    def words(self) -> list[str]:
        return [*self._words, self._word] if self._word is not None else self._words

    def _peek(self) -> str:
        return self._source[self.at : self.at + 1]

    def _next(self) -> str:
        char = self._peek()
        self.at += 1
        return char

    def _add(self, text: str, *, kept: bool) -> None:
        """Add to the result. kept: blanks in it part no words."""
        self.text += text
        if kept:
            self._word = (self._word or "") + text
            return
        for char in text:
            if not char.isspace():
                self._word = (self._word or "") + char
            elif self._word is not None:
                self._words.append(self._word)
                self._word = None

    def run(self, stop: str) -> None:
        """To the end, or to the character `stop`, which is passed."""
        while char := self._peek():
            if char == stop:
                self.at += 1
                return
            if char == "'" and not self._plain:
                self._add(self._single_quoted(), kept=True)
            elif char == '"' and not self._plain:
                self._add(self._double_quoted(), kept=True)
            elif char == "$":
                self._add(self._variable(), kept=False)
            else:
                self.at += 1
                if char == self._escape:
                    self._add(self._kept + self._next(), kept=True)
                else:
                    self._add(char, kept=False)
        if stop:
            raise _Malformed(f"syntax error: missing '{stop}'")

    def _single_quoted(self) -> str:
        end = self._source.find("'", self.at + 1)
        if end < 0:
            raise _Malformed("unexpected end of statement while looking for matching single-quote")
        inside = self._source[self.at + 1 : end]
        self.at = end + 1
        return inside

    def _double_quoted(self) -> str:
        self.at += 1
        inside = ""
        while char := self._peek():
            if char == "$":
                inside += self._variable()
                continue
            self.at += 1
            if char == '"':
                return inside
            if char == self._escape:
                if not self._peek():
                    continue
                if self._peek() in ('"', "$", self._escape):
                    char = self._next()
            inside += char
        raise _Malformed("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        self.at += 1
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self.at += 1
        if not self._peek():
            raise _Malformed("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _Malformed("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            return self._variables.get(name, "")
        colon = operator == ":"
        if colon:
            operator = self._next()
        if operator and operator in _CUTTING and not colon:
            return self._cut(name, operator)
        if not operator or operator not in _OPERATORS:
            if not colon:
                raise _Malformed("missing ':' in substitution")
            raise _Malformed(f"unsupported modifier ({operator}) in substitution")
        return self._substituted(name, operator, colon=colon)

    def _substituted(self, name: str, operator: str, *, colon: bool) -> str:
        """The rest of `${name:-other}`. colon: an empty value counts as none."""
        other = self._until("}")
        value = self._variables.get(name)
        missing = not value if colon else value is None
        if operator == "+":
            return "" if missing else other
        if operator == "?" and missing:
            raise _Malformed(f"{name}: {other or 'not allowed to be ' + ('empty' if value == '' else 'unset')}")
        return other if missing else value or ""

    def _cut(self, name: str, operator: str) -> str:
        """The rest of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`; a doubled sign is greedy."""
        doubled = self._peek() == operator
        self.at += doubled
        pattern = self._until("/" if operator == "/" else "}", keep_escapes=True)
        text = self._until("}") if operator == "/" else ""
        value = self._variables.get(name, "")
        if operator == "/":
            return replaced(value, pattern, text, all=doubled)
        cut = without_prefix if operator == "#" else without_suffix
        return cut(value, pattern, longest=doubled)

    def _until(self, stop: str, *, keep_escapes: bool = False) -> str:
        """A part of an operator; what ends it is passed."""
        inner = _Walk(self._source, self._variables, self._escape, self.at, keep_escapes=keep_escapes)
        inner.run(stop)
        self.at = inner.at
        return inner.text

    def _name(self) -> str:
        """Letters, digits and `_`; digits alone; or one of the shell's special parameters."""
        start = self.at
        first = self._peek()
        if first.isdigit():
            while self._peek().isdigit():
                self.at += 1
        elif first and first in _SPECIAL_PARAMETERS:
            self.at += 1
        else:
            while (char := self._peek()) and (char.isalnum() or char == "_"):
                self.at += 1
        return self._source[start : self.at]


_GO_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
               "\\": "\\\\", '"': '\\"'}  # fmt: skip


def go_quoted(text: str) -> str:
    """`text` as Go's %q writes it.

    >>> print(go_quoted('a "b"'))
    "a \\"b\\""
    """
    quoted = ""
    for char in text:
        if char in _GO_ESCAPES:
            quoted += _GO_ESCAPES[char]
        elif char.isprintable():
            quoted += char
        elif ord(char) < 0x80:
            quoted += f"\\x{ord(char):02x}"
        else:
            quoted += f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
    return f'"{quoted}"'


def go_quoted_list(words: list[str]) -> str:
    """`words` as Go's %q writes a slice of them: `["a" "b"]`."""
    return "[" + " ".join(map(go_quoted, words)) + "]"
