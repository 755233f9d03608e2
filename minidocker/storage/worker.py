"""The worker, seen from the daemon: unpacking and copying, each in a process of its own.

Source  DESIGN section 3; CVE-2018-15664 and CVE-2019-14271 for why files of strangers are handled in a chrooted child
        that loads nothing any more.
Rules   - the fork server behind it starts at the first use, ends when it was idle for a while (it holds 12 MB), and
          starts again for the next use (50 ms), also if it died.
        - at most two layers are unpacked at a time: more would only wait for the disk.
        - a call that fails or is interrupted kills its child and waits for its end before it returns, so the caller may
          remove what the child wrote.
        - to cancel, raise from `on_progress`, or close the pipe that a child writes to.
"""

import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

from minidocker.errors import Unavailable
from minidocker.linux import process
from minidocker.linux.forkserver import ForkedProcess, ForkServer, ForkServerDied
from minidocker.linux.rooted_paths import fd_path, open_beneath
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.storage import worker_protocol as protocol
from minidocker.storage.assembly import Put, Seen, encode
from minidocker.storage.copying import PathStat
from minidocker.storage.diff import Change
from minidocker.storage.worker_protocol import Bind, Place, Running, Stopped, Unpacked

__all__ = ["Bind", "Place", "Running", "Stopped", "Unpacked", "Worker", "main"]

