"""Records: small JSON files that are either the old version or the new one, never half of each.

Source  rename(2), fsync(2): a rename is atomic; a name is durable once its directory is synced.
Rules   - written aside in the same directory, synced, renamed, directory synced: a kill -9 or a power cut at any
          moment leaves one whole version.
        - leftovers of an interrupted write end in `.new`; the next write of the same record replaces them.
"""

import os
from pathlib import Path
from typing import Any, TypeVar

from minidocker.errors import KernelError, NotFound
from minidocker.oci import codec

T = TypeVar("T")


def write(path: Path, record: Any, *, mode: int = 0o600) -> None:
    """Store `record` (anything msgspec can write) as JSON at `path`, atomically and durably.

    Raises  KernelError: ENOSPC, EROFS, ENOENT (the directory is missing); the old version is then still there.
    """
    write_bytes(path, codec.encode(record), mode=mode)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Like `write`, for bytes that are kept as they are."""
    aside = f"{path}.new"
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)  # the true point at which the new version exists
        sync_directory(path.parent)
    except OSError as error:
        remove_if_there(Path(aside))
        raise KernelError("write record", path, error.errno or 0) from error


def read(path: Path, kind: type[T]) -> T:
    """The record at `path`.

    Raises  NotFound: no such file. InvalidArgument: its content is no `kind`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no record {path}") from None
    return codec.decode(content, kind, f"record {path}")


def sync_directory(path: Path) -> None:
    """Make the names in directory `path` durable (fsync of the directory)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_if_there(path: Path) -> None:
    """Unlink a file; missing is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
