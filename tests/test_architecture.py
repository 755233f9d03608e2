"""The layers of the package: imports point down only, and dangerous modules are used only at the named edges."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minidocker"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each package may import besides itself and `errors`. Only two verbs of the command line import `lab`, lazily.
ALLOWED = {
    "errors.py": set(),
    "patterns.py": set(),
    "typed.py": set(),
    "__init__.py": {"client"},
    "linux": set(),
    "oci": set(),
    "storage": {"oci", "linux"},
    "registry": {"storage", "oci", "linux"},
    "runtime": {"oci", "linux"},
    "network": {"oci", "linux"},
    "engine": {"runtime", "network", "registry", "storage", "oci", "linux"},
    "build": {"engine", "runtime", "network", "registry", "storage", "oci", "linux"},
    "daemon": {"build", "engine", "runtime", "network", "registry", "storage", "oci", "linux"},
    "client": set(),
    "cli": {"client", "lab"},
    "lab": {"client", "build", "runtime", "network", "registry", "storage", "oci", "linux"},
}
# Where a program may be started, and where ctypes may be used. Everything else goes through these.
SUBPROCESS_EDGES = {
    "cli/commands/credentials.py",
    "linux/forkserver.py",
    "registry/credentials.py",
    "network/iptables.py",
    "engine/processes.py",
    "build/repository.py",
    "runtime/hooks.py",
}
CTYPES_EDGES = {"linux/syscall.py", "network/nftables.py"}
EVERYBODYS = ("errors", "patterns", "typed", "__version__")
READERS = {"msgspec.json.decode", "msgspec.json.Decoder", "msgspec.convert"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "misc"}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def _imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    for name, line in _imports(path):
        parts = name.split(".")
        if parts[0] != "minidocker" or len(parts) < 2 or parts[1] in (room, *EVERYBODYS):
            continue
        assert parts[1] in ALLOWED[room], f"{path}:{line}: {room} may not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_subprocess_and_ctypes_stay_at_their_edges(path: Path) -> None:
    if _room(path) in ("lab", "cli"):
        return
    relative = str(path.relative_to(PACKAGE))
    for name, line in _imports(path):
        top = name.split(".")[0]
        assert top != "ctypes" or relative in CTYPES_EDGES, f"{path}:{line}: ctypes outside its edges"
        assert top != "subprocess" or relative in SUBPROCESS_EDGES, f"{path}:{line}: subprocess outside its edges"


def test_no_room_is_named_after_nothing() -> None:
    assert not [path for path in MODULES if path.stem in FORBIDDEN_NAMES]


def test_only_two_verbs_of_the_command_line_import_the_lab() -> None:
    for path in MODULES:
        if _room(path) != "cli":
            continue
        tree = ast.parse(path.read_text())
        for node in tree.body:
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minidocker.lab")), path


def test_engine_speaks_no_http_and_makes_no_system_call() -> None:
    for path in MODULES:
        if _room(path) != "engine":
            continue
        for name, line in _imports(path):
            assert name.split(".")[0] not in ("aiohttp", "http"), f"{path}:{line}: HTTP ends in the daemon"
            assert not name.startswith("minidocker.linux.syscall"), f"{path}:{line}: system calls belong to linux"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_typed_json_is_read_through_typed(path: Path) -> None:
    """Two threads that use a struct for the first time crash msgspec: see minidocker/typed.py."""
    if path.name == "typed.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READERS:
            typed = ast.unparse(node.func) != "msgspec.json.decode" or any(word.arg == "type" for word in node.keywords)
            assert not typed, f"{path}:{node.lineno}: use minidocker.typed"


def _code_lines(path: Path) -> int:
    """Lines of a module that are neither blank nor comment nor docstring."""
    text = path.read_text()
    lines = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def test_the_weekends_reading_leads_to_modules_of_the_length_it_says() -> None:
    page = (PACKAGE.parent / "docs/reading.md").read_text()
    rows = re.findall(r"^\| \[`.*`\]\(\.\./(.*)\) \| (\d+) \| .+ \|$", page, re.M)
    assert len(rows) > 30
    for path, lines in rows:
        assert abs(_code_lines(PACKAGE.parent / path) - int(lines)) <= 0.1 * int(lines) + 5, path
