"""This machine's end of `cp`: a tree as an archive, an archive as a tree.

Source  tar(5); moby's archive package for what is kept and what is refused.
Rules   - streams both ways: neither memory nor a temporary file holds the archive.
        - what a container sends is hostile: no entry lands outside of the target, none goes through a link that leads
          out of it, and no relative link that leads out of it is made.
        - files belong to whoever copies; modes, times and hard links are kept.
"""

import os
import stat
import tarfile
import threading
from collections.abc import Iterator

from minidocker.cli.copy_plan import clean, renamed
from minidocker.cli.session import CommandFailure

_PIECE_BYTES = 1 << 17


class Reader:
    """Pieces as the file that tarfile reads. `count` bytes went through."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self.count = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        while len(self._held) < size and (piece := next(self._pieces, b"")):
            self._held += piece
            self.count += len(piece)
        wanted, self._held = self._held[:size], self._held[size:]
        return wanted


def pack(directory: str, leaf: str, name: str) -> Iterator[bytes]:
    """`leaf` in `directory` and all below it, its entries beginning with `name`, as an archive in pieces.

    Raises  OSError: something cannot be read.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with (
                open(write_end, "wb") as sink,
                tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                archive.add(os.path.join(directory, leaf), name, filter=_portable)
        except BrokenPipeError:
            pass  # the daemon has answered without reading on
        except BaseException as error:
            failures.append(error)

    packer = threading.Thread(target=work, daemon=True)
    packer.start()
    try:
        while piece := os.read(read_end, _PIECE_BYTES):
            yield piece
    finally:
        os.close(read_end)
        packer.join()
    if failures:
        raise failures[0]


def _portable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Numbers, not the names that this machine gives them; whole seconds, as docker sends."""
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member


def unpack(source: Reader, directory: str, old: str, new: str) -> None:
    """The archive's tree into `directory`, its first component `old` called `new`.

    Raises  CommandFailure: an entry that leads out of the directory, or a directory and a file that would replace each
            other. OSError.
    """
    root = os.path.realpath(directory)
    times: list[tuple[str, float]] = []
    with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            member.name = renamed(member.name, old, new)
            if member.islnk():
                member.linkname = renamed(member.linkname, old, new)
            path = _place(root, member.name, "is outside of")
            if path == root:
                continue
            _clear(path, member)
            _make(archive, member, root, path)
            if member.isdir():
                times.append((path, member.mtime))
    for path, seconds in reversed(times):
        os.utime(path, (seconds, seconds))


def _place(root: str, name: str, words: str) -> str:
    """The path for an entry; its parents are made. No parent may be a link, so nothing leads out of the root."""
    parts = [part for part in clean("/" + name).split("/") if part]
    if ".." in name.split("/") and clean(name).startswith(".."):
        raise CommandFailure(f'"{name}" {words} "{root}"')
    path = root
    for part in parts[:-1]:
        path = os.path.join(path, part)
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise CommandFailure(f'"{name}" {words} "{root}": "{path}" is not a directory')
        except FileNotFoundError:
            os.mkdir(path)
    return os.path.join(path, *parts[-1:])


def _clear(path: str, member: tarfile.TarInfo) -> None:
    """Take away what is there already, unless it is a directory and will be one."""
    try:
        there = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if there and not member.isdir():
        raise CommandFailure(f'cannot overwrite directory "{path}" with non-directory "{os.path.dirname(path)}"')
    if member.isdir() and not there:
        raise CommandFailure(f'cannot overwrite non-directory "{path}" with directory "{os.path.dirname(path)}"')
    if not there:
        os.unlink(path)


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, root: str, path: str) -> None:
    mode = stat.S_IMODE(member.mode)
    if member.isdir():
        os.makedirs(path, exist_ok=True)
    elif member.issym():
        _check_link(root, path, member.linkname)
        os.symlink(member.linkname, path)
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        return
    elif member.islnk():
        target = _place(root, member.linkname, "is a hard link out of")
        os.link(target, path, follow_symlinks=False)
        return
    elif member.isfifo():
        os.mkfifo(path)
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
    else:
        content = archive.extractfile(member)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            while content is not None and (piece := content.read(_PIECE_BYTES)):
                file.write(piece)
    os.chmod(path, mode)
    os.utime(path, (member.mtime, member.mtime))


def _check_link(root: str, path: str, target: str) -> None:
    """As docker: a relative link must stay within; an absolute one is only a name and is never followed here."""
    if not target.startswith("/") and not (clean(os.path.join(os.path.dirname(path), target)) + "/").startswith(
        root.rstrip("/") + "/"
    ):
        raise CommandFailure(f'invalid symlink "{path}" -> "{target}"')
