"""Command-line options by table: the table is the text that `--help` prints.

Source  pflag, whose rules docker's users know: `--name x`, `--name=x`, `-n x`, `-nx`, `-n=x`, `-it`, `--flag=false`.
Rules   - on the hot path: no import at all.
        - a table line is "-s, --name TYPE  text"; no TYPE means a switch; "(default true)" in the text is its default.
        - a line without text is an old spelling that works and is not shown.
        - TYPE list, map, filter, mount, network and ulimit may be repeated; strings is split at commas too.
"""

REPEATED = frozenset(("list", "map", "filter", "strings", "mount", "network", "ulimit"))
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))

Value = bool | int | str | list[str]


class UsageError(Exception):
    """The command line is wrong: unknown option, missing or malformed value. The text says which."""


class Option:
    """One line of a table."""

    __slots__ = ("default", "kind", "name", "short", "text")

    def __init__(self, line: str) -> None:
        spec, _, text = line.strip().partition("  ")
        words = spec.split()
        self.short = words.pop(0)[1] if words[0].endswith(",") else ""
        self.name = words[0][2:]
        self.kind = words[1] if len(words) > 1 else ""
        self.text = text.strip()
        self.default = not self.kind and self.text.endswith("(default true)")

    @property
    def title(self) -> str:
        """How messages name it: `-m, --memory` or `--name`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Options:
    """The values that were given, by long name."""

    __slots__ = ("_defaults", "_values")

    def __init__(self, defaults: dict[str, Value], values: dict[str, Value]) -> None:
        self._defaults = defaults
        self._values = values

    def given(self, name: str) -> bool:
        """True if the option is on the command line."""
        return name in self._values

    def flag(self, name: str) -> bool:
        """A switch, or its default."""
        return bool(self._values.get(name, self._defaults.get(name, False)))

    def text(self, name: str, default: str = "") -> str:
        """A string option (the last one wins)."""
        return str(self._values.get(name, default))

    def number(self, name: str, default: int = 0) -> int:
        """An int, bytes, duration (nanoseconds) or decimal (billionths) option."""
        value = self._values.get(name, default)
        assert isinstance(value, int)
        return value

    def items(self, name: str) -> list[str]:
        """A repeated option's values, in order."""
        value = self._values.get(name)
        return value if isinstance(value, list) else []


def table(text: str) -> list[Option]:
    """The options of a table."""
    return [Option(line) for line in text.splitlines() if line.strip()]


def parse(text: str, arguments: list[str], *, interspersed: bool = True) -> tuple[Options, list[str]]:
    """Options and operands of a command line, by the table `text`.

    interspersed  False: the first operand ends the options (run, exec).
    Raises        UsageError.
    """
    options = table(text)
    longs = {option.name: option for option in options}
    shorts = {option.short: option for option in options if option.short}
    values: dict[str, Value] = {}
    operands: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word == "--":
            operands += arguments[position:]
            break
        if len(word) < 2 or word[0] != "-":
            operands.append(word)
            if not interspersed:
                operands += arguments[position:]
                break
        elif word[1] == "-":
            position = _long(word, longs, values, arguments, position)
        else:
            position = _shorts(word, shorts, values, arguments, position)
    return Options({option.name: True for option in options if option.default}, values), operands


def _long(word: str, longs: dict[str, Option], values: dict[str, Value], arguments: list[str], position: int) -> int:
    name, equals, value = word[2:].partition("=")
    option = longs.get(name)
    if name == "help":
        raise UsageError("help")
    if option is None:
        raise UsageError(f"unknown flag: --{name}")
    if not equals:
        if not option.kind:
            value = "true"
        elif position < len(arguments):
            value = arguments[position]
            position += 1
        else:
            raise UsageError(f"flag needs an argument: --{name}")
    _set(option, value, values)
    return position


def _shorts(word: str, shorts: dict[str, Option], values: dict[str, Value], arguments: list[str],
            position: int) -> int:
    index = 1
    while index < len(word):
        option = shorts.get(word[index])
        if option is None:
            raise UsageError("help" if word == "-h" else f"unknown shorthand flag: {word[index]!r} in {word}")
        index += 1
        rest = word[index:]
        if rest.startswith("="):
            _set(option, rest[1:], values)
            return position
        if not option.kind:
            _set(option, "true", values)
            continue
        if not rest:
            if position >= len(arguments):
                raise UsageError(f"flag needs an argument: {option.short!r} in {word}")
            rest = arguments[position]
            position += 1
        _set(option, rest, values)
        return position
    return position


def _set(option: Option, text: str, values: dict[str, Value]) -> None:
    kind = option.kind
    if kind in REPEATED:
        held = values.setdefault(option.name, [])
        assert isinstance(held, list)
        if kind == "filter" and "=" not in text:
            raise UsageError(f'invalid argument "{text}" for "{option.title}" flag: '
                             "bad format of filter (expected name=value)")
        held += text.split(",") if kind == "strings" else [text]
    elif not kind:
        if text not in _TRUE and text not in _FALSE:
            raise UsageError(f'invalid argument "{text}" for "{option.title}" flag: '
                             f'strconv.ParseBool: parsing "{text}": invalid syntax')
        values[option.name] = text in _TRUE
    elif kind == "string":
        values[option.name] = text
    else:
        from minidocker.cli.values import READERS

        try:
            values[option.name] = READERS[kind](text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "{option.title}" flag: {error}') from None
