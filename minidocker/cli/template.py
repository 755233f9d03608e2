"""The part of Go's template language that docker's --format examples use.

Source  Go's text/template; docker's extra functions (json, join, split, title, upper, lower, pad, truncate, println).
Rules   - values are what JSON gives (dict, list, str, int, float, bool, None) and Records.
        - a missing member is an error that names it, as docker's is; `if` and `and` take emptiness for false.
"""

from collections.abc import Callable, Iterator, Mapping

from minidocker.cli.template_functions import FUNCTIONS, TemplateError, go_text, truth
from minidocker.cli.template_syntax import Action, Block, Node, Text, tree

__all__ = ["Record", "Template", "TemplateError"]


class Record:
    """An object with members that are computed when they are asked for, and methods that take one word."""

    def __init__(self, members: Mapping[str, Callable[[], object]], methods: Mapping[str, Callable[[str], str]],
                 kind: str = "Context") -> None:
        self.kind = kind
        self.members = members
        self.methods = methods

    def plain(self) -> dict[str, object]:
        """All members, for `json`."""
        return {name: self.members[name]() for name in sorted(self.members)}


Scope = dict[str, object]
RANGE_LIMIT = 1_000_000


class Template:
    """A parsed template. Raises TemplateError if the text is not one."""

    def __init__(self, source: str, name: str = "") -> None:
        self._name = name
        self._nodes = tree(source, name)

    def render(self, value: object) -> str:
        """The text for `value`. Raises TemplateError."""
        try:
            return "".join(self._nodes_text(self._nodes, value, {"$": value}))
        except RecursionError:
            raise TemplateError(f"template: {self._name}:1: nested too deeply") from None

    def _nodes_text(self, nodes: list[Node], dot: object, scope: Scope) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, Text):
                yield node.text
            elif isinstance(node, Block):
                yield from self._block(node, dot, scope)
            else:
                value, shown = self._action(node, dot, scope)
                if shown:
                    yield go_text(value)

    def _action(self, action: Action, dot: object, scope: Scope) -> tuple[object, bool]:
        """The value of an action, and whether it is printed (an assignment is not)."""
        names, words = action.targets()
        value = self._pipeline(action, words, dot, scope)
        for name in names:
            scope[name] = value
        return value, not names

    def _block(self, block: Block, dot: object, scope: Scope) -> Iterator[str]:
        if block.keyword == "range":
            yield from self._range(block, dot, scope)
            return
        inner = dict(scope)
        value, _ = self._action(block.head, dot, inner)
        if not truth(value):
            yield from self._nodes_text(block.otherwise, dot, inner)
        else:
            yield from self._nodes_text(block.body, value if block.keyword == "with" else dot, inner)

    def _range(self, block: Block, dot: object, scope: Scope) -> Iterator[str]:
        names, words = block.head.targets()
        value = self._pipeline(block.head, words, dot, scope)
        pairs: list[tuple[object, object]]
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, list):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            if value > RANGE_LIMIT:
                raise self._error(block.head, words[0], f"range over {value} is longer than {RANGE_LIMIT}")
            pairs = [(index, index) for index in range(value)]
        elif value is None:
            pairs = []
        else:
            raise self._error(block.head, words[0] if words else "", f"range can't iterate over {go_text(value)}")
        if not pairs:
            yield from self._nodes_text(block.otherwise, dot, dict(scope))
        for key, item in pairs:
            inner = dict(scope)
            if names:
                inner[names[-1]] = item
            if len(names) == 2:
                inner[names[0]] = key
            yield from self._nodes_text(block.body, item, inner)

    def _pipeline(self, action: Action, words: list[str], dot: object, scope: Scope) -> object:
        value: object = None
        first = True
        for command in _split(words, "|"):
            extra = [] if first else [value]
            value = self._command(action, command, extra, dot, scope)
            first = False
        return value

    def _command(self, action: Action, words: list[str], extra: list[object], dot: object, scope: Scope) -> object:
        if not words:
            raise TemplateError(f"template: {self._name}:1: missing value for command")
        head, *rest = _terms(words)
        name = head[0]
        if len(head) == 1 and name in FUNCTIONS:
            arguments = [self._term(action, term, dot, scope) for term in rest] + extra
            try:
                return FUNCTIONS[name](*arguments)
            except TemplateError as error:
                raise self._error(action, name, f"error calling {name}: {error}") from None
            except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
                raise self._error(action, name, f"error calling {name}: {error}") from None
        if len(head) == 1 and name.isidentifier() and name not in ("true", "false", "nil"):
            raise TemplateError(f'template: {self._name}:1: function "{name}" not defined')
        arguments = [self._term(action, term, dot, scope) for term in rest] + extra
        return self._term(action, head, dot, scope, arguments)

    def _term(self, action: Action, term: list[str], dot: object, scope: Scope,
              arguments: list[object] | None = None) -> object:
        word = term[0]
        if word == "(":
            # "(", the words inside, ")", then perhaps a chain of members
            end = _closing(term, 0)
            value = self._pipeline(action, term[1:end], dot, scope)
            return self._chain(action, value, "".join(term[end + 1:]), arguments)
        if word.startswith("$"):
            name, _, chain = word.partition(".")
            if name not in scope:
                raise TemplateError(f'template: {self._name}:1: undefined variable "{name}"')
            return self._chain(action, scope[name], f".{chain}" if chain else "", arguments)
        if word.startswith("."):
            return self._chain(action, dot, "" if word == "." else word, arguments)
        return _constant(word, self._name)

    def _chain(self, action: Action, value: object, chain: str, arguments: list[object] | None) -> object:
        names = [name for name in chain.split(".") if name]
        for index, name in enumerate(names):
            last = index == len(names) - 1
            value = self._member(action, chain, value, name, arguments if last else None)
        return value

    def _member(self, action: Action, chain: str, value: object, name: str, arguments: list[object] | None) -> object:
        if isinstance(value, Record):
            if name in value.methods and arguments:
                return value.methods[name](str(arguments[0]))
            if name in value.members:
                return value.members[name]()
            raise self._error(action, chain, f"can't evaluate field {name} in type *formatter.{value.kind}")
        if isinstance(value, dict):
            if name in value:
                return value[name]
            for key, found in value.items():        # .ID is how Go calls what JSON calls Id
                if key.lower() == name.lower():
                    return found
            raise self._error(action, chain, f'map has no entry for key "{name}"')
        if value is None:
            raise self._error(action, chain, f"nil pointer evaluating interface {{}}.{name}")
        raise self._error(action, chain, f"can't evaluate field {name} in type {_go_type(value)}")

    def _error(self, action: Action, what: str, problem: str) -> TemplateError:
        # Go counts to the last member of a chain.
        column = action.column + max(action.source.find(what), 0) + max(what.rfind("."), 0)
        return TemplateError(f'template: {self._name}:1:{column}: executing "{self._name}" at <{what}>: {problem}')


