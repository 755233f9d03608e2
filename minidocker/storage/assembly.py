"""A layer put together from a plan: what COPY, ADD and WORKDIR write, without a container.

Source  Dockerfile reference, COPY and ADD; moby builder/dockerfile/copy.go (where a file goes, who owns what is new).
Rules   - the plan is data: what to put where, and from where its bytes come: a place in a plain archive, or a path in
          another image's tree.
        - every look-up is openat2 within the root that it belongs to; in the worker the process is chrooted as well.
        - a destination's links are followed within the root, as a process in the container would; what is copied
          replaces links, and never goes through them.
"""

import os
import stat
from collections.abc import Iterator, Sequence

import msgspec

from minidocker.errors import InvalidArgument, KernelError, NotFound
from minidocker.linux.mounts import open_in_root
from minidocker.patterns import BadPattern, Glob, has_wildcard
from minidocker.storage import copying, sums
from minidocker.storage.compression import decompress
from minidocker.storage.extract import Data, Extractor
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarReader
from minidocker.storage.walk import Found, data_of, walk

_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
TREE, SINGLE, ARCHIVE, MAKE = "tree", "single", "archive", "make"


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A file in the archive of a plan: a TarEntry, with names as bytes, and where its data begins (`at`)."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[str, bytes]
    at: int
    holes: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def of(cls, entry: TarEntry, name: str, at: int) -> "Member":
        """The member for an entry that is to be called `name`."""
        link = entry.link if entry.kind in (SYMLINK, HARDLINK) else ""
        return cls(
            _bytes(name), entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, _bytes(link),
            entry.major, entry.minor, entry.xattrs, at, entry.holes,
        )  # fmt: skip

    def entry(self) -> TarEntry:
        """The entry again."""
        name, link = (field.decode("utf-8", "surrogateescape") for field in (self.name, self.link))
        return TarEntry(
            name, self.kind, self.mode, self.uid, self.gid, self.size, self.mtime_ns, link, self.major, self.minor,
            self.xattrs, self.size, self.holes,
        )  # fmt: skip


class Put(msgspec.Struct, frozen=True):
    """One thing to put.

    kind         TREE: what is in a directory. SINGLE: one file. ARCHIVE: what is in an archive. MAKE: a directory.
    destination  absolute; a trailing slash says that it is a directory.
    name         what a single file is called in a directory.
    members      of archive number `archive` of the plan; ARCHIVE has one, of which `size` bytes are read.
    source       instead of them: a path in the other image.
    owner        (uid, gid) of all that is new; None: as the source says, and root for directories made on the way.
    mode         permission bits of all that is put; None: as the source says.
    """

    kind: str
    destination: str
    name: str = ""
    members: tuple[Member, ...] = ()
    archive: int = 0
    source: str = ""
    owner: tuple[int, int] | None = None
    mode: int | None = None


class Seen(msgspec.Struct, frozen=True):
    """A source in another image: its path from the root, without a leading slash, and its sum (storage.sums)."""

    path: str
    directory: bool
    sum: str


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def encode(plan: Sequence[Put]) -> bytes:
    """A plan on its way to the worker."""
    return msgspec.msgpack.encode(plan)


def decode(content: bytes) -> list[Put]:
    """What `encode` made."""
    return msgspec.msgpack.decode(content, type=list[Put])


