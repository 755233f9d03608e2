"""Fork server: a small process, its imports done, that forks on request: nobody waits for an interpreter to start.

Source  fork(2), unix(7) on SCM_RIGHTS, pidfd_open(2); CVE-2019-5736. This is the client's side; the server's is
        forkserver_loop.py.
Rules   - the server is a fresh exec of a sealed copy of the interpreter, so that no container can write to the host's.
        - it ends at its socket's end of file, not by a parent-death signal, which fires when a client's THREAD ends.
        - each request gets one answer, each is one packet, and nothing else is on the socket: they cannot drift apart.

    client ── packet: where the request is, request, fds ──> server ── fork ──> child: run(request, fds)
           <───── packet: pid or -errno, message, pidfd ────
"""

import errno
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from minidocker.errors import InvalidArgument, KernelError, MinidockerError
from minidocker.linux import process
from minidocker.linux.forkserver_loop import ANSWER, ANSWER_LIMIT, IN_MEMFD, INLINE, INLINE_LIMIT, MAX_FDS

_ENOUGH_TO_END_SECONDS = 10
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How a server begins. Nothing of ours can be imported before sys.path is set, so this has to be on the command line.
_BOOT = "import sys; sys.path += sys.argv[5:]; from minidocker.linux.forkserver_loop import main; main(*sys.argv[2:5])"


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
        if len(fds) > MAX_FDS:
            raise InvalidArgument(f"{len(fds)} descriptors for one child of {self.name}, {MAX_FDS} is the limit")
        packet = INLINE + request
        if len(packet) <= INLINE_LIMIT:
            return self._exchange(packet, fds)
        try:
            memfd = os.memfd_create("request", os.MFD_CLOEXEC)
        except OSError as error:
            raise KernelError("memfd_create", "request", error.errno or 0) from error
        with open(memfd, "wb") as file:
            file.write(request)
            file.flush()
            return self._exchange(IN_MEMFD, [memfd, *fds])

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
                answer, received, _, _ = socket.recv_fds(self._socket, ANSWER_LIMIT, 1, socket.MSG_CMSG_CLOEXEC)
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
        (number,) = ANSWER.unpack_from(answer)
        if number > 0 and received:
            return ForkedProcess(number, received[0])
        if number > 0:
            raise KernelError("recvmsg", self.name, errno.EMFILE, "our limit of open files is reached")
        text = answer[ANSWER.size :].decode(errors="replace")
        if number == 0:
            raise InvalidArgument(f"{self.name} refused the request: {text}")
        raise KernelError("fork", self.name, -number, text)

    def _died(self) -> ForkServerDied:
        words = os.pread(self._last_words, 1 << 20, 0).decode(errors="replace").strip().split("\n")[-1]
        return ForkServerDied(f"{self.name} (pid {self.pid}) has ended{': ' if words else ''}{words}")


def _environment() -> dict[str, str]:
    """All that a server has: where its standard library is (argv[0] is no path to derive it from), and its encoding.

    LD_BIND_NOW: the linker's work is done once, before the first fork, not in each fork anew.
    """
    environment = {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}", "PATH": _PATH, "LANG": "C.UTF-8"}
    environment["LD_BIND_NOW"] = "1"
    library_directory = sysconfig.get_config_var("LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and library_directory:
        environment["LD_LIBRARY_PATH"] = library_directory  # a run path with $ORIGIN means nothing in a memfd
    return environment
