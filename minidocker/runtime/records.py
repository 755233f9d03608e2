"""What is on disk about a running process: its directory below the exec-root.

    <exec-root>/containers/<id>/   and   <exec-root>/execs/<id>/
        lock          flock held by the monitor while it lives
        state.json    who it is (State); pid: its pid alone
        attach.sock   see attach.py
        exit.json     how it ended (Exit), once it has
        cgroup        the control group's path, written before the group is made (containers alone)

Rules   - written aside and renamed: a reader sees a whole record or none. No fsync: the exec-root does not outlive a
          boot.
        - a pid counts only together with its start time and a held lock.
        - a monitor joins its paths as text: what it uses of pathlib becomes memory of its own.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from minidocker import typed
from minidocker.errors import KernelError
from minidocker.linux import process

CGROUP_NAME = "cgroup"


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """A process and its monitor. Start times in clock ticks since boot (proc_pid_stat(5)).

    container  for an exec: the ID of its container.
    cgroup     the control group, for a container.
    """

    id: str
    pid: int
    start_time: int
    monitor_pid: int
    monitor_start_time: int
    bundle: str = ""
    created: str = ""
    cgroup: str = ""
    container: str = ""


class Exit(msgspec.Struct, frozen=True):
    """How it ended. `code` as a shell counts it (128 + signal); `error`: why it never ran; `finished_at` RFC 3339."""

    code: int
    signal: int | None
    oom_killed: bool
    finished_at: str
    error: str | None = None


def state_of(pid: int, id: str, created: str, *, bundle: str = "", cgroup: str = "", container: str = "") -> State:
    """The record of process `pid`, by its monitor: the caller."""
    me = os.getpid()
    times = process.start_time(pid), process.start_time(me)
    return State(id, pid, times[0], me, times[1], bundle, created, cgroup, container)


T = TypeVar("T")


def write(path: Path | str, record: object) -> None:
    """Replace the record at `path`."""
    aside = f"{path}.new"
    content = record if isinstance(record, bytes) else msgspec.json.encode(record)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
    os.rename(aside, path)  # the true point at which the record exists


def read(path: Path, kind: type[T]) -> T | None:
    """The record at `path`; None if there is none."""
    try:
        return typed.decode(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # nothing of ours: ours are whole


def cgroup_of(directory: Path, state: State | None) -> str:
    """The path of its control group, also if its monitor died before it wrote state.json; "": it has none."""
    if state is not None:
        return state.cgroup
    try:
        return (directory / CGROUP_NAME).read_text()
    except FileNotFoundError:
        return ""


def hold_lock(directory: Path) -> int:
    """Take the lock of `directory` while the returned descriptor is open. Raises BlockingIOError: it is held."""
    fd = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_locked(directory: Path) -> bool:
    """True if a monitor holds the lock."""
    try:
        os.close(hold_lock(directory))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def wait_unlocked(directory: Path, seconds: float) -> None:
    """Return when no monitor holds the lock any more, or after `seconds`. Nothing tells of it, so this looks again."""
    end = time.monotonic() + seconds
    while is_locked(directory) and time.monotonic() < end:
        time.sleep(0.005)


def open_process(pid: int, start_time: int) -> int | None:
    """A pidfd of the process that started then, or None if it has ended (whoever may have its pid now)."""
    try:
        pidfd = process.pidfd_open(pid)
    except (KernelError, OverflowError):  # the latter: a number that no process can have
        return None
    try:
        if process.start_time(pid) == start_time:
            return pidfd
    except KernelError:
        pass
    os.close(pidfd)
    return None