def _go_type(value: object) -> str:
    return {str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}"}.get(type(value), "any")


def _constant(word: str, name: str) -> object:
    if word in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[word]
    if word[0] == '"':
        import ast

        try:
            return ast.literal_eval(word)
        except (SyntaxError, ValueError):
            raise TemplateError(f"template: {name}:1: malformed string {word}") from None
    if word[0] == "`":
        return word[1:-1]
    try:
        return int(word, 0)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            raise TemplateError(f"template: {name}:1: unexpected {word!r}") from None


def _split(words: list[str], separator: str) -> list[list[str]]:
    """`words` cut at `separator`, outside parentheses."""
    parts: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == separator and depth == 0:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _closing(words: list[str], start: int) -> int:
    depth = 0
    for index in range(start, len(words)):
        depth += (words[index] == "(") - (words[index] == ")")
        if depth == 0:
            return index
    raise TemplateError("template: :1: unclosed left paren")


def _terms(words: list[str]) -> list[list[str]]:
    """The operands of a command; one in parentheses is a list of words."""
    terms = []
    index = 0
    while index < len(words):
        end = _closing(words, index) if words[index] == "(" else index
        if words[index] == "(" and end + 1 < len(words) and words[end + 1].startswith(".") and words[end + 1] != ".":
            end += 1
        terms.append(words[index : end + 1])
        index = end + 1
    return terms
