"""Go's template syntax: text, actions between double braces, blocks that `end` closes.

Source  Go's text/template/parse.
Rules   - the tree is data; template.py gives it meaning.
"""

import re
from dataclasses import dataclass, field

from minidocker.cli.template_functions import TemplateError

_TOKEN = re.compile(r"""
    \s+ | "(?:\\.|[^"\\])*" | `[^`]*` | := | [|(),=] | \$?\w*(?:\.\w+)+ | \$\w* | \. | [+-]?\d[\w.]* | \w+
""", re.VERBOSE)
_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """Text that is copied."""

    text: str


@dataclass(frozen=True)
class Action:
    """A pipeline; `column` is where its source begins, for messages."""

    source: str
    words: list[str]
    column: int

    def targets(self) -> tuple[list[str], list[str]]:
        """The variables that it sets, and the words of the value."""
        for mark in (":=", "="):
            if mark in self.words:
                index = self.words.index(mark)
                return [word for word in self.words[:index] if word != ","], self.words[index + 1:]
        return [], self.words


@dataclass
class Block:
    """if, with or range."""

    keyword: str
    head: Action
    body: "list[Node]" = field(default_factory=list)
    otherwise: "list[Node]" = field(default_factory=list)


Node = Text | Action | Block


def tokens_of(source: str, name: str = "") -> list[str]:
    """The words of an action. Raises TemplateError at what cannot be one."""
    found = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise TemplateError(f"template: {name}:1: unexpected {source[position]!r} in operand")
        if not match.group().isspace():
            found.append(match.group())
        position = match.end()
    return found


def tree(source: str, name: str = "") -> list[Node]:
    """The nodes of a template. Raises TemplateError."""
    root: list[Node] = []
    stack: list[Block] = []
    current = root
    for node in _flat(source, name):
        if isinstance(node, Text):
            current.append(node)
            continue
        keyword = node.words[0] if node.words else ""
        rest = Action(node.source, node.words[1:], node.column)
        if keyword in ("if", "with", "range"):
            block = Block(keyword, rest)
            current.append(block)
            stack.append(block)
            current = block.body
        elif keyword == "else":
            if not stack:
                raise TemplateError(f"template: {name}:1: unexpected {{{{else}}}}")
            current = stack[-1].otherwise
            if rest.words:      # else if ...: an if inside the else, closed by the same end
                inner = Block(rest.words[0], Action(node.source, rest.words[1:], node.column))
                current.append(inner)
                inner_body = inner.body
                stack[-1] = inner
                current = inner_body
        elif keyword == "end":
            if not stack:
                raise TemplateError(f"template: {name}:1: unexpected {{{{end}}}}")
            stack.pop()
            current = _open_list(root, stack)
        else:
            current.append(node)
    if stack:
        raise TemplateError(f"template: {name}:1: unexpected EOF")
    return root


def _open_list(root: list[Node], stack: list[Block]) -> list[Node]:
    if not stack:
        return root
    return stack[-1].otherwise if stack[-1].otherwise else stack[-1].body


def _flat(source: str, name: str) -> list[Text | Action]:
    found: list[Text | Action] = []
    position = 0
    trim = False
    for match in _ACTION.finditer(source):
        text = source[position : match.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if match.group(1) else text
        if text:
            found.append(Text(text))
        inner = match.group(2)
        if not inner.strip().startswith("/*"):
            words = tokens_of(inner, name)
            if not words:
                raise TemplateError(f"template: {name}:1: missing value for command")
            found.append(Action(inner, words, match.start(2)))
        position = match.end()
        trim = bool(match.group(3))
    rest = source[position:].lstrip() if trim else source[position:]
    if "{{" in rest:
        raise TemplateError(f"template: {name}:1: unclosed action")
    if rest:
        found.append(Text(rest))
    return found
