"""Archives of a hostile container do not leave the directory that they are unpacked into."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from minidocker.cli import copy_host
from minidocker.cli.session import CommandFailure


def archive(*members: tuple[str, str, str]) -> copy_host.Reader:
    """(name, kind, link target or content)"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, kind, text in members:
            entry = tarfile.TarInfo(name)
            entry.type = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}[kind]
            entry.mode, entry.uid, entry.gid = 0o755, 12, 34
            if kind == "f":
                entry.size = len(text)
            else:
                entry.linkname = text if kind in "lh" else ""
            file.addfile(entry, io.BytesIO(text.encode()) if kind == "f" else None)
    return copy_host.Reader(iter([out.getvalue()]))


@pytest.mark.parametrize(
    "members",
    [
        [("a/../../x", "f", "evil")],
        [("../x", "f", "evil")],
        [("link", "l", ".."), ("link/x", "f", "evil")],
        [("d", "d", ""), ("d/link", "l", "/"), ("d/link/x", "f", "evil")],
        [("d", "d", ""), ("d/link", "l", "../..")],
        [("x", "h", "../outside")],
        [("d", "d", ""), ("d/link", "l", "/"), ("y", "h", "d/link/etc/passwd")],
    ],
)
def test_nothing_lands_outside(members: list[tuple[str, str, str]], tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(CommandFailure):
        copy_host.unpack(archive(*members), str(target), "", "")
    assert sorted(os.listdir(tmp_path)) == ["outside", "target"]
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_link_that_is_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(tmp_path / "away")
    with pytest.raises(CommandFailure, match="is not a directory"):
        copy_host.unpack(archive(("d/x", "f", "evil")), str(target), "", "")
    copy_host.unpack(archive(("d", "f", "new")), str(target), "", "")
    assert (target / "d").read_text() == "new"
    assert os.listdir(tmp_path / "away") == []


def test_a_directory_and_a_file_never_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("old")
    with pytest.raises(CommandFailure, match="cannot overwrite directory"):
        copy_host.unpack(archive(("d", "f", "x")), str(tmp_path), "", "")
    with pytest.raises(CommandFailure, match="cannot overwrite non-directory"):
        copy_host.unpack(archive(("f", "d", "")), str(tmp_path), "", "")


def test_files_belong_to_whoever_copies_and_keep_their_mode(tmp_path: Path) -> None:
    copy_host.unpack(archive(("s", "d", ""), ("s/f", "f", "x"), ("s/h", "h", "s/f")), str(tmp_path), "s", "new")
    status = (tmp_path / "new/f").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (os.getuid(), os.getgid(), 0o755)
    assert status.st_ino == (tmp_path / "new/h").stat().st_ino


def test_what_is_packed_is_unpacked_the_same(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(os.urandom(300_000))
    (tree / "link").symlink_to("sub/file")
    (tmp_path / "out").mkdir()
    pieces = copy_host.pack(str(tmp_path), "tree", "other")
    copy_host.unpack(copy_host.Reader(pieces), str(tmp_path / "out"), "", "")
    assert (tmp_path / "out/other/sub/file").read_bytes() == (tree / "sub/file").read_bytes()
    assert os.readlink(tmp_path / "out/other/link") == "sub/file"
