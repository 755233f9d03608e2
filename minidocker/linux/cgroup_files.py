"""The small acts on control group directories: read, write, walk, kill, wait, remove.

Source  kernel Documentation/admin-guide/cgroup-v2.rst ("Basic Operations"), cgroup-v1/{cgroups,freezer-subsystem}.rst.
Rules   - a value is written by one write(2), whole.
        - a group may vanish between two looks: what is not there any more reads as empty and counts as removed.
        - version 2 notifies a poll on cgroup.events; version 1 notifies nobody, so only there do we look again.
"""

import errno
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping

from minidocker.errors import KernelError
from minidocker.linux.cgroup_statistics import table

_GONE = (errno.ENOENT, errno.ENODEV)
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.0005, 0.05


def read(file: str) -> str:
    """The whole file, "" where there is none, or its group has gone."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (*_GONE, errno.ENOTDIR):
            return ""
        raise KernelError("open", file, error.errno or 0) from error
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode()
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):  # EOPNOTSUPP: a threaded group lists no processes
            return ""
        raise KernelError("read", file, error.errno or 0) from error
    finally:
        os.close(fd)


def write(file: str, value: str, hints: Mapping[int, str] | None = None) -> None:
    """Write `value` to a file that is there already.

    hints   errno -> what may help, said with the error.
    Raises  KernelError: the kernel refuses the value, or the file is missing.
    """
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        hint = (hints or {}).get(error.errno or 0) or f"the value was {value!r}"
        raise KernelError("write", file, error.errno or 0, hint) from error


def walk(directory: str) -> Iterator[str]:
    """`directory` and every group below it, deepest first."""
    try:
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in _GONE:
            return
        raise KernelError("open", directory, error.errno or 0) from error
    for child in below:
        yield from walk(child)
    yield directory


def pids(directory: str) -> list[int]:
    """The processes of one group, as this pid namespace numbers them; those that it cannot see (0) are left out."""
    return [int(pid) for pid in read(f"{directory}/cgroup.procs").split() if pid != "0"]


def kill_below(directory: str) -> None:
    """SIGKILL for each process that is listed now, in the group and below it."""
    for group in walk(directory):
        for pid in pids(group):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in pids(group):  # so the pidfd holds the group's process, not a stranger who got its number
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(pidfd)


def mkdir(directory: str) -> bool:
    """Make one group; False if there is one already. Raises KernelError: ENOENT its parent is missing."""
    try:
        os.mkdir(directory)
    except FileExistsError:
        return False
    except OSError as error:
        raise KernelError("mkdir", directory, error.errno or 0) from error
    return True


def rmdir(directory: str) -> bool:
    """Remove one group. True: it is gone, or was not there. False: it has processes or children."""
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        if error.errno not in _GONE:
            raise KernelError("rmdir", directory, error.errno or 0) from error
    return True


def rmdir_below(directory: str) -> None:
    """Remove a group and all groups below it, deepest first. Raises KernelError: EBUSY one still has processes."""
    for group in walk(directory):
        if not rmdir(group):
            left = ", ".join(map(str, pids(group))) or "none that can be seen"
            raise KernelError("rmdir", group, errno.EBUSY, f"processes still in it: {left}")


def wait_event(directory: str, key: str, value: int, timeout_seconds: float) -> bool:
    """Wait until cgroup.events (version 2) says `key value`, or the group has gone. False: not within the time."""
    try:
        fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        end = time.monotonic() + timeout_seconds
        while True:
            # Read before each poll: a change between the two makes the poll return at once.
            reached = table(os.pread(fd, 4096, 0).decode()).get(key) == value
            left_ms = (end - time.monotonic()) * 1000
            if reached or left_ms <= 0:
                return reached
            poller.poll(left_ms)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return True
        raise KernelError("read", f"{directory}/cgroup.events", error.errno or 0) from error
    finally:
        os.close(fd)


def kill_until_empty(directory: str, timeout_seconds: float) -> None:
    """SIGKILL and look again until no process is listed in the group or below it, or the time is over."""
    for _ in _pauses(timeout_seconds):
        if not any(pids(group) for group in walk(directory)):
            return
        kill_below(directory)


def set_freezer(directory: str, state: str, timeout_seconds: float) -> bool:
    """Bring a version 1 freezer group to "FROZEN" or "THAWED". False: not within the time.

    It stays FREEZING when a process forks meanwhile; writing the state once more makes it go on.
    """
    for _ in _pauses(timeout_seconds):
        write(f"{directory}/freezer.state", state)
        if read(f"{directory}/freezer.state").strip() == state:
            return True
    return False


def _pauses(timeout_seconds: float) -> Iterator[None]:
    """Turns of a loop with growing pauses between them, until the time is over; the first comes at once."""
    pause, end = _SHORTEST_PAUSE_SECONDS, time.monotonic() + timeout_seconds
    yield
    while time.monotonic() < end:
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        yield
