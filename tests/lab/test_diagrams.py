"""Pictures say what the kernel says at that moment, in a picture, in words, and in a table."""

import base64
import os
import re
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab import diagrams
from minidocker.lab.diagrams import Picture
from minidocker.linux.mounts import MountFlag, mount, mountinfo, set_propagation
from minidocker.linux.namespaces import CloneFlag, inode, unshare

needs_root = pytest.mark.needs_root
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot: apt-get install graphviz")
PLAIN = Picture('a [label="<&>"]', 'one "box" & no arrows', ("name", "value"), (("a", "<1>"), ("longer", "2")))


@needs_root
def test_namespaces_of_two_processes_are_shared_exactly_where_the_inodes_agree() -> None:
    sleeper = subprocess.Popen(["unshare", "--uts", "--ipc", "sh", "-c", "echo ready; exec sleep 60"], stdout=-1)
    try:
        assert sleeper.stdout is not None and sleeper.stdout.readline() == b"ready\n"
        picture = diagrams.namespaces_of({"us": "self", "them": sleeper.pid})
        rows = {kind: (ours, theirs) for kind, ours, theirs in picture.rows}
        assert {kind for kind, (ours, theirs) in rows.items() if ours != theirs} == {"uts", "ipc"}
        assert rows["uts"] == (f"[{inode('uts')}]", f"[{inode('uts', sleeper.pid)}]")
        assert "us, them: they differ in 2 of" in picture.alt
        assert picture.dot.count("own") == 4 and picture.dot.count("shared by 2") == len(rows) - 2
    finally:
        sleeper.kill()
        sleeper.wait()
        sleeper.stdout.close() if sleeper.stdout else None


def test_namespaces_of_a_process_that_has_ended_raises_oserror() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(OSError):
        diagrams.namespaces_of({"gone": gone.pid})


def _mounted_at(place: str) -> tuple[Picture, Picture]:
    unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)
    mount("tmpfs", place, "tmpfs")
    set_propagation(place, MountFlag.SHARED)
    os.mkdir(f"{place}/inner")
    mount("tmpfs", f"{place}/inner", "tmpfs", MountFlag.RDONLY)
    set_propagation(f"{place}/inner", MountFlag.PRIVATE)
    return diagrams.mount_tree(below=place), diagrams.mount_tree(mountinfo(), below=f"{place}/inner")


@needs_root
def test_mount_tree_tells_shared_from_private_without_colour(in_child: Callable[..., Any], tmp_path: Path) -> None:
    tree, inner = in_child(_mounted_at, str(tmp_path))
    assert [row[0] for row in tree.rows] == [str(tmp_path), f"{tmp_path}/inner"]
    outer_row, inner_row = tree.rows
    assert outer_row[2].startswith("shared:") and inner_row[2] == "private" and "ro" in inner_row[3].split(",")
    assert "tmpfs, shared:" in tree.dot and "tmpfs, private" in tree.dot
    assert len(re.findall(r"m\d+ -> m\d+", tree.dot)) == 1
    assert tree.alt == f"2 mounts at or below {tmp_path}, 1 of them tied to other namespaces"
    assert inner.alt == f"1 mount at or below {tmp_path}/inner, none of them tied to other namespaces"


def test_process_tree_shows_children_and_zombies() -> None:
    script = "sleep 0.01 & sleep 60 & echo ready; exec sleep 61"  # the first of them becomes a zombie of `sleep 61`
    parent = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        first = min(process.pid for process in diagrams.processes_below(parent.pid)[1:])
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        while diagrams.status_of(first)["State"].split()[0] != "Z":
            os.sched_yield()
        picture = diagrams.process_tree(parent.pid, "a family")
        states = [row[3] for row in picture.rows]
        assert picture.rows[0][1] == str(parent.pid) and len(picture.rows) == 3 and states.count("Z") == 1
        assert picture.alt == "a family: 3 processes, none of them in an inner pid namespace, 1 zombie"
        assert "(zombie)" in picture.dot and f"p{parent.pid} -> p{first}" in picture.dot
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()


def test_process_tree_of_nobody_says_so() -> None:
    with pytest.raises(ValueError, match="there is no process"):
        diagrams.process_tree(1 << 30)


@needs_root
def test_a_process_in_an_inner_pid_namespace_has_both_numbers() -> None:
    outer = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    )
    try:
        assert outer.stdout is not None and outer.stdout.readline() == b"ready\n"
        _, inner = diagrams.processes_below(outer.pid)
        assert inner.pids == (inner.pid, 1)
        while (status := diagrams.status_of(inner.pid))["Name"] != "sleep" or status["State"][0] != "S":
            time.sleep(0.01)  # it is about to become it
        assert ("sleep", str(inner.pid), "1", "S") in diagrams.process_tree(outer.pid).rows
    finally:
        outer.kill()
        outer.wait()
        assert outer.stdout is not None
        outer.stdout.close()


@needs_dot
def test_a_picture_is_an_image_with_its_words_and_its_table() -> None:
    bundle = PLAIN._repr_mimebundle_()
    assert bundle["text/plain"] == 'one "box" & no arrows\n\nname    value\na       <1>\nlonger  2'
    figure = bundle["text/html"]
    assert 'alt="one &quot;box&quot; &amp; no arrows"' in figure
    assert '<th scope="col" style="' in figure and ">name</th>" in figure and ">&lt;1&gt;</td>" in figure
    encoded = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', figure)
    assert encoded is not None
    assert ElementTree.fromstring(base64.b64decode(encoded[1])).tag.endswith("svg")


def test_without_graphviz_the_words_and_the_table_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert set(PLAIN._repr_mimebundle_()) == {"text/plain"}
