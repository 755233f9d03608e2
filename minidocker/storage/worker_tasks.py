"""The worker's children: one task each, confined to the tree that it works on.

Source  chroot(2); CVE-2019-14271 (code loaded from inside a chroot ran as root of the host).
Rules   - everything is imported before chroot; afterwards the import system is switched off, and nothing here asks for
          users, groups or host names, for which glibc would load a library from the image.
        - a child is single-use and ends with its server: by parent-death signal, its parent having one thread.
"""

import contextlib
import errno
import hashlib
import os
import resource
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from typing import Any, TypeVar

from isal import isal_zlib

from minidocker.errors import InvalidArgument, KernelError, NotFound, Unavailable, VerificationError
from minidocker.linux import namespaces, process, trees
from minidocker.linux.mounts import (
    Mount,
    MountFlag,
    mkdirs_in_root,
    mountinfo,
    open_in_root,
    set_propagation,
    unmount,
)
from minidocker.linux.namespaces import CloneFlag
from minidocker.linux.rooted_paths import open_beneath
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.storage import assembly, copying, diff, overlay
from minidocker.storage import worker_protocol as protocol
from minidocker.storage.compression import decompress
from minidocker.storage.extract import Extractor
from minidocker.storage.streams import ByteStream, read_ahead
from minidocker.storage.tar import FILE, TarReader
from minidocker.storage.walk import data_of, walk

_TRAILING_LIMIT_BYTES = 64 << 20  # after the archive's end; more is no padding but a bomb
_PROGRESS_BYTES = 512 << 10
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Report = Callable[[int], None]
T = TypeVar("T")
_MADE_UP = frozenset(
    ["proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "pstore"]
)


def run(message: bytes, fds: list[int]) -> None:
    """What a fork does: the task, then its result or error into the channel."""
    channel = socket.socket(fileno=fds[0])
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        process.set_name("minidocker-work")
        os.umask(0)
        _raise_descriptor_limit()
        request: protocol.Request = codec.decode(message, protocol.Request, "request")  # type: ignore[arg-type]

        def report(done: int) -> None:
            channel.sendall(protocol.line(protocol.Answer(progress=done)))

        result = _TASKS[type(request)](request, fds[1:], report)
        answer = b'{"result":' + codec.encode(result) + b"}\n"
    except BaseException as error:
        answer = protocol.line(protocol.Answer(failure=protocol.describe(error)))
    channel.sendall(answer)


def _raise_descriptor_limit() -> None:
    """Deep trees take one descriptor a level."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def confine(root_fd: int) -> int:
    """Make the directory `root_fd` this process's root for good and switch imports off; returns a descriptor of it."""
    os.fchdir(root_fd)
    os.chroot(".")
    sys.path.clear()
    sys.path_hooks.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder"]
    return os.open("/", _DIRECTORY)


def _unpack(request: protocol.Unpack, fds: list[int], report: Report) -> protocol.Unpacked:
    blob_fd, target_fd = fds
    root = confine(target_fd)
    hasher = hashlib.sha256()
    source = _Counting(blob_fd, report)
    pieces = _hashed(decompress(source, request.media_type, name=request.name), hasher)
    stream = ByteStream(read_ahead(pieces))
    with Extractor(root, layer=True) as extractor:
        extractor.extract(TarReader(stream))
    if stream.drain(_TRAILING_LIMIT_BYTES) > _TRAILING_LIMIT_BYTES:
        raise InvalidArgument(f"{request.name}: more than {_TRAILING_LIMIT_BYTES} bytes follow the end of the archive")
    found = Digest.finish(hasher)
    if request.diff_id is not None and found != request.diff_id:
        raise VerificationError(f"{request.name} unpacks to {found}, but its image says {request.diff_id}")
    return protocol.Unpacked(found, extractor.size)


class _Counting(FileIO):
    """The blob, with reports on how much of it was read."""

    def __init__(self, fd: int, report: Report) -> None:
        super().__init__(fd, "rb")
        self._report = report
        self._done = self._reported = 0

    def read(self, count: int | None = -1, /) -> bytes:
        piece = super().read(-1 if count is None else count) or b""
        self._done += len(piece)
        if self._done - self._reported >= _PROGRESS_BYTES or (not piece and self._done != self._reported):
            self._report(self._done)
            self._reported = self._done
        return piece


def _hashed(pieces: Iterator[bytes], hasher: "hashlib._Hash") -> Iterator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece


def _archive(fd: int) -> TarReader:
    return TarReader(ByteStream(decompress(FileIO(fd, "rb"), name="archive")))


def _extract_here(request: protocol.ExtractHere, fds: list[int], _: Report) -> None:
    archive_fd, target_fd = fds
    with Extractor(confine(target_fd), owner=request.owner) as extractor:
        extractor.extract(_archive(archive_fd))


def _extract(request: protocol.Extract, fds: list[int], _: Report) -> None:
    root = confine(_enter(request.place, fds[1:]))
    if request.create:
        os.close(mkdirs_in_root(root, request.path))
    reader = _archive(fds[0])
    copying.put(root, request.path, reader, owner=request.owner, keep_kind=request.keep_kind)


def _diff(request: protocol.Diff, fds: list[int], _: Report) -> Digest:
    upper_fd, output_fd = fds
    root = confine(upper_fd)
    output = _Output(output_fd, compress=request.compress)
    diff.write_layer(root, output.write, hidden=frozenset(request.hidden))
    return output.finish()


class _Output:
    """Collects small writes, hashes the plain bytes, compresses them if asked to, and writes them to a descriptor."""

    def __init__(self, fd: int, *, compress: bool = False) -> None:
        self._fd = fd
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        self._gzip = _Gzip() if compress else None

    def write(self, piece: bytes | memoryview) -> None:
        self._waiting += piece
        if len(self._waiting) >= 1 << 20:
            self._flush()

    def _flush(self) -> None:
        plain = bytes(self._waiting)
        self._waiting.clear()
        self._hash.update(plain)
        _write_all(self._fd, self._gzip.add(plain) if self._gzip else plain)

    def finish(self) -> Digest:
        self._flush()
        if self._gzip:
            _write_all(self._fd, self._gzip.finish())
        os.close(self._fd)
        return Digest.finish(self._hash)


class _Gzip:
    """gzip without time and name: the same bytes for the same content, always."""

    def __init__(self) -> None:
        self._compressor = isal_zlib.compressobj(level=1, wbits=31)

    def add(self, plain: bytes) -> bytes:
        return bytes(self._compressor.compress(plain))

    def finish(self) -> bytes:
        return bytes(self._compressor.flush())


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _changes(request: protocol.Changes, fds: list[int], _: Report) -> list[diff.Change]:
    upper = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[0])
    return diff.changes(upper, [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in request.lowers])


