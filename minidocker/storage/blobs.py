"""Blobs: bytes filed under their own digest, as in an OCI image layout.

Source  OCI image-spec, image-layout.md (blobs/<algorithm>/<encoded>).
Rules   - a blob exists under its name only after its digest and size were verified and its bytes are on disk.
        - half a download lives in `blobs/partial/`; one that may be resumed is named by its digest, and locked while
          someone writes it.
        - blobs never change; whoever deletes one has asked the image store that nobody needs it.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from minidocker.errors import InvalidArgument, KernelError, NotFound, VerificationError
from minidocker.oci.digest import Digest
from minidocker.storage import trees
from minidocker.storage.records import remove_if_there, sync_directory

_READ_BYTES = 1 << 20


class BlobStore:
    """The blobs below `root` (the data root)."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "blobs" / "sha256"
        self.partial = root / "blobs" / "partial"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.partial.mkdir(exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.directory / digest.hex

    def has(self, digest: Digest) -> bool:
        """Is it here, whole?"""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Bytes. Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: Digest) -> BinaryIO:
        """A binary file to read. Raises NotFound."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest, limit_bytes: int) -> bytes:
        """The whole blob, verified again.

        Raises  NotFound. InvalidArgument: larger than `limit_bytes`. VerificationError: it was changed on disk.
        """
        with self.open(digest) as file:
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise InvalidArgument(f"blob {digest} is larger than the {limit_bytes} bytes that such a document may have")
        if Digest.of(content) != digest:
            raise VerificationError(f"blob {digest} was changed on disk: it now has the digest {Digest.of(content)}")
        return content

    def put(self, content: bytes) -> Digest:
        """Store `content` and name it."""
        digest = Digest.of(content)
        if not self.has(digest):
            with self.ingest(digest, len(content)) as ingest:
                ingest.write(content)
                ingest.commit()
        return digest

    def ingest(self, expected: Digest | None, size: int | None, *, resume: bool = False) -> "Ingest":
        """Begin to store a blob that arrives in pieces; use as a context manager.

        expected  what its digest must turn out to be; None: not known before.
        size      how many bytes it must have; None: not known before.
        resume    True: go on after the bytes that an earlier, aborted ingest left (`.offset` tells how many), and leave
                  them again if this one aborts.
        """
        return Ingest(self, expected, size, resume=resume and expected is not None)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Make a file, whose bytes the caller has verified to be `digest`, a blob by a second hard link; durable.

        Raises  KernelError: EXDEV it lies on another filesystem, ENOSPC.
        """
        if self.has(digest):
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            os.link(path, self.path(digest))  # the true point at which the blob exists
            sync_directory(self.directory)
        except FileExistsError:
            pass
        except OSError as error:
            raise KernelError("store blob", digest, error.errno or 0) from error

    def delete(self, digest: Digest) -> int:
        """Remove the blob and say how many bytes that freed; missing is fine (0)."""
        try:
            size = self.path(digest).stat().st_size
            self.path(digest).unlink()
        except FileNotFoundError:
            return 0
        return size

    def __iter__(self) -> Iterator[Digest]:
        for name in os.listdir(self.directory):
            if len(name) == 64:
                yield Digest(f"sha256:{name}")

    def repair(self) -> None:
        """At start, before anyone ingests: drop all partial blobs that nobody can resume."""
        for entry in list(os.scandir(self.partial)):
            if len(entry.name) != 64:
                trees.remove(Path(entry.path))


class Ingest:
    """A blob being written. Without `commit()` its end is an abort.

    offset  bytes that are there already: the writer goes on from here.
    """

    def __init__(self, store: BlobStore, expected: Digest | None, size: int | None, *, resume: bool) -> None:
        self._store = store
        self._expected = expected
        self._size = size
        self._hash = hashlib.sha256()
        self._committed = False
        self.offset = 0
        self._resume = resume
        self._path = store.partial / (expected.hex if resume and expected else f"new-{secrets.token_hex(8)}")
        self._fd = self._open()

    def _open(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another ingest of the same blob is under way: this one starts aside
            os.close(fd)
            self._resume = False
            self._path = self._store.partial / f"new-{secrets.token_hex(8)}"
            return self._open()
        while piece := os.read(fd, _READ_BYTES):
            self._hash.update(piece)
            self.offset += len(piece)
        if self._size is not None and self.offset > self._size:
            self._restart(fd)
        return fd

    def _restart(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = 0

    def restart(self) -> None:
        """Forget all bytes so far: the sender cannot go on from `offset`."""
        self._restart(self._fd)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Append. Raises VerificationError: more bytes than promised; KernelError: ENOSPC and the like."""
        if self._size is not None and self.offset + len(content) > self._size:
            self._resume = False
            raise VerificationError(f"{self._name()} is longer than the {self._size} bytes that were promised")
        view = memoryview(content)
        self._hash.update(view)
        self.offset += len(view)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                self._resume = False
                raise KernelError("write blob", self._name(), error.errno or 0, "free some space") from error

    def commit(self) -> Digest:
        """Verify size and digest, put the bytes on disk and give the blob its name.

        Raises  VerificationError: they differ; nothing is kept.
        """
        digest = Digest.finish(self._hash)
        if self._size is not None and self.offset != self._size:
            if self.offset > self._size:
                self._resume = False
            raise VerificationError(f"{self._name()} has {self.offset} bytes, {self._size} were promised")
        if self._expected is not None and digest != self._expected:
            self._resume = False
            raise VerificationError(f"{self._name()} has the digest {digest}: not what was asked for")
        try:
            os.fsync(self._fd)
            os.rename(self._path, self._store.path(digest))  # the true point at which the blob exists
            sync_directory(self._store.directory)
        except OSError as error:
            raise KernelError("store blob", self._name(), error.errno or 0) from error
        self._committed = True
        return digest

    def _name(self) -> str:
        return f"blob {self._expected}" if self._expected else "blob"

    def __enter__(self) -> "Ingest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed and not (self._resume and self.offset):
            remove_if_there(self._path)
        os.close(self._fd)


def _missing(digest: Digest) -> NotFound:
    return NotFound(f"no blob {digest}")
