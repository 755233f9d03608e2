"""Detached mounts, and children born in a control group."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import KernelError
from minidocker.linux import mounts, namespaces, trees
from minidocker.linux.birth import fork_into
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.mounts import MountFlag
from minidocker.linux.namespaces import CloneFlag

pytestmark = pytest.mark.needs_root


def _private() -> None:
    namespaces.unshare(CloneFlag.NEWNS)
    mounts.set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)


def test_a_tree_is_attached_with_its_attributes(in_child: Callable[..., Any], tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()

    def bind() -> tuple[str, ...]:
        _private()
        trees.bind(os.open(source, os.O_PATH), os.open(target, os.O_PATH), add=trees.RDONLY | trees.NOSUID)
        return next(mount.options for mount in mounts.mountinfo() if mount.mount_point == str(target))

    assert {"ro", "nosuid"} <= set(in_child(bind))


def test_recursive_attributes_reach_the_mounts_below(in_child: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "source/below").mkdir(parents=True)
    (tmp_path / "target").mkdir()

    def bind() -> dict[str, bool]:
        _private()
        mounts.mount("tmpfs", tmp_path / "source/below", "tmpfs")
        source, target = (os.open(tmp_path / name, os.O_PATH) for name in ("source", "target"))
        trees.bind(source, target, recursive=True, recursive_add=trees.RDONLY)
        return {mount.mount_point: "ro" in mount.options for mount in mounts.mountinfo()}

    seen = in_child(bind)
    assert seen[str(tmp_path / "target/below")] and not seen[str(tmp_path / "source/below")]


def test_a_directory_is_not_attached_to_a_file(in_child: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def bind() -> str:
        _private()
        try:
            trees.bind(os.open(tmp_path, os.O_PATH), os.open(tmp_path / "file", os.O_PATH), path="/x")
        except KernelError as error:
            return str(error)
        return ""

    assert "directory onto a file" in in_child(bind)


def test_a_child_is_born_in_the_group() -> None:
    with Cgroup.create(f"/minidocker-birth-{uuid.uuid4().hex[:8]}") as group:
        reader, writer = os.pipe()
        pid, born = fork_into(group)
        if pid == 0:
            os.write(writer, Path("/proc/self/cgroup").read_bytes())
            os._exit(7)
        os.close(writer)
        with open(reader) as pipe:
            lines = pipe.read().splitlines()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        if group.directory() is None:
            pytest.skip("no version 2 tree here")
        assert born
        assert f"0::{group.path}" in lines


def test_without_a_group_it_is_a_plain_fork() -> None:
    pid, born = fork_into(None)
    if pid == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3 and not born
