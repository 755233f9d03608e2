"""Builds compared with Docker's own: what is said, the image's configuration, its history, every file of its layers."""

import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAILED_TO_PARSE = "failed to parse Dockerfile: "


def _cases(name: str) -> dict[str, str]:
    """The Dockerfiles of a file beside this one, by the title in front of each."""
    parts = re.split(r"(?m)^=== (.*)\n", (Path(__file__).parent / name).read_text())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


CASES = {**_cases("same_images.txt"), "crlf": "FROM box:1\r\nRUN echo a\r\nENV A=b\r\nCMD [\"x\"]\r\n"}
FAILURES = _cases("same_failures.txt")
Alike = Callable[..., tuple[Any, Any]]


def _archive(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, kind, content in (("in", tarfile.DIRTYPE, b""), ("in/f", tarfile.REGTYPE, b"packed"),
                                    ("in/l", tarfile.SYMTYPE, b""), ("g", tarfile.REGTYPE, b"top")):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode, member.uid, member.gid = kind, len(content), 0o750, 11, 12
            member.linkname = "f" if kind == tarfile.SYMTYPE else ""
            member.mtime = 1_600_000_000
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("context")
    for name in ("dir/sub", "app/node_modules", "ünï", "empty"):
        (root / name).mkdir(parents=True)
    for name in ("a.txt", "b.bin", "a b.txt", "dir/c.txt", "dir/sub/d.txt", "[x].txt", "*star", ".hidden",
                 "ünï/ß é.txt", "app/package.json", "app/index.js", "app/node_modules/m"):
        (root / name).write_text(name)
    (root / "a.txt").chmod(0o4711)
    (root / "dir").chmod(0o2770)
    (root / "dir/sub").chmod(0o700)
    for name, target in (("dir/loop", "dir/sub"), ("dangling", "nowhere"), ("self", "self")):
        os.symlink(target, root / name)
    os.symlink("a.txt", root / "link")
    os.symlink("../b.bin", root / "dir/up")
    os.symlink("dir", root / "dirlink")
    os.symlink("../../../../etc/hostname", root / "outside")
    os.link(root / "dir/c.txt", root / "dir/hard.txt")
    for name, mode in (("plain.tar", "w"), ("packed.tgz", "w:gz"), ("packed.tbz", "w:bz2"), ("packed.txz", "w:xz")):
        _archive(root / name, mode)
    return root


@pytest.mark.parametrize("name", CASES)
def test_makes_the_same_image(name: str, context: Path, alike: Alike) -> None:
    (context / "Dockerfile").write_text(CASES[name])
    theirs, ours = alike(context, "--no-cache")
    assert ours.said == theirs.said
    assert ours.config == theirs.config
    assert ours.history == theirs.history
    assert ours.layers == theirs.layers


@pytest.mark.parametrize("name", FAILURES)
def test_fails_with_the_same_words(name: str, context: Path, alike: Alike) -> None:
    (context / "Dockerfile").write_text(FAILURES[name])
    theirs, ours = alike(context)
    assert theirs.status, "Docker builds it"
    said = ours.said
    if "dockerfile parse error" not in theirs.said:  # ours always tells the line
        instead = FAILED_TO_PARSE if FAILED_TO_PARSE in theirs.said else ""
        said = re.sub(r"dockerfile parse error line \d+: ", instead, said)
    assert (ours.status, said) == (theirs.status, theirs.said)
