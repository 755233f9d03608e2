"""Namespaces: made by unshare, entered by setns, told apart by inode."""

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import namespaces, process
from minidocker.linux.namespaces import KINDS, PROC_NAME, CloneFlag
from minidocker.linux.syscall import syscall

pytestmark = pytest.mark.needs_root
Child = Callable[..., Any]

AT_ONCE = ("mount", "cgroup", "uts", "ipc", "user", "network")
FOR_CHILDREN = ("pid", "time")


def _all_inodes() -> dict[str, int]:
    return {kind: namespaces.inode(kind) for kind in KINDS}


def test_the_names_are_those_of_proc() -> None:
    assert set(PROC_NAME) == set(KINDS)
    assert set(PROC_NAME.values()) <= set(os.listdir("/proc/self/ns"))


@pytest.mark.parametrize("kind", AT_ONCE)
def test_unshare_gives_the_caller_another_namespace_of_that_kind_only(kind: str, in_child: Child) -> None:
    before = _all_inodes()

    def unshared() -> dict[str, int]:
        namespaces.unshare(KINDS[kind])
        return _all_inodes()

    after = in_child(unshared)
    assert {other for other in KINDS if after[other] != before[other]} == {kind}
    assert _all_inodes() == before


@pytest.mark.parametrize("kind", FOR_CHILDREN)
def test_a_new_pid_or_time_namespace_is_for_later_children(kind: str, in_child: Child) -> None:
    def unshared() -> tuple[int, int]:
        namespaces.unshare(KINDS[kind])
        pid = os.fork()
        if pid == 0:
            signal.pause()
        own, childs = namespaces.inode(kind), namespaces.inode(kind, pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return own, childs

    own, childs = in_child(unshared)
    assert own == namespaces.inode(kind)
    assert childs != own


def test_the_first_child_of_a_new_pid_namespace_is_pid_1(in_child: Child) -> None:
    def unshared() -> int:
        namespaces.unshare(CloneFlag.NEWPID)
        pid = os.fork()
        if pid == 0:
            os._exit(os.getpid())
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(unshared) == 1


def test_setns_on_a_namespace_file_goes_back(in_child: Child) -> None:
    def there_and_back() -> tuple[str, str]:
        fd = os.open(namespaces.path("uts"), os.O_RDONLY)
        namespaces.unshare(CloneFlag.NEWUTS)
        syscall("sethostname", b"elsewhere", 9)
        elsewhere = os.uname().nodename
        namespaces.setns(fd, CloneFlag.NEWUTS)
        return elsewhere, os.uname().nodename

    assert in_child(there_and_back) == ("elsewhere", os.uname().nodename)


def test_setns_on_a_pidfd_enters_several_namespaces_at_once(in_child: Child) -> None:
    kinds = ("mount", "uts", "ipc", "network")
    flags = CloneFlag.NEWNS | CloneFlag.NEWUTS | CloneFlag.NEWIPC | CloneFlag.NEWNET
    ready, unshared = os.pipe()
    pid = os.fork()
    if pid == 0:
        namespaces.unshare(flags)
        os.write(unshared, b"1")
        signal.pause()
        os._exit(0)
    try:
        os.read(ready, 1)
        theirs = {kind: namespaces.inode(kind, pid) for kind in kinds}

        def entered() -> dict[str, int]:
            namespaces.setns(process.pidfd_open(pid), flags)
            return {kind: namespaces.inode(kind) for kind in kinds}

        assert in_child(entered) == theirs
        assert all(theirs[kind] != namespaces.inode(kind) for kind in kinds)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(unshared)


def test_setns_refuses_a_file_of_another_kind(in_child: Child) -> None:
    def wrong() -> int | None:
        with pytest.raises(KernelError) as caught:
            namespaces.setns(os.open(namespaces.path("uts"), os.O_RDONLY), CloneFlag.NEWNET)
        assert "network" in str(caught.value)
        return caught.value.errno

    assert in_child(wrong) == errno.EINVAL


def test_without_privilege_unshare_says_what_is_needed(in_child: Child) -> None:
    def unprivileged() -> str:
        os.setuid(65534)
        with pytest.raises(KernelError) as caught:
            namespaces.unshare(CloneFlag.NEWNET | CloneFlag.NEWUTS)
        return str(caught.value)

    text = in_child(unprivileged)
    assert text.startswith("unshare uts+network: EPERM")
    assert "CAP_SYS_ADMIN" in text


def test_an_unknown_kind_and_a_process_that_is_not_there_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown kind of namespace 'net'"):
        namespaces.inode("net")
    with pytest.raises(KernelError) as caught:
        namespaces.inode("mount", 2**22)
    assert caught.value.errno == errno.ENOENT
