"""Rehearsal: the launcher plays a container's life through a few times before its first fork, without a container.

Source  PEP 659 (the interpreter rewrites code while it runs, to make it faster); fork(2), copy-on-write.
Rules   - what a monitor's code makes the interpreter write (specialised code, caches of look-ups, what ctypes makes for
          a call) is written here, into pages that all monitors share, instead of in each of them into its own.
        - nothing of it is needed: where it cannot be done the launcher goes on without.
        - it runs while the launcher has one thread, and leaves no process, descriptor or file behind.
"""

import os
from pathlib import Path

from minidocker.linux import syscall
from minidocker.runtime.jsonlog import LogTarget
from minidocker.runtime.monitor import Monitor
from minidocker.runtime.records import State
from minidocker.runtime.stdio import Streams
from minidocker.runtime.sync import Channel, Message

_TIMES = 10  # CPython 3.11 and 3.12 specialise a function after eight calls
# What monitors and pid 1 call, with the number of arguments.
_CALLS = {
    "close_range": 3, "keyctl": 2, "mount": 5, "mount_setattr": 5, "move_mount": 5, "open_tree": 3, "openat2": 4,
    "pivot_root": 2, "prctl": 5, "seccomp": 3, "sethostname": 2, "setns": 2, "umount2": 2, "unshare": 1,
}  # fmt: skip


class _Rehearsed:
    """A job (see `monitor.Job`) whose process says what a pid 1 says, writes a line and ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.streams = Streams(log=LogTarget(str(directory / "log")))

    def prepare(self) -> None:
        pass

    def fork(self, channel: Channel, stdio: tuple[int, ...]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                channel.send(Message("namespaces"))
                channel.receive()
                channel.send(Message("mounted"))
                channel.send(Message("exec"))
                os.write(stdio[1], b"rehearsal\n")
            finally:
                os._exit(0)
        return pid

    def state(self, pid: int) -> State:
        return State("rehearsal", pid, 0, os.getpid(), 0)

    def oom_kills_before(self) -> int:
        return 0

    def oom_kills(self) -> int:
        return 0

    def ended(self) -> None:
        pass

    def release(self) -> None:
        pass


def rehearse(exec_root: Path) -> None:
    """Play it through. Only the launcher calls this, before it serves."""
    syscall.prepare(_CALLS)
    directory = exec_root / f"rehearsal-{os.getpid()}"
    try:
        directory.mkdir(parents=True, mode=0o700)
        for _ in range(_TIMES):
            _play(directory)
            for name in os.listdir(directory):
                os.unlink(directory / name)
        directory.rmdir()
    except OSError:
        pass  # no place for it


def _play(directory: Path) -> None:
    daemon, theirs = Channel.pair()
    daemon.send(Message("start"))
    Monitor(_Rehearsed(directory), theirs).run()
    daemon.close()
