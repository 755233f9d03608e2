"""A console of our own for `run` and `exec` in the foreground: the caller's terminal and the container's pty, joined.

Source  pty(7), termios(3), signal(7).
Rules   - the caller's terminal is raw meanwhile and always set back.
        - signals that we get are the command's to handle; a new window size is passed on.
"""

import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import termios
import tty
from pathlib import Path

from minidocker.errors import KernelError
from minidocker.linux import terminal

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_CHUNK_BYTES = 64 << 10


class Console:
    """Where a container's console goes: the caller's socket, or with `wanted` one of our own."""

    def __init__(self, given: Path | None, *, wanted: bool) -> None:
        self.path = given
        self._directory: str | None = None
        self._listener: socket.socket | None = None
        if given is None and wanted:
            self._directory = tempfile.mkdtemp(prefix="minidocker-console-")
            self.path = Path(self._directory) / "socket"
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._listener.bind(str(self.path))
            self._listener.listen(1)

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._directory is not None:
            shutil.rmtree(self._directory)

    def wait(self, pid: int) -> int:
        """Carry bytes and signals until our child `pid` ends. Returns its exit code, as a shell counts."""
        for number in _FORWARDED:
            signal.signal(number, lambda got, _frame: _forward(pid, got))
        master = self._take_master()
        if master is not None:
            _join(master, pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return 128 - code if code < 0 else code

    def _take_master(self) -> int | None:
        """The pty's master, if the container has one and has sent it to us."""
        if self._listener is None:
            return None
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return None
        connection.setblocking(True)
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        return descriptors[0] if descriptors else None


def _forward(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _join(master: int, pid: int) -> None:
    """Copy both ways until the pty ends or the process does."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin) if os.isatty(stdin) else None
    if before is not None:
        tty.setraw(stdin)
        _pass_size(stdin, master)
        signal.signal(signal.SIGWINCH, lambda _got, _frame: _pass_size(stdin, master))
    pidfd = os.pidfd_open(pid)
    try:
        _copy(stdin, master, pidfd)
    finally:
        os.close(pidfd)
        os.close(master)
        if before is not None:
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _pass_size(source: int, target: int) -> None:
    try:
        terminal.set_window_size(target, *terminal.window_size(source))
    except KernelError:
        pass  # not a terminal any more


def _copy(stdin: int, master: int, pidfd: int) -> None:
    poll = select.poll()
    for fd in (stdin, master, pidfd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if master in ready:
            try:
                chunk = os.read(master, _CHUNK_BYTES)
            except OSError:  # EIO: the last slave was closed
                return
            os.write(sys.stdout.fileno(), chunk)
        elif pidfd in ready:
            return
        if stdin in ready:
            chunk = os.read(stdin, _CHUNK_BYTES)
            if chunk:
                os.write(master, chunk)
            else:
                poll.unregister(stdin)
