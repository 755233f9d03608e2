"""The monitor: one process a container (and one an exec) that owns its stdio, waits for its end and records it.

Source  DESIGN: "Processes"; pidfd_open(2), unix(7).
Rules   - forked from the launcher, imports nothing afterwards: its memory stays the launcher's pages.
        - the directory with a held lock, state.json and attach.sock exist before the command runs.
        - the log has everything before exit.json is there; exit.json is there before the monitor ends.
        - if the daemon goes away before `start`, the container is given up; afterwards it lives on without it.
"""

import os
import signal
import time
from pathlib import Path
from typing import Protocol

from minidocker.linux import process
from minidocker.runtime import records
from minidocker.runtime.attach import AttachServer
from minidocker.runtime.jsonlog import timestamp
from minidocker.runtime.loop import READ, Loop
from minidocker.runtime.records import Exit, State
from minidocker.runtime.stdio import Stdio, Streams
from minidocker.runtime.step import FAILED
from minidocker.runtime.sync import LOGGING_STEP, Channel, Message
from minidocker.runtime.syslog import LogUnreachable

_DRAIN_SECONDS = 2.0  # how long a process left behind may hold the output open after the command's end, as Docker


class Job(Protocol):
    """What is monitored: a container or an exec."""

    directory: Path
    streams: Streams

    def prepare(self) -> None:
        """Make what must exist before the fork."""

    def fork(self, channel: Channel, stdio: tuple[int, ...]) -> int:
        """Start the process that becomes the command; returns its pid."""

    def state(self, pid: int) -> State:
        """Its record."""

    def oom_kills_before(self) -> int:
        """What `oom_kills` is before the fork."""

    def oom_kills(self) -> int:
        """How often the kernel has killed in its control group for want of memory."""

    def ended(self) -> None:
        """Its first process has ended: what lives on must go, too."""

    def release(self) -> None:
        """It failed: undo `prepare`."""


class Monitor:
    """The life of one process, as its monitor sees it."""

    def __init__(self, job: Job, daemon: Channel) -> None:
        self._job = job
        self._daemon = daemon
        self._loop = Loop()
        self._pid = 0
        self._pidfd = -1
        self._executing = False  # the last message before execve has come
        self._started = False
        self._failure: Message | None = None
        self._status: int | None = None

    def run(self) -> None:
        """From fork to exit.json."""
        job = self._job
        lock = records.hold_lock(job.directory)
        try:
            job.prepare()
            self._stdio = Stdio(self._loop, job.streams)
            self._attach = AttachServer(self._loop, self._stdio, str(job.directory))
            self._channel, theirs = Channel.pair()
            self._oom_kills = job.oom_kills_before()
            self._pid = job.fork(theirs, self._stdio.child_ends)
            theirs.close()
        except LogUnreachable as error:
            self._fail(Message("error", step=LOGGING_STEP, text=str(error), exit_code=FAILED))
            return
        except Exception as error:
            self._fail(Message("error", step=type(error).__name__, text=str(error), exit_code=FAILED))
            return
        self._stdio.forked()
        self._watch()
        while self._status is None:
            self._loop.turn()
        self._finish()
        os.close(lock)

    def _watch(self) -> None:
        self._pidfd = process.pidfd_open(self._pid)
        self._loop.watch(self._channel.fileno(), READ, self._from_process)
        self._loop.watch(self._daemon.fileno(), READ, self._from_daemon)
        self._loop.watch(self._pidfd, READ, self._process_ended)

    def _from_process(self, _events: int) -> None:
        message, descriptors = self._channel.receive()
        if message is None:
            self._loop.forget(self._channel.fileno())
            if self._executing and self._failure is None:
                self._started = True
                self._daemon.send(Message("started", pid=self._pid))
                self._loop.forget(self._daemon.fileno())
            return
        if message.kind == "namespaces":
            self._record()
            self._daemon.send(Message("created", pid=self._pid))
        elif message.kind == "console":
            self._stdio.take_console(descriptors[0])
        elif message.kind == "exec":
            self._executing = True
        elif message.kind == "warning":
            self._daemon.send(message)
        elif message.kind == "error":
            self._failure = message

    def _record(self) -> None:
        directory = self._job.directory
        records.write(f"{directory}/pid", str(self._pid).encode())
        records.write(f"{directory}/state.json", self._job.state(self._pid))

    def _from_daemon(self, _events: int) -> None:
        message, _ = self._daemon.receive()
        if message is None:
            self._loop.forget(self._daemon.fileno())
            if not self._executing and not self._started:
                self._failure = Message("error", text="the daemon went away before the start", exit_code=FAILED)
                self._kill()
        elif message.kind == "start":
            self._channel.send(message)

    def _kill(self) -> None:
        try:
            process.pidfd_send(self._pidfd, signal.SIGKILL)
        except OSError:
            pass  # it has ended: that is noticed on its own

    def _process_ended(self, _events: int) -> None:
        while self._channel.fileno() in self._loop:  # what it said last comes first
            self._from_process(0)
        _, self._status = os.waitpid(self._pid, 0)
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)

    def _finish(self) -> None:
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        if not self._started and self._failure is None:
            why = f"it ended with {code} before the command was executed"
            self._failure = Message("error", text=why, exit_code=FAILED)
        oom_killed = self._job.oom_kills() > self._oom_kills
        self._job.ended()
        if self._failure is not None:
            self._fail(self._failure, oom_killed=oom_killed)
            return
        self._drain()
        self._stdio.finish()
        ended_by = -code if code < 0 else None
        exit_code = 128 + ended_by if ended_by else code
        records.write(
            f"{self._job.directory}/exit.json", Exit(exit_code, ended_by, oom_killed, timestamp(time.time_ns()))
        )
        self._attach.finish()

    def _drain(self) -> None:
        self._stdio.drain()
        end = time.monotonic() + _DRAIN_SECONDS
        while not self._stdio.ended and (left := end - time.monotonic()) > 0:
            self._loop.turn(int(left * 1000) + 1)
            self._stdio.drain()

    def _fail(self, failure: Message, *, oom_killed: bool = False) -> None:
        """The command never ran: undo everything, leave the reason, tell the daemon."""
        if self._pid and self._status is None:
            self._kill()
        self._job.release()
        text = f"{failure.step}: {failure.text}" if failure.step else failure.text
        exit_record = Exit(failure.exit_code, None, oom_killed, timestamp(time.time_ns()), text)
        records.write(f"{self._job.directory}/exit.json", exit_record)
        self._daemon.send(failure)
