"""Terminals: a pty of the right devpts, its size, the session that it controls."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import KernelError
from minidocker.linux import mounts, namespaces, terminal
from minidocker.linux.mounts import MountFlag
from minidocker.linux.namespaces import CloneFlag

Child = Callable[..., Any]


@pytest.fixture
def pty() -> Any:
    try:
        master, slave, name = terminal.open_pty()
    except KernelError as error:
        if error.errno not in (errno.EACCES, errno.ENOENT):
            raise
        pytest.skip(f"needs a devpts that lets us in: {error}")
    yield master, slave, name
    for fd in (master, slave):
        try:
            os.close(fd)
        except OSError:
            continue


def test_what_is_typed_at_the_master_arrives_at_the_slave(pty: tuple[int, int, str]) -> None:
    master, slave, name = pty
    os.write(master, b"ls\n")
    assert os.read(slave, 100) == b"ls\n"
    assert os.read(master, 100) == b"ls\r\n"  # the echo, a line's end being two characters on a terminal
    assert os.ttyname(slave) == name
    assert not os.get_inheritable(master)
    assert not os.get_inheritable(slave)


def test_the_master_sees_the_end_when_the_last_slave_closes(pty: tuple[int, int, str]) -> None:
    master, slave, _ = pty
    os.write(slave, b"last words")
    os.close(slave)
    assert os.read(master, 100) == b"last words"
    with pytest.raises(OSError) as caught:
        os.read(master, 100)
    assert caught.value.errno == errno.EIO


def test_the_size_is_rows_and_columns(pty: tuple[int, int, str]) -> None:
    master, slave, _ = pty
    assert terminal.window_size(slave) == (0, 0)
    terminal.set_window_size(master, 24, 80)
    assert terminal.window_size(slave) == (24, 80)
    assert terminal.window_size(slave) == os.get_terminal_size(slave)[::-1]


@pytest.mark.needs_root
def test_the_pty_is_of_the_devpts_that_was_named(tmp_path: Path, in_child: Child) -> None:
    def opened() -> tuple[str, bool, list[str], int]:
        namespaces.unshare(CloneFlag.NEWNS)
        mounts.set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)
        mounts.mount("devpts", tmp_path, "devpts", MountFlag.NOSUID | MountFlag.NOEXEC, "newinstance,ptmxmode=0666")
        _, slave, name = terminal.open_pty(str(tmp_path))
        return (
            name,
            os.stat(name).st_rdev == os.fstat(slave).st_rdev,
            sorted(os.listdir(tmp_path)),
            os.major(os.fstat(slave).st_rdev),
        )

    assert in_child(opened) == (f"{tmp_path}/0", True, ["0", "ptmx"], 136)


def test_a_directory_without_a_devpts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="ENOENT"):
        terminal.open_pty(str(tmp_path))


def test_a_file_or_a_link_in_the_place_of_ptmx_is_refused(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "ptmx").write_text("")
    with pytest.raises(KernelError) as caught:
        terminal.open_pty(str(tmp_path))
    assert caught.value.errno == errno.ENOTTY
    (tmp_path / "ptmx").unlink()
    (tmp_path / "ptmx").symlink_to("/dev/pts/ptmx")
    with pytest.raises(KernelError) as caught:
        terminal.open_pty(str(tmp_path))
    assert caught.value.errno == errno.ELOOP
    assert os.listdir("/proc/self/fd") == before


def test_a_size_of_what_is_no_terminal_is_an_error() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(KernelError) as caught:
            terminal.window_size(reader)
        assert caught.value.errno == errno.ENOTTY
    finally:
        os.close(reader)
        os.close(writer)


def test_a_controlling_terminal_turns_ctrl_c_into_a_signal(pty: tuple[int, int, str]) -> None:
    master, slave, _ = pty
    ready, child_ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            terminal.make_controlling(slave)
            assert os.tcgetpgrp(slave) == os.getpid()
            with open("/dev/tty"):
                os.write(child_ready, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(child_ready)
    assert os.read(ready, 1) == b"1"
    os.write(master, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT
    os.close(ready)


def test_a_session_leader_may_take_a_terminal_later(pty: tuple[int, int, str], in_child: Child) -> None:
    _, slave, _ = pty

    def leader() -> bool:
        os.setsid()
        terminal.make_controlling(slave)
        return os.tcgetpgrp(slave) == os.getpid()

    assert in_child(leader)