class Assembler:
    """Carries out a plan in the tree `root_fd`, an overlay whose upper directory is `upper_fd`.

    archives   by number.
    source_fd  the other image's tree, -1: none.
    """

    def __init__(self, root_fd: int, upper_fd: int, archives: Sequence[int] = (), source_fd: int = -1) -> None:
        self._root, self._upper, self._archives, self._source = root_fd, upper_fd, archives, source_fd

    def carry_out(self, plan: Sequence[Put]) -> None:
        """All of a plan. Raises InvalidArgument: it cannot be put there. NotFound: no such source. As Extractor.put."""
        for number, put in enumerate(plan, 1):
            if number == len(plan) and put.kind == TREE:
                self._put_last_tree(put)
            else:
                self._put(put)

    def _put_last_tree(self, put: Put) -> None:
        """Into the upper directory itself, at twice the speed: what is new hides what has its name in the layers below.

        Only for the last one, since nobody may look through the overlay any more.
        """
        target = copying.link_target(self._root, put.destination)
        self._make(target, (0, 0), put.owner or (0, 0))
        fd = open_in_root(self._root, target, _READ_DIRECTORY)
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode))  # copies the directory up, if it is not there yet
        os.close(fd)
        self._extract(self._upper, target, self._tree(put), put)

    def _put(self, put: Put) -> None:
        target = copying.link_target(self._root, put.destination)
        owner = put.owner or (0, 0)
        if put.kind == MAKE:
            self._make(target, owner, owner)
        elif put.kind == TREE:
            self._make(target, (0, 0), owner)
            self._extract(self._root, target, self._tree(put), put)
        elif put.kind == SINGLE:
            into = put.destination.endswith("/") or self._is_directory(target)
            directory, _, leaf = (f"{target}/{put.name}" if into else target).rpartition("/")
            self._make(directory or "/", owner, owner)
            self._extract(self._root, directory or "/", self._single(put, leaf), put)
        else:
            self._make(target, (0, 0), (0, 0))
            self._unpack(target, put)

    def _is_directory(self, path: str) -> bool:
        try:
            fd = open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except KernelError:
            return False
        os.close(fd)
        return True

    def _make(self, path: str, owner: tuple[int, int], last_owner: tuple[int, int]) -> None:
        """The directory `path` (no links in it) and those above it, where missing; new ones are 0755."""
        here = open_in_root(self._root, "/", _READ_DIRECTORY)
        parts = [part for part in path.split("/") if part]
        try:
            for number, part in enumerate(parts, 1):
                try:
                    os.mkdir(part, 0o755, dir_fd=here)
                    os.chown(part, *(last_owner if number == len(parts) else owner), dir_fd=here, follow_symlinks=False)
                except FileExistsError:
                    pass
                below = os.open(part, _READ_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = below
        except NotADirectoryError:
            raise InvalidArgument(f"cannot copy to non-directory: {path}") from None
        except OSError as error:
            raise KernelError("mkdir", path, error.errno or 0) from error
        finally:
            os.close(here)

    def _extract(self, root_fd: int, base: str, found: Iterator[tuple[TarEntry, Data]], put: Put) -> None:
        with Extractor(root_fd, base=base, owner=put.owner) as extractor:
            for entry, data in found:
                if put.mode is not None:
                    entry.mode = put.mode
                elif put.owner is not None and entry.kind == FILE:
                    entry.mode = _after_chown(entry.mode)
                extractor.put(entry, data)
            extractor.finish()

    def _tree(self, put: Put) -> Iterator[tuple[TarEntry, Data]]:
        if not put.source:
            yield from ((member.entry(), self._data(put, member)) for member in put.members)
            return
        fd = _opened(self._source, put.source, _READ_DIRECTORY)
        try:
            for found in walk(fd, ".", ""):
                yield found.entry, data_of(found) if found.entry.kind == FILE else ()
        finally:
            os.close(fd)

    def _single(self, put: Put, leaf: str) -> Iterator[tuple[TarEntry, Data]]:
        if put.members:
            entry = put.members[0].entry()
            entry.name = leaf
            yield entry, self._data(put, put.members[0])
            return
        for found in _one(self._source, put.source):
            found.entry.name = leaf
            yield found.entry, data_of(found) if found.entry.kind == FILE else ()

    def _data(self, put: Put, member: Member) -> Data:
        if member.kind != FILE:
            return ()
        return spans(self._archives[put.archive], member.at, member.size, member.holes)

    def _unpack(self, target: str, put: Put) -> None:
        member = put.members[0]
        packed = Section(self._archives[put.archive], member.at, member.size)
        with Extractor(self._root, base=target) as extractor:
            extractor.extract(TarReader(ByteStream(decompress(packed))))


class Section:
    """A stretch of an open file, to be read from its beginning."""

    def __init__(self, fd: int, at: int, size: int) -> None:
        self._fd, self._at, self._left = fd, at, size

    def read(self, count: int, /) -> bytes:
        piece = os.pread(self._fd, min(count, self._left), self._at)
        self._at, self._left = self._at + len(piece), self._left - len(piece)
        return piece


def spans(fd: int, at: int, size: int, holes: tuple[tuple[int, int], ...] | None) -> Iterator[tuple[int, memoryview]]:
    """The bytes of a file in a plain archive, with their offset in the file; what lies between them is zero."""
    for offset, length in ((0, size),) if holes is None else holes:
        while length:
            piece = os.pread(fd, min(length, 1 << 20), at)
            if not piece:
                raise InvalidArgument("the archive was cut off")
            yield offset, memoryview(piece)
            at, offset, length = at + len(piece), offset + len(piece), length - len(piece)


def _after_chown(mode: int) -> int:
    """What a change of owner, which Docker makes after the copy, leaves of a file's mode (chown(2))."""
    return mode & ~(0o6000 if mode & 0o010 else 0o4000)


def _opened(root_fd: int, path: str, flags: int) -> int:
    try:
        return open_in_root(root_fd, path or "/", flags)
    except KernelError:
        raise NotFound(f"stat {path}: file does not exist") from None


def _one(root_fd: int, path: str) -> Iterator[Found]:
    """The file that `path` leads to in the end."""
    directory, _, leaf = copying.link_target(root_fd, path).rpartition("/")
    fd = _opened(root_fd, directory, _READ_DIRECTORY)
    try:
        yield from walk(fd, leaf, leaf)
    finally:
        os.close(fd)


def look(root_fd: int, sources: Sequence[str]) -> list[list[Seen]]:
    """What each source of a COPY --from means in the tree `root_fd`: one file or directory, or all that fit a pattern.

    Raises  NotFound: a source without wildcards is not there.
    """
    return [_look(root_fd, source.lstrip("/")) for source in sources]


def _look(root_fd: int, source: str) -> list[Seen]:
    if not has_wildcard(source):
        return [_seen(root_fd, source)]
    try:
        glob = Glob(source)
    except BadPattern:
        return []
    root = _opened(root_fd, "/", _READ_DIRECTORY)
    try:
        names = [found.entry.name for found in walk(root, ".", "") if glob.matches(found.entry.name)]
    finally:
        os.close(root)
    return [_seen(root_fd, name) for name in names]


def _seen(root_fd: int, path: str) -> Seen:
    fd = _opened(root_fd, path, os.O_PATH)
    is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    os.close(fd)
    if not is_directory:
        return Seen(path, False, "file:" + next((_sum(found, path) for found in _one(root_fd, path)), path))
    directory = _opened(root_fd, path, _READ_DIRECTORY)
    try:
        below = [_sum(found, f"{path}/{found.entry.name}") for found in walk(directory, ".", "")]
    finally:
        os.close(directory)
    return Seen(path, True, sums.of_many("dir", sorted(below)))


def _sum(found: Found, name: str) -> str:
    hasher = sums.begin(found.entry, name)
    if found.entry.kind == FILE:
        for _, piece in data_of(found):
            hasher.update(piece)
    return hasher.hexdigest()


__all__ = ["ARCHIVE", "DIRECTORY", "MAKE", "SINGLE", "TREE", "Assembler", "Member", "Put", "Seen", "look", "spans"]
