"""Processes: references that cannot go stale (pidfds), traits set by prctl, descriptors, programs that nobody changes.

Source  pidfd_open(2), pidfd_send_signal(2), prctl(2), close_range(2), memfd_create(2), fcntl(2) "File Sealing",
        proc_pid_stat(5), signal(7).
Rules   - a pid may be given to another process once its own is reaped; a pidfd never is. Hold a pidfd, or compare
          `start_time`.
        - a pidfd is readable (poll) from the end of its process on.
        - the parent-death signal is cleared by a change of uid and by a set-uid execve; it fires when the THREAD that
          forked ends.
        - a program to be run in a container's namespaces is run from a sealed memfd, else root in there could write to
          it through /proc/PID/exe (CVE-2019-5736).
"""

import _signal  # type: ignore[import-not-found]  # see reset_signal
import errno
import fcntl
import os
import signal as signals
from collections.abc import Collection
from pathlib import Path

from minidocker.errors import KernelError
from minidocker.linux.syscall import c_string, syscall

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_MAX_FD = 0xFFFFFFFF
_MFD_EXEC = 0x10  # Linux 6.3: say that we mean to execute it, else sysctl vm.memfd_noexec may forbid it
_CATCHABLE = tuple(int(number) for number in signals.valid_signals() - {signals.SIGKILL, signals.SIGSTOP})
IGNORED_BY_PYTHON = (signals.SIGPIPE, signals.SIGXFSZ)
"""A program that is no Python program expects these to have their default action."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def pidfd_open(pid: int) -> int:
    """A descriptor (close-on-exec) that stands for process `pid`, of which the caller should know that it still lives.

    Raises  KernelError: ESRCH no such process.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise KernelError("pidfd_open", f"pid {pid}", error.errno or 0) from error


def pidfd_send(pidfd: int, signal: int) -> None:
    """Send `signal` to exactly the process of `pidfd`; 0 only asks whether it may be done.

    Raises  KernelError: ESRCH it has ended, EPERM not ours to signal.
    """
    try:
        signals.pidfd_send_signal(pidfd, signal)
    except OSError as error:
        raise KernelError("pidfd_send_signal", f"signal {signal}", error.errno or 0) from error


def prctl(option: int, *values: int | bytes, subject: object = None, hint: str = "") -> int:
    """prctl(2) with the unused of its five arguments zero, as most options demand.

    subject  what an error should name.
    Raises   KernelError, as the option's own page says.
    """
    padded = values + (0,) * (4 - len(values))
    return syscall("prctl", option, *padded, path=subject if subject is not None else f"option {option}", hint=hint)


def set_child_subreaper() -> None:
    """Make the caller the parent of descendants whose parent ends; it must reap them. Children do not inherit it."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send the caller `signal` when the thread that forked it ends; 0 undoes it.

    If the parent ended before the call no signal comes: compare os.getppid() afterwards.
    """
    prctl(_PR_SET_PDEATHSIG, signal)


def set_dumpable(dumpable: bool) -> None:
    """False: until execve no core dump, no ptrace, and /proc/PID belongs to root of the first user namespace."""
    prctl(_PR_SET_DUMPABLE, int(dumpable))


def set_no_new_privs() -> None:
    """For ever, and in all children: execve gives no privilege, set-uid bits and file capabilities do nothing."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_name(name: str) -> None:
    """Name the calling thread as `ps -o comm` shows it; cut to 15 bytes."""
    prctl(_PR_SET_NAME, c_string(name)[:15])


def reset_signal(number: int) -> None:
    """The signal's default action.

    By what is beneath `signal.signal`, which looks for the enum's member that the old handler is: in a fresh fork that
    takes 0.2 ms, and 0.3 MB of pages are no longer shared.
    """
    if _signal.getsignal(number) != _signal.SIG_DFL:
        _signal.signal(number, _signal.SIG_DFL)


def heed_signals() -> None:
    """No signal ignored but those that Python itself ignores, none blocked: for a server whose children run programs.

    An ignored signal stays so over fork and execve: a shell ignores SIGINT and SIGQUIT in what it starts in the
    background, and nohup SIGHUP.
    Source  signal(7), "Signal dispositions"; execve(2); POSIX shell, "Asynchronous Lists".
    """
    for number in _CATCHABLE:
        if number not in IGNORED_BY_PYTHON and _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())


def set_keep_caps(keep: bool) -> None:
    """True: a change from uid 0 to others keeps the permitted capabilities (the effective are lost). Until execve."""
    prctl(_PR_SET_KEEPCAPS, int(keep))


def close_from(first_fd: int, *, keep: Collection[int] = ()) -> None:
    """Close every descriptor from `first_fd` up but those of `keep`, as few calls as there are gaps between them."""
    start = first_fd
    for kept in sorted(fd for fd in set(keep) if fd >= first_fd):
        if kept > start:
            syscall("close_range", start, kept - 1, 0, path=f"fds {start} to {kept - 1}")
        start = kept + 1
    syscall("close_range", start, _MAX_FD, 0, path=f"fds from {start}")


def sealed_memfd(name: str, content: Path) -> int:
    """A descriptor of an unnamed file in memory with the bytes of `content`, which no process can change any more.

    name    shown as /memfd:NAME in /proc/PID/exe; up to 249 bytes.
    Raises  KernelError: the file cannot be read, or this kernel seals no memfds.
    Source  memfd_create(2), fcntl(2) F_ADD_SEALS.
    """
    try:
        memfd = _memfd(name)
    except OSError as error:
        raise KernelError("memfd_create", name, error.errno or 0) from error
    try:
        with open(content, "rb", buffering=0) as source:
            while os.sendfile(memfd, source.fileno(), None, 1 << 30):
                pass
        os.lseek(memfd, 0, os.SEEK_SET)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(memfd)
        raise KernelError("sealed copy of", content, error.errno or 0) from error
    return memfd


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a kernel before 6.3
            raise
        return os.memfd_create(name, flags)


def start_time(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: pid and start time together name a process for one boot.

    Raises  KernelError: ENOENT or ESRCH no such process.
    Source  proc_pid_stat(5), field 22.
    """
    path = f"/proc/{pid}/stat"
    try:
        with open(path, "rb") as stat:
            text = stat.read()
    except OSError as error:
        raise KernelError("read", path, error.errno or 0) from error
    # Field 2 is the name in brackets, which may hold spaces and brackets itself: count from the last bracket on.
    return int(text[text.rindex(b")") + 2 :].split(b" ")[22 - 3])


def set_oom_score_adj(score: int) -> None:
    """How willingly the kernel kills the caller when memory is short: -1000 never to 1000 first.

    Raises  KernelError: EACCES lowering it needs CAP_SYS_RESOURCE, EINVAL out of range.
    Source  proc_pid_oom_score_adj(5).
    """
    path = "/proc/self/oom_score_adj"
    try:
        with open(path, "w") as file:
            file.write(str(score))
    except OSError as error:
        hint = "lowering it needs CAP_SYS_RESOURCE" if error.errno == errno.EACCES else ""
        raise KernelError("write", path, error.errno or 0, hint) from error
