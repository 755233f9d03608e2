"""Fork server, its own side: take a request, fork, answer. The client's side is forkserver.py.

Source  fork(2), unix(7) on SCM_RIGHTS, prctl(2) PR_SET_CHILD_SUBREAPER; gc.freeze and signal.set_wakeup_fd in the
        Python library reference.
Rules   - the server has one thread: a fork of a process with more may copy a lock that nobody will ever release.
        - what is imported here is in every fork. `threading` must not be (nor `subprocess`, which imports it): what it
          does after each fork would cost every child 0.4 MB of pages of its own and 0.2 ms.
        - only the server reaps its children, and only between requests: the pid in an answer cannot be another's.
"""

import errno
import gc
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from minidocker.linux import process

INLINE, IN_MEMFD = b"i", b"m"  # first byte of a request: it follows, or it is the first descriptor's content
INLINE_LIMIT = 64 * 1024  # bytes; below what a socket takes by default (net.core.wmem_default)
MAX_FDS = 250  # SCM_MAX_FD is 253
ANSWER = struct.Struct("i")
ANSWER_LIMIT = 4096  # bytes


def main(exec_root: str, entry: str, fd: str) -> None:
    """What a spawned server runs: find the entry, take leave of standard error, call it."""
    sock = socket.socket(fileno=int(fd))
    os.set_inheritable(sock.fileno(), False)
    process.close_from(3, keep=[sock.fileno()])
    process.set_name(sys.orig_argv[0])
    process.heed_signals()
    os.umask(0o022)
    module, _, function = entry.partition(":")
    call = getattr(import_module(module), function)
    os.dup2(1, 2)  # standard output is /dev/null; until here standard error was read by the client if we died
    call(sock, Path(exec_root))


def serve(
    sock: socket.socket,
    run: Callable[[bytes, list[int]], None],
    *,
    prepare: Callable[[bytes], object] | None = None,
) -> None:
    """Fork a child for each request that comes by `sock`; returns at its end of file.

    run      called in the child with the request and its descriptors; then the child ends, with 0, or 125 if it raised.
    prepare  called in the server before each fork, to load or keep what later children need too; if it raises, nothing
             is forked and the client gets the text.
    Changes  the caller: a subreaper, garbage frozen, a handler of SIGCHLD.
    """
    assert len(os.listdir("/proc/self/task")) == 1, "a fork server must have one thread"
    process.set_child_subreaper()
    gc.collect()
    gc.freeze()  # no collection writes to the pages of what exists now, so children go on sharing them
    wakeup, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # without a handler no wake-up byte is written
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    _reap()  # children that ended before there was a handler
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wakeup in ready:
            os.read(wakeup, 4096)  # before reaping: a child that ends meanwhile writes a new byte
            _reap()
        if sock.fileno() in ready and not _serve_one(sock, run, prepare):
            return


def _serve_one(
    sock: socket.socket, run: Callable[[bytes, list[int]], None], prepare: Callable[[bytes], object] | None
) -> bool:
    """Take one request, fork, answer; False at the end of file."""
    try:
        packet, fds, flags, _ = socket.recv_fds(sock, INLINE_LIMIT, MAX_FDS + 1, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        if flags & socket.MSG_CTRUNC:  # our limit of open files cut the list: a child must not run with half of it
            packet = b""
        answer, pidfd = _fork(packet, fds, run, prepare)
        try:
            socket.send_fds(sock, [answer[:ANSWER_LIMIT]], pidfd)
        finally:
            for fd in pidfd:
                os.close(fd)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _fork(
    packet: bytes, fds: list[int], run: Callable[[bytes, list[int]], None], prepare: Callable[[bytes], object] | None
) -> tuple[bytes, list[int]]:
    """The answer to a request, and the child's pidfd to send with it. An empty packet: its descriptors were lost."""
    try:
        if not packet:
            return _failure(errno.EMFILE), []
        request = packet[1:]
        if packet[:1] == IN_MEMFD:
            memfd = fds.pop(0)
            with open(memfd, "rb") as file:
                request = os.pread(memfd, os.fstat(file.fileno()).st_size, 0)
        if prepare is not None:
            try:
                prepare(request)
            except Exception as error:
                return ANSWER.pack(0) + (str(error) or repr(error)).encode(), []
        pid = os.fork()
        if pid == 0:
            _child(request, fds, run)
        try:
            return ANSWER.pack(pid), [os.pidfd_open(pid)]
        except OSError:
            os.kill(pid, signal.SIGKILL)  # a child that nobody could hold on to
            raise
    except OSError as error:
        return _failure(error.errno or errno.EAGAIN), []
    finally:
        for fd in fds:
            os.close(fd)


def _failure(number: int) -> bytes:
    return ANSWER.pack(-number)


def _child(request: bytes, fds: list[int], run: Callable[[bytes, list[int]], None]) -> None:
    """Never returns: nothing of the server's loop may run twice."""
    status = 125
    try:
        signal.set_wakeup_fd(-1)  # the pipe is shared with the server: a byte from here would be its own
        process.reset_signal(signal.SIGCHLD)
        process.close_from(3, keep=fds)
        run(request, fds)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()  # to /dev/null in a spawned server; `run` reports its errors itself
    finally:
        os._exit(status)


def _reap() -> None:
    """Wait for all children that have ended, our own and those that we inherited as a subreaper."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
