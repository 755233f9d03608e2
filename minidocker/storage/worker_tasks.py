"""The worker's children: one task each, confined to the tree that it works on.

Source  chroot(2); CVE-2019-14271 (code loaded from inside a chroot ran as root of the host).
Rules   - nothing here asks for users, groups or host names, for which glibc would load a library from the image.
        - a child is single-use and ends with its server: by parent-death signal, its parent having one thread.
"""

import hashlib
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from io import FileIO
from typing import Any

from isal import isal_zlib

from minidocker.errors import InvalidArgument, KernelError, VerificationError
from minidocker.linux import process
from minidocker.linux.mounts import mkdirs_in_root, open_in_root
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.storage import assembly, copying, diff, worker_roots
from minidocker.storage import worker_protocol as protocol
from minidocker.storage.compression import decompress
from minidocker.storage.extract import Extractor
from minidocker.storage.streams import ByteStream, read_ahead
from minidocker.storage.tar import FILE, TarReader
from minidocker.storage.walk import data_of, walk

_TRAILING_LIMIT_BYTES = 64 << 20  # after the archive's end; more is no padding but a bomb
_PROGRESS_BYTES = 512 << 10

Report = Callable[[int], None]


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


def _unpack(request: protocol.Unpack, fds: list[int], report: Report) -> protocol.Unpacked:
    blob_fd, target_fd = fds
    root = worker_roots.confine(target_fd)
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
    with Extractor(worker_roots.confine(target_fd), owner=request.owner) as extractor:
        extractor.extract(_archive(archive_fd))


def _extract(request: protocol.Extract, fds: list[int], _: Report) -> None:
    root = worker_roots.confine(worker_roots.enter(request.place, fds[1:]))
    if request.create:
        os.close(mkdirs_in_root(root, request.path))
    reader = _archive(fds[0])
    copying.put(root, request.path, reader, owner=request.owner, keep_kind=request.keep_kind)


def _diff(request: protocol.Diff, fds: list[int], _: Report) -> Digest:
    upper_fd, output_fd = fds
    root = worker_roots.confine(upper_fd)
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
    root = worker_roots.confine(worker_roots.enter(request.place, fds[1:]))
    output = _Output(fds[0])
    copying.get(root, request.path, output.write)
    output.finish()


def _stat(request: protocol.Stat, fds: list[int], _: Report) -> copying.PathStat:
    return copying.stat_path(worker_roots.confine(worker_roots.enter(request.place, fds)), request.path)


def _read(request: protocol.Read, fds: list[int], _: Report) -> str:
    root = worker_roots.confine(worker_roots.enter(request.place, fds))
    return copying.read_text(root, request.path, request.limit_bytes)


def _export(request: protocol.Export, fds: list[int], _: Report) -> None:
    root = worker_roots.confine(worker_roots.enter_without_mounts(request.place, fds[1:]))
    output = _Output(fds[0])
    diff.write_tree(root, output.write)
    output.finish()


def _copy_up(request: protocol.CopyUp, fds: list[int], _: Report) -> None:
    """Two trees are at work here, so no chroot can hold both: every step is openat2 within one of them."""
    volume_fd, root = fds[0], worker_roots.enter(request.place, fds[1:])
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


def _assemble(request: protocol.Assemble, fds: list[int], _: Report) -> Digest:
    plan_fd, output_fd, *archives = fds
    source = worker_roots.mount(request.source, request.mount_at) if request.source else -1
    upper = os.open(str(request.place.upperdir), os.O_RDONLY | os.O_DIRECTORY)
    root = worker_roots.confine(worker_roots.mount(request.place))
    assembler = assembly.Assembler(root, upper, archives, source)
    with FileIO(plan_fd, "rb") as file:
        plan = assembly.decode(file.readall() or b"")
    assembler.carry_out(plan)
    output = _Output(output_fd, compress=request.compress)
    diff.write_layer(upper, output.write)
    return output.finish()


def _look(request: protocol.Look, fds: list[int], _: Report) -> list[list[assembly.Seen]]:
    return assembly.look(worker_roots.confine(worker_roots.mount(request.place)), request.sources)


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