T = TypeVar("T")
Progress = Callable[[int], object]
_UNPACKS_AT_A_TIME = 2
_IDLE_SECONDS = 3.0
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Worker:
    """Use from any thread. `close()` ends the fork server.

    exec_root     named in the processes' argv.
    python_path   where the worker may import libraries from.
    idle_seconds  how long the fork server stays after the last use.
    """

    def __init__(
        self, exec_root: Path, python_path: Sequence[str] = tuple(sys.path), *, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._exec_root = exec_root
        self._python_path = python_path
        self._idle_seconds = idle_seconds
        self._calls = 0  # under way: none may lose its server, with which it would end
        self._last_use = 0.0
        self._timer: threading.Timer | None = None
        self._server: ForkServer | None = None
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_UNPACKS_AT_A_TIME)

    @property
    def pid(self) -> int | None:
        """The fork server's, if it runs."""
        return self._server.pid if self._server else None

    def unpack(
        self,
        blob: Path,
        target: Path,
        *,
        name: str = "layer",
        media_type: str | None = None,
        diff_id: Digest | None = None,
        on_progress: Progress | None = None,
    ) -> Unpacked:
        """Unpack a layer into the directory `target`.

        name         of the layer in errors.
        diff_id      what the plain tar's digest must be; None: not checked.
        on_progress  called with the bytes of the blob that are done.
        Raises       VerificationError, Breakout, InvalidArgument (no valid layer), KernelError (ENOSPC, ...).
        """
        with self._slots, ExitStack() as scope:
            blob_fd = _opened(blob, os.O_RDONLY | os.O_CLOEXEC, scope)
            request = protocol.Unpack(name, media_type, diff_id)
            fds = [blob_fd, _opened(target, _DIRECTORY, scope)]
            with self._start(request, fds) as call:
                return call.result(Unpacked, on_progress)

    def extract(self, archive_fd: int, target: Path, *, owner: tuple[int, int] | None = None) -> None:
        """Extract an archive, compressed or not, into a directory of ours: a build context, for instance."""
        with ExitStack() as scope:
            self._ask(protocol.ExtractHere(owner), [archive_fd, _opened(target, _DIRECTORY, scope)], None)

    def diff(
        self, upper: Path, output: Callable[[bytes], object], *, compress: bool = False, hidden: Collection[str] = ()
    ) -> Digest:
        """The changes in `upper` as a layer, given to `output` in pieces; returns its diff ID.

        compress  True: as gzip, always the same bytes for the same changes.
        hidden    paths, without a leading slash, that are left out as long as they are empty: mount points.
        """
        with ExitStack() as scope:
            request = protocol.Diff(compress, tuple(hidden))
            return self._streamed(request, output, [_opened(upper, _DIRECTORY, scope)])

    def _streamed(
        self,
        request: protocol.Request,
        output: Callable[[bytes], object],
        before: Sequence[int],
        after: Sequence[int] = (),
    ) -> Digest:
        """A task that writes into a pipe, which stands between its other descriptors."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                call = self._start(request, [*before, write_end, *after])
            finally:
                os.close(write_end)
            with call:
                while piece := os.read(read_end, 1 << 20):
                    output(piece)
                return call.result(Digest, None)
        finally:
            os.close(read_end)

    def assemble(
        self,
        place: Stopped,
        plan: Sequence[Put],
        output: Callable[[bytes], object],
        *,
        archives: Sequence[int] = (),
        source: Stopped | None = None,
        mount_at: Path | None = None,
        compress: bool = False,
    ) -> Digest:
        """Carry out a plan in the empty upper directory of `place`; what it then holds is given as by `diff`.

        archives    the plain archives that the plan's members are in, by number.
        source      the layers that the plan's paths are in, to be mounted at `mount_at`, a directory of ours.
        Raises      as Assembler.put.
        """
        with ExitStack() as scope:
            request = protocol.Assemble(place, compress, source, str(mount_at or ""))
            described = scope.enter_context(TemporaryFile(buffering=0))
            described.write(encode(plan))
            described.seek(0)
            return self._streamed(request, output, [described.fileno()], archives)

    def look(self, place: Stopped, sources: Sequence[str]) -> list[list[Seen]]:
        """What the sources of a COPY --from are in the layers of `place`. Raises NotFound."""
        return self._ask(protocol.Look(place, tuple(sources)), (), list[list[Seen]])

    def changes(self, upper: Path, lowers: Sequence[Path]) -> list[Change]:
        """What `docker diff` lists. lowers: the layers' directories, TOP first."""
        with ExitStack() as scope:
            request = protocol.Changes(tuple(map(str, lowers)))
            return self._ask(request, [_opened(upper, _DIRECTORY, scope)], list[Change])

    def export(self, place: Place, output_fd: int) -> None:
        """The container's whole tree without volumes, as tar, into a descriptor."""
        self._ask(protocol.Export(place), [output_fd, *_pidfd(place)], None)

    def path_stat(self, place: Place, path: str) -> PathStat:
        """Raises NotFound."""
        return self._ask(protocol.Stat(place, path), _pidfd(place), PathStat)

    def read_text(self, place: Place, path: str, limit_bytes: int) -> str:
        """The text of a regular file, "" if there is none at `path`. Raises InvalidArgument: it is too large."""
        return self._ask(protocol.Read(place, path, limit_bytes), _pidfd(place), str)

    def archive_get(self, place: Place, path: str, output_fd: int) -> None:
        """`path` and all below it as tar, into a descriptor. Raises NotFound."""
        self._ask(protocol.Get(place, path), [output_fd, *_pidfd(place)], None)

    def archive_put(
        self,
        place: Place,
        path: str,
        archive_fd: int,
        *,
        owner: tuple[int, int] | None = None,
        keep_kind: bool = False,
        create: bool = False,
    ) -> None:
        """Extract the archive that `archive_fd` gives, compressed or not, into the directory `path`.

        owner      (uid, gid) for all of it; None: as the archive says.
        keep_kind  a directory and something else never replace each other.
        create     make `path` if it is missing.
        Raises     NotFound, InvalidArgument, Forbidden (a read-only root or volume), Conflict (keep_kind), Breakout,
                   KernelError (EROFS, ENOSPC).
        """
        request = protocol.Extract(place, path, owner, keep_kind, create)
        self._ask(request, [archive_fd, *_pidfd(place)], None)

    def copy_up(self, place: Place, path: str, volume: Path, subpath: str = "") -> None:
        """Fill an empty volume with what the image has at `path`: owner and mode of the directory, and all in it.

        subpath  of the volume, inside it whatever links are there. Raises KernelError: it is not there, or leads out.
        """
        with ExitStack() as scope:
            volume_fd = open_beneath(volume, subpath or ".", os.O_PATH)
            scope.callback(os.close, volume_fd)
            if not stat.S_ISDIR(os.fstat(volume_fd).st_mode) or os.listdir(fd_path(volume_fd)):
                return
            fds = [volume_fd, *_pidfd(place)]
            self._ask(protocol.CopyUp(place, path), fds, None)

    def close(self) -> None:
        """End the fork server, if it runs."""
        with self._lock:
            server, self._server = self._server, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if server is not None:
            server.close()

    def _begin(self) -> None:
        with self._lock:
            self._calls += 1

    def _end(self) -> None:
        with self._lock:
            self._calls -= 1
            self._last_use = time.monotonic()
            if not self._calls and self._server is not None and self._timer is None:
                self._look_again_in(self._idle_seconds)

    def _look_again_in(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._end_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _end_if_idle(self) -> None:
        with self._lock:
            self._timer = None
            if self._calls or self._server is None:
                return  # the end of the last call sets a new timer
            left = self._last_use + self._idle_seconds - time.monotonic()
            if left > 0:
                self._look_again_in(left)
                return
            server, self._server = self._server, None
        server.close()

    def _ask(self, request: protocol.Request, fds: Sequence[int], kind: type[T] | None) -> T:
        with self._start(request, fds) as call:
            return call.result(kind, None)

    def _start(self, request: protocol.Request, fds: Sequence[int]) -> "_Call":
        ours, theirs = socket.socketpair()
        self._begin()
        try:
            forked = self._fork(codec.encode(request), [theirs.fileno(), *fds])
        except BaseException:
            ours.close()
            self._end()
            raise
        finally:
            theirs.close()
        return _Call(forked, ours, self._end)

    def _fork(self, request: bytes, fds: Sequence[int]) -> ForkedProcess:
        for attempt in range(2):
            server = self._running()
            try:
                return server.fork(request, fds)
            except ForkServerDied:
                with self._lock:
                    if self._server is server:
                        self._server = None
                server.close()
                if attempt:
                    raise
        raise AssertionError("unreachable")

    def _running(self) -> ForkServer:
        with self._lock:
            if self._server is None:
                self._server = ForkServer.spawn(
                    "minidocker-worker",
                    "minidocker.storage.worker:main",
                    exec_root=self._exec_root,
                    python_path=self._python_path,
                )
            return self._server


class _Call:
    """One child at work. Leaving the context ends it, whatever it is doing, and waits for that."""

    def __init__(self, forked: ForkedProcess, channel: socket.socket, ended: Callable[[], None]) -> None:
        self._forked = forked
        self._channel = channel
        self._ended = ended

    def __enter__(self) -> "_Call":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        try:
            process.pidfd_send(self._forked.pidfd, signal.SIGKILL)
        except OSError:
            pass  # it has ended already
        poll = select.poll()
        poll.register(self._forked.pidfd, select.POLLIN)
        poll.poll()
        os.close(self._forked.pidfd)
        self._ended()

    def result(self, kind: type[T] | None, on_progress: Progress | None) -> T:
        """Wait for the answer. Raises what the child raised; Unavailable: it was killed."""
        with self._channel.makefile("rb") as lines:
            for text in lines:
                answer = codec.decode(text, protocol.Answer, "answer of the storage worker")
                if answer.failure is not None:
                    raise protocol.revive(answer.failure)
                if answer.result != protocol.NO_RESULT:
                    found: Any = codec.decode(bytes(answer.result), kind or type(None), "answer of the storage worker")
                    return found  # type: ignore[no-any-return]
                if on_progress is not None and answer.progress is not None:
                    on_progress(answer.progress)
        raise Unavailable("the storage worker was killed in the middle of its work (out of memory?); try again")


def _opened(path: Path, flags: int, scope: ExitStack) -> int:
    fd = os.open(path, flags)
    scope.callback(os.close, fd)
    return fd


def _pidfd(place: Place) -> list[int]:
    return [place.pidfd] if isinstance(place, Running) else []


def main(sock: socket.socket, exec_root: Path) -> None:
    """The fork server's entry: everything that a child needs is imported before the first fork."""
    from minidocker.linux import forkserver_loop
    from minidocker.storage import worker_tasks

    forkserver_loop.serve(sock, worker_tasks.run)
