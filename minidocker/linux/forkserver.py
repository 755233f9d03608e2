"""Fork server: a small process, its imports done, that forks on request: nobody waits for an interpreter to start.

Source  fork(2), unix(7) on SCM_RIGHTS, pidfd_open(2), prctl(2) PR_SET_CHILD_SUBREAPER; gc.freeze and
        signal.set_wakeup_fd in the Python library reference; CVE-2019-5736.
Rules   - the server has one thread: a fork of a process with more may copy a lock that nobody will ever release.
        - it is a fresh exec of a sealed copy of the interpreter, so that a container can't write to the host's python.
        - it ends at its socket's end of file, not by a parent-death signal, which fires when a client's THREAD ends.
        - each request gets one answer, each is one packet, and nothing else is on the socket: they cannot drift apart.
        - only the server reaps its children, and only between requests: the pid in an answer cannot be another's.

    client ── packet: where the request is, request, fds ──> server ── fork ──> child: run(request, fds)
           <───── packet: pid or -errno, message, pidfd ────
"""

import errno
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from minidocker.errors import InvalidArgument, KernelError, MinidockerError
from minidocker.linux import process

_INLINE, _IN_MEMFD = b"i", b"m"  # first byte of a request: it follows, or it is the first descriptor's content
_INLINE_LIMIT = 64 * 1024  # bytes; below what a socket takes by default (net.core.wmem_default)
_MAX_FDS = 250  # SCM_MAX_FD is 253
_ANSWER = struct.Struct("i")
_ANSWER_LIMIT = 4096
_ENOUGH_TO_END_SECONDS = 10
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How a server begins. Nothing of ours can be imported before sys.path is set, so this has to be on the command line.
_BOOT = "import sys; sys.path += sys.argv[5:]; from minidocker.linux.forkserver import main; main(*sys.argv[2:5])"


class ForkServerDied(MinidockerError):
    """The server has ended; nothing was forked, or it is not known what. Spawn another."""


class ForkedProcess(NamedTuple):
    """A child of the server, which reaps it; the caller may poll and signal the pidfd, and closes it."""

    pid: int
    pidfd: int