def _get(request: protocol.Get, fds: list[int], _: Report) -> None:
    root = confine(_enter(request.place, fds[1:]))
    output = _Output(fds[0])
    copying.get(root, request.path, output.write)
    output.finish()


def _stat(request: protocol.Stat, fds: list[int], _: Report) -> copying.PathStat:
    return copying.stat_path(confine(_enter(request.place, fds)), request.path)


def _read(request: protocol.Read, fds: list[int], _: Report) -> str:
    return copying.read_text(confine(_enter(request.place, fds)), request.path, request.limit_bytes)


def _export(request: protocol.Export, fds: list[int], _: Report) -> None:
    root = confine(_enter_without_mounts(request.place, fds[1:]))
    output = _Output(fds[0])
    diff.write_tree(root, output.write)
    output.finish()


def _copy_up(request: protocol.CopyUp, fds: list[int], _: Report) -> None:
    """Two trees are at work here, so no chroot can hold both: every step is openat2 within one of them."""
    volume_fd, root = fds[0], _enter(request.place, fds[1:])
    try:
        source = open_in_root(root, request.path, os.O_RDONLY | os.O_DIRECTORY)
    except KernelError:
        return  # the image has no directory there
    status = os.fstat(source)
    target = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=volume_fd)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, status.st_mode & 0o7777)
    with Extractor(volume_fd) as extractor:
        for found in walk(source, ".", "", whole_seconds=False):
            extractor.put(found.entry, data_of(found) if found.entry.kind == FILE else ())
        extractor.finish()


def _enter(place: protocol.Place, fds: list[int]) -> int:
    """A descriptor of the container's root, with its mounts."""
    if isinstance(place, protocol.Running):
        return _enter_running(place, fds[0])
    root = _mounted(place)
    for bind in place.binds:
        source = _source(bind)
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = mkdirs_in_root(root, bind.destination) if directory else _file_for(root, bind.destination)
        read_only = trees.RDONLY if bind.read_only else 0
        trees.bind(source, target, add=read_only, recursive=True, path=bind.destination)
        os.close(source)
        os.close(target)
    if place.read_only:
        trees.set_attributes(root, trees.RDONLY, path="/")
    return root


