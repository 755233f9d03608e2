"""What a container changed: the layer's tar, the list of `docker diff`, the exported tree."""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import directory, make_tar, member

from minidocker.oci.digest import Digest
from minidocker.storage.archive import Stores
from minidocker.storage.diff import ADDED, CHANGED, DELETED
from minidocker.storage.layers import Layer
from minidocker.storage.worker import Stopped, Worker


class Mounted:
    """A real overlay mount on a layer, as a container has it."""

    def __init__(self, stores: Stores, root: Path, layer: Layer) -> None:
        self.upper, self.work, self.merged = root / "upper", root / "work", root / "merged"
        for path in (self.upper, self.work, self.merged):
            path.mkdir()
        self.directory = stores.layers.directory
        self.lowerdir = stores.layers.lowerdir(stores.layers.chain(layer.chain_id))
        options = f"lowerdir={self.lowerdir},upperdir={self.upper},workdir={self.work}"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(self.merged)]
        subprocess.run(command, cwd=self.directory, check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.merged)], check=True)


BASE = make_tar(
    directory("etc"),
    member("etc/passwd", b"root"),
    member("etc/gone", b"x"),
    directory("var"),
    directory("var/cache"),
    member("var/cache/a", b"a"),
    member("var/cache/b", b"b"),
    directory("same"),
    member("same/f", b"x"),
    member("tool", b"x", mode=0o755),
)


@pytest.fixture
def base(stores: Stores, tmp_path: Path) -> Layer:
    (tmp_path / "base.tar").write_bytes(BASE)
    return stores.layers.apply(tmp_path / "base.tar", None, Digest.of(BASE), None)


@pytest.fixture
def mounted(stores: Stores, tmp_path: Path, base: Layer) -> Iterator[Mounted]:
    made = Mounted(stores, tmp_path, base)
    yield made
    made.unmount()


def work_in(merged: Path) -> None:
    (merged / "etc/passwd").write_bytes(b"root and more")
    (merged / "etc/gone").unlink()
    (merged / "new").mkdir()
    (merged / "new/file").write_bytes(b"new")
    os.chmod(merged / "new/file", 0o4755)
    os.link(merged / "new/file", merged / "new/hard")
    os.symlink("file", merged / "new/soft")
    os.mkfifo(merged / "new/fifo")
    os.setxattr(merged / "new/file", "user.note", b"n")
    subprocess.run(["rm", "-r", str(merged / "var/cache")], check=True)
    (merged / "var/cache").mkdir()
    (merged / "var/cache/c").write_bytes(b"c")
    os.chmod(merged / "tool", 0o700)


def test_changes_are_those_that_docker_shows(mounted: Mounted, worker: Worker, stores: Stores, base: Layer) -> None:
    work_in(mounted.merged)
    found = worker.changes(mounted.upper, [stores.layers.path(base.chain_id)])
    assert {change.path: change.kind for change in found} == {
        "/etc": CHANGED,
        "/etc/passwd": CHANGED,
        "/etc/gone": DELETED,
        "/new": ADDED,
        "/new/file": ADDED,
        "/new/hard": ADDED,
        "/new/soft": ADDED,
        "/new/fifo": ADDED,
        "/var": CHANGED,
        "/var/cache": CHANGED,
        "/var/cache/a": DELETED,
        "/var/cache/b": DELETED,
        "/var/cache/c": ADDED,
        "/tool": CHANGED,
    }
    assert [change.path for change in found] == sorted(change.path for change in found)


def test_nothing_changed_is_nothing(mounted: Mounted, worker: Worker, stores: Stores, base: Layer) -> None:
    assert (mounted.merged / "etc/passwd").read_bytes() == b"root"
    assert worker.changes(mounted.upper, [stores.layers.path(base.chain_id)]) == []


@pytest.mark.parametrize("compress", [False, True])
def test_diff_upon_its_base_gives_the_same_tree(
    mounted: Mounted, worker: Worker, stores: Stores, base: Layer, tmp_path: Path, compress: bool
) -> None:
    work_in(mounted.merged)
    pieces: list[bytes] = []
    diff_id = worker.diff(mounted.upper, pieces.append, compress=compress)
    (tmp_path / "diff.tar").write_bytes(b"".join(pieces))
    top = stores.layers.apply(tmp_path / "diff.tar", None, diff_id, base)  # verifies the diff ID as well
    (tmp_path / "again").mkdir()
    again = Mounted(stores, tmp_path / "again", top)
    try:
        listing = ["find", ".", "-printf", "%P %y %m %U %G %s %l %n\n"]
        seen = [
            sorted(subprocess.run(listing, cwd=tree, check=True, capture_output=True, text=True).stdout.splitlines())
            for tree in (mounted.merged, again.merged)
        ]
        assert [line for line in seen[0] if " d " not in line] == [line for line in seen[1] if " d " not in line]
        assert [line.split(" ")[:2] for line in seen[0]] == [line.split(" ")[:2] for line in seen[1]]
        assert os.getxattr(again.merged / "new/file", "user.note") == b"n"
        assert (again.merged / "new/hard").stat().st_nlink == 2
    finally:
        again.unmount()


def test_same_changes_give_the_same_bytes(mounted: Mounted, worker: Worker) -> None:
    work_in(mounted.merged)
    first: list[bytes] = []
    second: list[bytes] = []
    assert worker.diff(mounted.upper, first.append, compress=True) == worker.diff(
        mounted.upper, second.append, compress=True
    )
    assert b"".join(first) == b"".join(second)


def test_diff_holds_whiteouts_in_their_archive_form(mounted: Mounted, worker: Worker) -> None:
    work_in(mounted.merged)
    pieces: list[bytes] = []
    worker.diff(mounted.upper, pieces.append)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as opened:
        names = opened.getnames()
        hard = opened.getmember("new/hard")
    assert "etc/.wh.gone" in names
    assert names.index("var/cache") + 1 == names.index("var/cache/.wh..wh..opq")
    assert names.index("new") < names.index("new/file")
    assert (hard.islnk(), hard.linkname) == (True, "new/file")


def test_export_of_a_stopped_container_is_the_merged_tree(
    mounted: Mounted, worker: Worker, stores: Stores, tmp_path: Path
) -> None:
    work_in(mounted.merged)
    mounted.unmount()
    try:
        place = Stopped(str(stores.layers.directory), mounted.lowerdir, str(mounted.upper), str(mounted.work))
        with open(tmp_path / "export.tar", "wb") as file:
            worker.export(place, file.fileno())
        with tarfile.open(tmp_path / "export.tar") as opened:
            names = set(opened.getnames())
            passwd = opened.extractfile("etc/passwd")
            assert passwd is not None and passwd.read() == b"root and more"
        assert {"same/f", "new/file", "var/cache/c"} <= names
        assert not {"etc/gone", "var/cache/a"} & names and not any(".wh." in name for name in names)
    finally:
        subprocess.run(["mount", "--bind", "/mnt", str(mounted.merged)], check=True)  # for the fixture to unmount