class ForkServer:
    """The client's side of a fork server. All methods may be called from any thread."""

    def __init__(self, name: str, server: subprocess.Popen[bytes], sock: socket.socket, last_words: int) -> None:
        self.name = name
        self.pid = server.pid
        self.pidfd = process.pidfd_open(server.pid)
        self._server = server
        self._socket = sock
        self._last_words = last_words
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def spawn(cls, name: str, entry: str, *, exec_root: Path, python_path: Sequence[str]) -> "ForkServer":
        """Start a server; returns at once, the first fork waits until it is up.

        name         its argv[0], which all its forks show in `ps`: "minidocker-launcher".
        entry        "module:function", called there as function(socket, exec_root): it imports what the forks need,
                     then calls `serve`.
        exec_root    named in its argv, so that `ps` tells whose server it is.
        python_path  where it may import from, besides the standard library and the place of this package.
        Raises       KernelError: no memory, no processes left, no sealed memfd.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            last_words = os.memfd_create(f"{name}-stderr", os.MFD_CLOEXEC)
            undo.callback(os.close, last_words)
            interpreter = process.sealed_memfd(name, Path("/proc/self/exe"))
            package_parent = str(Path(__file__).parents[2])
            paths = dict.fromkeys([package_parent, *(os.path.abspath(path) for path in python_path if path)])
            try:
                server = subprocess.Popen(
                    [name, "-sSPc", _BOOT, "--exec-root", str(exec_root), entry, str(theirs.fileno()), *paths],
                    # Our own descriptor by its path, so that the server inherits none of it.
                    executable=f"/proc/{os.getpid()}/fd/{interpreter}",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=last_words,  # only until the server is up: see main
                    cwd="/",
                    env=_environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a ^C in the client's terminal is not for the containers
                )
            except OSError as error:
                raise KernelError("execve", name, error.errno or 0, "cannot start the sealed interpreter") from error
            finally:
                os.close(interpreter)
            made = cls(name, server, ours, last_words)
            undo.pop_all()
            return made

    def fork(self, request: bytes, fds: Sequence[int] = ()) -> ForkedProcess:
        """Have the server fork a child that runs `request`, with copies of `fds` and no other descriptor but 0 to 2.

        request  any bytes; above 64 KiB they travel in a memfd.
        Raises   ForkServerDied: call `close` and spawn another;
                 KernelError: the request could not be sent, or the server could not fork (EAGAIN a limit of processes);
                 InvalidArgument: the server's `prepare` refused the request, which the text explains.
        """
        if len(fds) > _MAX_FDS:
            raise InvalidArgument(f"{len(fds)} descriptors for one child of {self.name}, {_MAX_FDS} is the limit")
        packet = _INLINE + request
        if len(packet) <= _INLINE_LIMIT:
            return self._exchange(packet, fds)
        try:
            memfd = os.memfd_create("request", os.MFD_CLOEXEC)
        except OSError as error:
            raise KernelError("memfd_create", "request", error.errno or 0) from error
        with open(memfd, "wb") as file:
            file.write(request)
            file.flush()
            return self._exchange(_IN_MEMFD, [memfd, *fds])

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and wait for it; what it forked lives on. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._socket.close()
        try:
            self._server.wait(_ENOUGH_TO_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        os.close(self.pidfd)
        os.close(self._last_words)

    def _exchange(self, packet: bytes, fds: Sequence[int]) -> ForkedProcess:
        with self._lock:
            if self._closed:
                raise ForkServerDied(f"{self.name} has been closed")
            sent = False
            try:
                socket.send_fds(self._socket, [packet], fds)
                sent = True
                answer, received, _, _ = socket.recv_fds(self._socket, _ANSWER_LIMIT, 1, socket.MSG_CMSG_CLOEXEC)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise self._died() from error
            except BaseException as error:
                if isinstance(error, OSError) and not sent:  # a bad descriptor, a limit: the server has seen nothing
                    raise KernelError("sendmsg", self.name, error.errno or 0) from error
                # A signal's exception came between question and answer: the next answer would be the wrong one.
                self._socket.shutdown(socket.SHUT_RDWR)
                raise
            if not answer:
                raise self._died()
        return self._read_answer(answer, received)

    def _read_answer(self, answer: bytes, received: list[int]) -> ForkedProcess:
        (number,) = _ANSWER.unpack_from(answer)
        if number > 0 and received:
            return ForkedProcess(number, received[0])
        if number > 0:
            raise KernelError("recvmsg", self.name, errno.EMFILE, "our limit of open files is reached")
        text = answer[_ANSWER.size :].decode(errors="replace")
        if number == 0:
            raise InvalidArgument(f"{self.name} refused the request: {text}")
        raise KernelError("fork", self.name, -number, text)

    def _died(self) -> ForkServerDied:
        words = os.pread(self._last_words, 1 << 20, 0).decode(errors="replace").strip().split("\n")[-1]
        return ForkServerDied(f"{self.name} (pid {self.pid}) has ended{': ' if words else ''}{words}")


def _environment() -> dict[str, str]:
    """All that a server has: where its standard library is (argv[0] is no path to derive it from), and its encoding."""
    environment = {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}", "PATH": _PATH, "LANG": "C.UTF-8"}
    library_directory = sysconfig.get_config_var("LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library_directory:
        environment["LD_LIBRARY_PATH"] = library_directory  # a run path with $ORIGIN means nothing in a memfd
    return environment


def main(exec_root: str, entry: str, fd: str) -> None:
    """What a spawned server runs: find the entry, take leave of standard error, call it."""
    sock = socket.socket(fileno=int(fd))
    os.set_inheritable(sock.fileno(), False)
    process.close_from(3, keep=[sock.fileno()])
    process.set_name(sys.orig_argv[0])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
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
        packet, fds, flags, _ = socket.recv_fds(sock, _INLINE_LIMIT, _MAX_FDS + 1, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        if flags & socket.MSG_CTRUNC:  # our limit of open files cut the list: a child must not run with half of it
            packet = b""
        answer, pidfd = _fork(packet, fds, run, prepare)
        try:
            socket.send_fds(sock, [answer[:_ANSWER_LIMIT]], pidfd)
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
        if packet[:1] == _IN_MEMFD:
            memfd = fds.pop(0)
            with open(memfd, "rb") as file:
                request = os.pread(memfd, os.fstat(file.fileno()).st_size, 0)
        if prepare is not None:
            try:
                prepare(request)
            except Exception as error:
                return _ANSWER.pack(0) + (str(error) or repr(error)).encode(), []
        pid = os.fork()
        if pid == 0:
            _child(request, fds, run)
        try:
            return _ANSWER.pack(pid), [os.pidfd_open(pid)]
        except OSError:
            os.kill(pid, signal.SIGKILL)  # a child that nobody could hold on to
            raise
    except OSError as error:
        return _failure(error.errno or errno.EAGAIN), []
    finally:
        for fd in fds:
            os.close(fd)


def _failure(number: int) -> bytes:
    return _ANSWER.pack(-number)


def _child(request: bytes, fds: list[int], run: Callable[[bytes, list[int]], None]) -> None:
    """Never returns: nothing of the server's loop may run twice."""
    status = 125
    try:
        signal.set_wakeup_fd(-1)  # the pipe is shared with the server: a byte from here would be its own
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.close_from(3, keep=fds)
        run(request, fds)
        status = 0
    except BaseException:
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
