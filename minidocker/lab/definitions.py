"""A learner's function or class as text, with all that it needs: so it can be run in another process or container.

Source  Python's ast, symtable, inspect and linecache; IPython keeps a notebook's cells in `In`, in order.
Rules   - only text leaves: no live object of the learner's kernel does.
        - what a definition uses comes along: imports (standard library and minidocker), constants, and the learner's
          own functions and classes of other cells. Each is one block of text; what others need comes first.
        - inspect finds no class of a notebook cell before Python 3.13, so a class is looked for in the cells' syntax.
"""

import ast
import inspect
import linecache
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Learned = Callable[..., Any] | type
"""A function or a class that a learner wrote."""


class NoSource(Exception):
    """The text of an object cannot be found, or cannot stand alone."""


@dataclass(frozen=True, slots=True)
class Definition:
    """Text alone. `blocks`: statements in the order in which they must run; the last one defines `name`."""

    name: str
    blocks: tuple[str, ...]


def code_of(definitions: Sequence[Definition]) -> str:
    """All the definitions as one program; what several need is there once."""
    return "\n".join(dict.fromkeys(block for definition in definitions for block in definition.blocks))


def definition_of(learned: Learned | Definition) -> Definition:
    """The text of a function or class and of all that it uses.

    Raises  NoSource: its text is not to be found (it was not made by `def` or `class` in a cell or a file).
    """
    if isinstance(learned, Definition):
        return learned
    blocks: dict[str, str] = {}
    scope = _scope(learned)
    source = _source(learned, scope)
    _add(learned.__name__, source, scope, blocks)
    return Definition(learned.__name__, tuple(blocks.values()))


def _add(name: str, source: str, scope: dict[str, Any], blocks: dict[str, str]) -> None:
    """Add what `source` needs, then `source` itself. Blocks go by name: that ends circles."""
    blocks[name] = ""  # seen
    for used in _globals(symtable.symtable(source, name, "exec")):
        if used in scope and used not in blocks:
            _add_needed(used, scope[used], scope, blocks)
    for statement in _submodules(ast.parse(source), scope):
        blocks.setdefault(statement, statement)
    del blocks[name]
    blocks[name] = source


def _add_needed(name: str, value: Any, scope: dict[str, Any], blocks: dict[str, str]) -> None:
    if statement := _import(name, value):
        blocks[name] = statement
    elif isinstance(value, types.FunctionType | type) and _is_local(value, scope):
        source = _source(value, scope)
        if value.__name__ != name:
            source += f"\n{name} = {value.__name__}"
        _add(name, source, scope, blocks)
    elif _is_plain(value):
        blocks[name] = f"{name} = {value!r}"
    elif statement := _binding(name, scope):  # such as `PATTERN = re.compile(...)`
        _add(name, statement, scope, blocks)


def _is_plain(value: Any) -> bool:
    """Whether its repr is a literal."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


# ---------------------------------------------------------------- imports


def _is_known(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names or module.partition(".")[0] == "minidocker"


def _import(name: str, value: Any) -> str | None:
    """The statement that binds `name` to `value`, if it is a module of the standard library or ours, or is in one."""
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__} as {name}" if _is_known(value.__name__) else None
    for holder in (getattr(value, "__module__", None), type(value).__module__):
        if isinstance(holder, str) and _is_known(holder) and holder != "builtins":
            for attribute in (getattr(value, "__name__", name), name):
                if getattr(sys.modules.get(holder), attribute, None) is value:
                    return f"from {holder} import {attribute} as {name}"
    return None


def _submodules(tree: ast.AST, scope: dict[str, Any]) -> Iterator[str]:
    """`import a.b` binds only `a`: the statements for each `a.b...` that is written in full."""
    for node in ast.walk(tree):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        module = scope.get(node.id) if isinstance(node, ast.Name) else None
        if isinstance(module, types.ModuleType) and _is_known(module.__name__):
            for length in range(1, len(parts) + 1):
                dotted = ".".join((module.__name__, *parts[:length]))
                if dotted in sys.modules:
                    yield f"import {dotted}"


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """The names that the text looks up outside of itself."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _globals(inner)


# ---------------------------------------------------------------- finding the text


def _functions(kind: type) -> Iterator[types.FunctionType]:
    for member in vars(kind).values():
        member = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
        if isinstance(member, types.FunctionType) and member.__qualname__.startswith(kind.__qualname__ + "."):
            yield member


def _scope(learned: Any) -> dict[str, Any]:
    """The global names of the notebook or module in which it was written."""
    if isinstance(learned, type):
        return vars(sys.modules[learned.__module__])
    learned = inspect.unwrap(learned)
    if not isinstance(learned, types.FunctionType) or learned.__name__ == "<lambda>":
        raise NoSource(f"{learned!r} was not made by `def` or `class`")
    return learned.__globals__


def _is_local(value: Any, scope: dict[str, Any]) -> bool:
    return bool((value if isinstance(value, type) else inspect.unwrap(value)).__module__ == scope["__name__"])


def _source(learned: Any, scope: dict[str, Any]) -> str:
    if isinstance(learned, type):
        for function in _functions(learned):
            lines = linecache.getlines(function.__code__.co_filename)
            if lines and (found := _class(lines, learned.__name__, function.__code__.co_firstlineno)):
                return found
        if found := _binding(learned.__name__, scope):
            return found
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(learned)))
    except (OSError, TypeError):
        raise NoSource(f"the text of {learned.__name__} is not to be found") from None


def _class(lines: list[str], name: str, line: int) -> str | None:
    """The class `name` around a line."""
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ClassDef) and node.name == name and node.lineno <= line <= (node.end_lineno or 0):
            return _text(lines, node)
    return None


def _text(lines: list[str], node: ast.stmt) -> str:
    """The whole lines of a statement, with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))


def _binding(name: str, scope: dict[str, Any]) -> str | None:
    """The newest top-level statement that binds `name`, of the notebook's cells or of the module's file."""
    texts = scope.get("In") or ["".join(linecache.getlines(scope.get("__file__") or ""))]
    for text in reversed(texts):
        try:
            statements = ast.parse(text).body
        except SyntaxError:
            continue
        for node in reversed(statements):
            if name in _bound(node):
                return _text(text.splitlines(keepends=True), node)
            if isinstance(node, ast.ImportFrom) and not node.level and _is_known(node.module or ""):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return f"from {node.module} import {alias.name} as {name}"
    return None


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
