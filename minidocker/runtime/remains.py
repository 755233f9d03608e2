"""What is left of containers: found again by the next daemon, or removed, whatever state they were left in.

Source  DESIGN: "Processes"; flock(2), pidfd_open(2), cgroups(7).
Rules   - a container lives if its monitor holds the lock of its directory; nothing is believed of a pid alone.
        - what has no living monitor is made sure to be dead, by its control group, before anything else is done.
        - a control group is removed when its last process has ended, which is waited for, never guessed.
"""

import os
import select
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minidocker.errors import Conflict
from minidocker.linux import process
from minidocker.linux.cgroups import Cgroup, Hierarchies
from minidocker.runtime import records
from minidocker.runtime.records import Exit, State

_DYING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Adopted:
    """A container or an exec that an earlier daemon started.

    monitor_pidfd  of the living monitor, the caller's to close; None: it has ended
    exit           how it ended; None with no pidfd: the monitor died without a word, and what it left was killed
    container      for an exec: its container's ID, else ""
    """

    id: str
    pid: int
    monitor_pidfd: int | None
    exit: Exit | None
    container: str = ""
    state: State | None = None


def wait(pidfd: int, seconds: float | None = None) -> None:
    """Return when the process of `pidfd` has ended, or when the time is up."""
    poll = select.poll()  # not select(2), which knows no descriptor above 1023
    poll.register(pidfd, select.POLLIN)
    poll.poll(None if seconds is None else seconds * 1000)


@contextmanager
def until_end_of(state: State | None) -> Iterator[None]:
    """Kill it within this: leaving waits until its first process has ended. A dying one is in no group any more."""
    pidfd = records.open_process(state.pid, state.start_time) if state is not None else None
    yield
    if pidfd is not None:
        wait(pidfd, _DYING_SECONDS)
        os.close(pidfd)


def remove(directory: Path) -> None:
    """Remove a container's directory below the exec-root."""
    shutil.rmtree(directory, ignore_errors=True)


class Remains:
    """Finds, ends and removes what is left of containers and execs, each known by its directory."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies

    def adopt(self, exec_root: Path) -> list[Adopted]:
        """Everything that earlier daemons left below the exec-root, containers first.

        What has no living monitor any more is made sure to be dead: its control group is killed.
        """
        found: list[Adopted] = []
        for kind in ("containers", "execs"):
            parent = exec_root / kind
            found += [self._adopt(directory) for directory in sorted(parent.iterdir())] if parent.is_dir() else []
        return found

    def _adopt(self, directory: Path) -> Adopted:
        state = records.read(directory / "state.json", State)
        if records.is_locked(directory):
            pidfd = records.open_process(state.monitor_pid, state.monitor_start_time) if state is not None else None
            if pidfd is not None and state is not None:
                return Adopted(directory.name, state.pid, pidfd, None, state.container, state)
            # One that has not recorded itself yet: its daemon is gone, so it gives up. One that ends right now.
            records.wait_unlocked(directory, _DYING_SECONDS)
            state = records.read(directory / "state.json", State)
        exit_record = records.read(directory / "exit.json", Exit)
        if exit_record is None:
            self._kill(directory, state)
        if state is None:
            return Adopted(directory.name, 0, None, exit_record)
        return Adopted(directory.name, state.pid, None, exit_record, state.container, state)

    def forget(self, directory: Path) -> None:
        """Remove its processes if any, its control group, its directory. Raises Conflict: it runs."""
        state = records.read(directory / "state.json", State)
        if records.is_locked(directory) and not (directory / "exit.json").exists():
            raise Conflict(f"{directory.name} is running: kill it first")
        self._remove_group(directory, state)
        remove(directory)

    def clear(self, directory: Path) -> None:
        """After a start that failed: the monitor has undone its part, unless it was killed; then that is done here."""
        if not (directory / "exit.json").exists():
            state = records.read(directory / "state.json", State)
            self._kill(directory, state)
            self._remove_group(directory, state)
        remove(directory)

    def _kill(self, directory: Path, state: State | None) -> None:
        path = records.cgroup_of(directory, state)
        if path:
            group = Cgroup.open(path, self._hierarchies)
            if group.exists():
                group.kill()
        pidfd = records.open_process(state.pid, state.start_time) if state is not None else None
        if pidfd is not None:
            process.pidfd_send(pidfd, 9)
            os.close(pidfd)

    def _remove_group(self, directory: Path, state: State | None) -> None:
        path = records.cgroup_of(directory, state)
        if path:
            with until_end_of(state):
                Cgroup.open(path, self._hierarchies).remove()
