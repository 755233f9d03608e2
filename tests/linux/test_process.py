"""Processes: pidfds, traits that stay, descriptors, sealed copies of a program."""

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import KernelError
from minidocker.linux import process

Child = Callable[..., Any]


def _status(key: str, pid: int | str = "self") -> str:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return lines[key]


def test_a_pidfd_becomes_readable_when_its_process_ends() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pidfd = process.pidfd_open(pid)
    assert select.select([pidfd], [], [], 0)[0] == []
    process.pidfd_send(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0] == [pidfd]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with pytest.raises(KernelError) as caught:
        process.pidfd_send(pidfd, 0)  # reaped: the pid may be another's, the pidfd is not
    assert caught.value.errno == errno.ESRCH
    os.close(pidfd)


def test_a_process_that_is_not_there_has_no_pidfd_and_no_start_time() -> None:
    with pytest.raises(KernelError, match="pidfd_open pid 4194304"):
        process.pidfd_open(2**22)
    with pytest.raises(KernelError) as caught:
        process.start_time(2**22)
    assert caught.value.errno == errno.ENOENT


def test_the_start_time_is_found_behind_a_name_with_brackets_and_spaces(in_child: Child) -> None:
    def named() -> tuple[int, str]:
        process.set_name(") 1 (2 3")
        return process.start_time(os.getpid()), Path("/proc/self/stat").read_text()

    ticks, stat = in_child(named)
    assert ") 1 (2 3" in stat
    assert ticks == int(stat.removeprefix(stat[: stat.rindex(")") + 2]).split()[19])
    assert ticks >= process.start_time(os.getpid()) > process.start_time(1) >= 0


def test_a_name_is_cut_to_what_the_kernel_keeps(in_child: Child) -> None:
    def named() -> str:
        process.set_name("minidocker-monitor")
        return Path("/proc/self/comm").read_text()

    assert in_child(named) == "minidocker-moni\n"


def test_descriptors_are_closed_but_those_to_keep(in_child: Child) -> None:
    def kept() -> tuple[list[bool], list[int]]:
        fds = [os.dup(0) for _ in range(12)]
        keep = [fds[3], fds[4], fds[9]]
        process.close_from(fds[2], keep=[*keep, 0])
        opened = []
        for fd in [*fds, 1]:
            try:
                os.fstat(fd)
                opened.append(fd)
            except OSError:
                continue
        return [fd in opened for fd in (fds[0], fds[1], 1)], sorted(set(opened) - {fds[0], fds[1], 1} ^ set(keep))

    assert in_child(kept) == ([True, True, True], [])


def test_a_sealed_copy_is_equal_and_nobody_can_change_it() -> None:
    memfd = process.sealed_memfd("copy", Path(sys.executable))
    try:
        with open(memfd, "rb", closefd=False) as copy:
            assert copy.read() == Path(sys.executable).read_bytes()
        for attempt in (
            lambda: os.pwrite(memfd, b"evil", 0),
            lambda: os.ftruncate(memfd, 0),
            lambda: os.ftruncate(memfd, 1 << 30),
        ):
            with pytest.raises(PermissionError):
                attempt()
        again = os.open(f"/proc/self/fd/{memfd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.write(again, b"evil")
        os.close(again)
    finally:
        os.close(memfd)


def test_a_sealed_copy_of_a_program_runs() -> None:
    memfd = process.sealed_memfd("true", Path("/bin/sh"))
    try:
        done = subprocess.run(
            ["sh", "-c", "readlink /proc/$$/exe"],
            executable=f"/proc/{os.getpid()}/fd/{memfd}",
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        os.close(memfd)
    assert done.stdout == "/memfd:true (deleted)\n"


def test_a_copy_of_what_is_not_there_names_it() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KernelError, match="ENOENT") as caught:
        process.sealed_memfd("copy", Path("/no/such/file"))
    assert caught.value.path == "/no/such/file"
    assert os.listdir("/proc/self/fd") == before


def test_no_new_privs_stays(in_child: Child) -> None:
    def privs() -> tuple[str, str]:
        before = _status("NoNewPrivs")
        process.set_no_new_privs()
        return before, _status("NoNewPrivs")

    assert in_child(privs) == ("0", "1")


@pytest.mark.needs_root
def test_a_process_that_is_not_dumpable_belongs_to_root_whoever_it_is(in_child: Child) -> None:
    def owners() -> tuple[int, int]:
        os.setuid(65534)
        process.set_dumpable(True)
        dumpable = os.stat("/proc/self/maps").st_uid
        process.set_dumpable(False)
        return dumpable, os.stat("/proc/self/maps").st_uid

    assert in_child(owners) == (65534, 0)


@pytest.mark.needs_root
def test_keep_caps_keeps_the_permitted_set_over_a_change_of_uid(in_child: Child) -> None:
    def capabilities(keep: bool) -> tuple[bool, bool]:
        process.set_keep_caps(keep)
        os.setuid(65534)
        return int(_status("CapPrm"), 16) != 0, int(_status("CapEff"), 16) != 0

    assert in_child(capabilities, True) == (True, False)
    assert in_child(capabilities, False) == (False, False)


def test_a_subreaper_becomes_the_parent_of_orphans(in_child: Child) -> None:
    def orphaned() -> bool:
        process.set_child_subreaper()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
            os.write(writer, str(grandchild).encode())
            os._exit(0)
        grandchild = int(os.read(reader, 20))
        os.waitpid(child, 0)
        parent = int(_status("PPid", grandchild))
        os.kill(grandchild, signal.SIGKILL)
        return parent == os.getpid() and os.waitpid(grandchild, 0)[0] == grandchild

    assert in_child(orphaned)


def test_the_parent_death_signal_comes_when_the_parent_ends(in_child: Child) -> None:
    def orphaned() -> int:
        process.set_child_subreaper()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                process.set_parent_death_signal(signal.SIGUSR1)
                os.write(writer, str(os.getpid()).encode())
                signal.pause()
            signal.pause()
        grandchild = int(os.read(reader, 20))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])

    assert in_child(orphaned) == -signal.SIGUSR1


def test_what_was_ignored_before_is_heeded(in_child: Child) -> None:
    def masks() -> list[object]:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, handler := lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        assert int(_status("SigBlk"), 16)
        process.heed_signals()
        ignored = {number for number in signal.valid_signals() if int(_status("SigIgn"), 16) >> number - 1 & 1}
        return [ignored == set(process.IGNORED_BY_PYTHON), int(_status("SigBlk"), 16), signal.getsignal(15) is handler]

    assert in_child(masks) == [True, 0, True]


def test_a_process_can_offer_itself_when_memory_is_short(in_child: Child) -> None:
    def score() -> str:
        process.set_oom_score_adj(777)
        return Path("/proc/self/oom_score_adj").read_text()

    assert in_child(score) == "777\n"
    with pytest.raises(KernelError, match="EINVAL"):
        process.set_oom_score_adj(1001)


def test_an_error_of_prctl_names_its_option() -> None:
    with pytest.raises(KernelError, match="prctl option 123456: EINVAL"):
        process.prctl(123456)
