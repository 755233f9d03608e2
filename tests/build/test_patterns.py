"""Patterns of .dockerignore, COPY and ADD, against what a real dockerd made of them (patterns.json)."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from minidocker.build.context import Context
from minidocker.build.expansion import Lexer
from minidocker.build.sources import in_context
from minidocker.client.context import ignore_list, pack
from minidocker.errors import NotFound
from minidocker.patterns import BadPattern, Glob, IgnoreList, clean, has_wildcard, read_ignore_file

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("patterns.json").read_text())


class _Pieces:
    def __init__(self, pieces: Any) -> None:
        self._pieces = iter(pieces)

    def read(self, count: int, /) -> bytes:
        return next(self._pieces, b"")


def _tree(root: Path, ignore: str | None) -> None:
    for name in TABLE["files"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "Dockerfile").write_text("FROM scratch\n")
    if ignore is not None:
        (root / ".dockerignore").write_text(ignore)


def _context(root: Path) -> Context:
    return Context(_Pieces(pack(str(root), ignore_list(str(root), "Dockerfile"))), root.parent)


@pytest.mark.parametrize("pattern", TABLE["ignore"])
def test_an_ignore_file_leaves_what_docker_leaves(pattern: str, tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    _tree(root, pattern)
    wanted = TABLE["ignore"][pattern]
    if wanted is None:
        with pytest.raises(BadPattern):
            _context(root)
        return
    names = {name for name, node in _context(root).walk() if node.children is None}
    assert sorted(names - {"Dockerfile", ".dockerignore"}) == wanted


@pytest.mark.parametrize("pattern", TABLE["glob"])
def test_a_pattern_of_copy_takes_what_docker_takes(pattern: str, tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    _tree(root, None)
    context = _context(root)
    found = set()
    try:
        for source in in_context(context, Lexer().word(pattern, {})):
            name = source.path.rpartition("/")[2]
            below = context.walk(source.node) if source.directory and source.node else [("", source.node)]
            found |= {f"t/{path}" if source.directory else f"t/{name}" for path, node in below
                      if node is not None and node.children is None}  # fmt: skip
    except NotFound:
        pass
    wanted = TABLE["glob"][pattern]
    assert sorted(found - {"t/Dockerfile"}) == [name for name in wanted or [] if name != "t/Dockerfile"]


def test_no_pattern_is_slow() -> None:
    started = time.process_time()
    assert not IgnoreList(["**/" * 40 + "*a*a*a*a*a*a*a*b"]).ignores("a/" * 1500 + "a" * 1000)
    assert not Glob("*a" * 100 + "b").matches("a" * 4000)
    assert time.process_time() - started < 10  # a backtracking matcher would need more than anyone's lifetime


def test_paths_are_cleaned_as_go_does() -> None:
    cases = {"": ".", ".": ".", "a//b/./c": "a/b/c", "a/../b": "b", "../a": "../a", "/..": "/", "/../a": "/a",
             "a/..": ".", "../../x/..": "../.."}  # fmt: skip
    assert {path: clean(path) for path in cases} == cases


def test_an_ignore_file_is_read_with_its_mark_and_comments() -> None:
    assert read_ignore_file(b"\xef\xbb\xbfa\r\n#b\n #c\n\n/d/\n! e/../f \n") == ["a", "#c", "d", "!f"]


def test_an_escaped_wildcard_is_none() -> None:
    assert [has_wildcard(text) for text in ("a*", "a?", "[", "\\*", "a\\[b", "x")] == [True, True, True] + [False] * 3