def _source(bind: protocol.Bind) -> int:
    if bind.beneath:
        return open_beneath(bind.beneath, os.path.relpath(bind.source, bind.beneath), os.O_PATH)
    return os.open(bind.source, os.O_PATH | os.O_CLOEXEC)


def _file_for(root: int, destination: str) -> int:
    """An O_PATH descriptor of what a file can be mounted on, made if it is missing."""
    try:
        return open_in_root(root, destination, os.O_PATH)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    directory, _, leaf = destination.rpartition("/")
    parent = mkdirs_in_root(root, directory or "/")
    os.close(open_in_root(parent, leaf, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o755))
    os.close(parent)
    return open_in_root(root, destination, os.O_PATH)


def _enter_running(place: protocol.Running, pidfd: int) -> int:
    """Into a copy of the container's mount namespace.

    From another namespace, unlink would take its mount points away from the container. What the kernel makes up (proc,
    sysfs, ...) is taken out of the copy, since it cannot be copied: files of no size, or of no end.
    """
    root = _pinned(place.pid, pidfd, lambda: os.open(f"/proc/{place.pid}/root", _DIRECTORY))
    if os.path.samestat(os.fstat(root), os.stat("/")):  # never, but then all of the host would be shown
        raise Unavailable(f"process {place.pid} has no root of its own")
    made_up = _pinned(place.pid, pidfd, lambda: _made_up(mountinfo(place.pid)))
    namespaces.setns(pidfd, CloneFlag.NEWNS)
    confine(root)
    namespaces.unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)
    for path in made_up:
        with contextlib.suppress(KernelError):  # it went with a mount above it
            unmount(path, detach=True)
    return os.open("/", _DIRECTORY)


def _made_up(mounts: Sequence[Mount]) -> list[str]:
    """Where a container sees filesystems without files of its own; not those that a user mounted elsewhere."""
    places = [mount.mount_point for mount in mounts if mount.fstype in _MADE_UP]
    return sorted(path for path in places if f"{path}/".startswith(("/proc/", "/sys/", "/dev/")))


def _pinned(pid: int, pidfd: int, use: Callable[[], T]) -> T:
    """`use()` of /proc/PID, which counts only if the pid still was that of `pidfd` afterwards."""
    try:
        result: T | None = use()
    except OSError:
        result = None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(0) or result is None:
        raise NotFound(f"the container's process {pid} has ended")
    return result


def _mounted(place: protocol.Stopped, target: str = "") -> int:
    """target  where; "": a directory that this mount needs no more, so it serves one mount."""
    namespaces.unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)
    target = target or f"{place.directory}/l"  # any directory does: nobody else sees the mount
    lowerdir = place.lowerdir if place.upperdir else f"{place.lowerdir}:{protocol.EMPTY}"
    words = overlay.options(lowerdir, place.upperdir, place.workdir)
    overlay.mount_overlay(place.directory, words, target)
    return os.open(target, _DIRECTORY)


def _assemble(request: protocol.Assemble, fds: list[int], _: Report) -> Digest:
    plan_fd, output_fd, *archives = fds
    source = _mounted(request.source, request.mount_at) if request.source else -1
    upper = os.open(str(request.place.upperdir), os.O_RDONLY | os.O_DIRECTORY)
    root = confine(_mounted(request.place))
    assembler = assembly.Assembler(root, upper, archives, source)
    with FileIO(plan_fd, "rb") as file:
        plan = assembly.decode(file.readall() or b"")
    assembler.carry_out(plan)
    output = _Output(output_fd, compress=request.compress)
    diff.write_layer(upper, output.write)
    return output.finish()


def _look(request: protocol.Look, fds: list[int], _: Report) -> list[list[assembly.Seen]]:
    return assembly.look(confine(_mounted(request.place)), request.sources)


def _enter_without_mounts(place: protocol.Place, fds: list[int]) -> int:
    """The root's own filesystem: of a running container a clone of its root mount, without what is mounted below."""
    if isinstance(place, protocol.Stopped):
        return _mounted(place)
    return trees.clone(_enter(place, fds), path="/")


_TASKS: dict[type, Callable[[Any, list[int], Report], Any]] = {
    protocol.Unpack: _unpack,
    protocol.Extract: _extract,
    protocol.ExtractHere: _extract_here,
    protocol.Diff: _diff,
    protocol.Changes: _changes,
    protocol.Export: _export,
    protocol.Get: _get,
    protocol.Stat: _stat,
    protocol.Read: _read,
    protocol.CopyUp: _copy_up,
    protocol.Assemble: _assemble,
    protocol.Look: _look,
}
