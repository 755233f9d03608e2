"""The build context: the client's archive, kept as one file and looked up by an index.

Source  Docker Engine API, ImageBuild; path_resolution(7) for what links mean.
Rules   - the archive is never unpacked: names and links are resolved in the index alone, whose root has no outside. An
          entry that climbs above the root is a Breakout, as in every archive of ours.
        - a step that hits the cache so costs no file; one that misses copies from the archive straight into its layer.
        - the plain archive lies in an unnamed file: it is gone with the descriptor, also after a crash.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from minidocker.errors import Breakout, InvalidArgument, NotFound
from minidocker.storage import sums
from minidocker.storage.assembly import spans
from minidocker.storage.compression import Readable, decompress
from minidocker.storage.directories import components
from minidocker.storage.streams import ByteStream, read_ahead
from minidocker.storage.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarReader

ENTRIES_LIMIT = 1_000_000
_LINKS_LIMIT = 255


class Node:
    """One file of the context.

    at        where its bytes begin in the archive.
    sum       see storage.sums; "" for a directory that no entry made.
    children  by name; None: not a directory.
    first     of hard links to one file: the node that has it.
    """

    __slots__ = ("at", "children", "entry", "first", "sum")

    def __init__(self, entry: TarEntry, at: int = 0, sum: str = "", first: "Node | None" = None) -> None:
        self.entry, self.at, self.sum = entry, at, sum
        self.first = first or self
        self.children: dict[str, Node] | None = {} if entry.kind == DIRECTORY else None


class Context:
    """An indexed archive; `close()` gives its space back."""

    def __init__(self, source: Readable, directory: Path) -> None:
        """Read `source`, plain or compressed, to its end.

        directory  on whose filesystem the archive is kept.
        Raises     InvalidArgument: not an archive. VerificationError: damaged. Breakout. KernelError, OSError: ENOSPC.
        """
        self.fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self.root = Node(TarEntry("", DIRECTORY, 0o755))
        self._count = 0
        try:
            stream = ByteStream(read_ahead(self._kept(source)))
            reader = TarReader(stream)
            for entry in reader:
                self._add(entry, reader, stream)
            stream.drain(1 << 62)  # what follows the archive's end is the client's padding
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget the archive."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _kept(self, source: Readable) -> Iterator[bytes]:
        for piece in decompress(source, name="build context"):
            view = memoryview(piece)
            while view:
                view = view[os.write(self.fd, view) :]
            yield piece

    # -- the index --

    def _add(self, entry: TarEntry, reader: TarReader, stream: ByteStream) -> None:
        self._count += 1
        if self._count > ENTRIES_LIMIT:
            raise InvalidArgument(f"the build context has more than {ENTRIES_LIMIT} entries; use a .dockerignore")
        parts = components(entry.name, entry.name)
        if not parts:
            return
        siblings = self._directory(parts[:-1], entry.name)
        name = "/".join(parts)
        before = siblings.get(parts[-1])
        if entry.kind == HARDLINK:
            siblings[parts[-1]] = self._linked(entry, name)
            return
        at = stream.position
        hasher = sums.begin(entry, name)
        if entry.kind == FILE:
            for _, piece in reader.data():
                hasher.update(piece)
            if entry.holes:
                hasher.update(repr(entry.holes).encode())
        node = Node(entry, at, hasher.hexdigest())
        if before is not None and before.children is not None and node.children is not None:
            node.children = before.children
        siblings[parts[-1]] = node

    def _linked(self, entry: TarEntry, name: str) -> Node:
        parts = components(entry.link, entry.name)
        target = self._directory(parts[:-1], entry.name).get(parts[-1]) if parts else None
        if target is None or target.children is not None:
            raise InvalidArgument(
                f"entry {entry.name[:300]!r} of the build context is a hard link to {entry.link[:300]!r}, "
                "which is no file in it before it"
            )
        sum = sums.begin(entry, name)
        sum.update(target.sum.encode())
        return Node(target.entry, target.at, sum.hexdigest(), target.first)

    def _directory(self, parts: list[str], entry_name: str) -> dict[str, Node]:
        """What is in the directory that an entry goes into, made if missing; links on the way are followed."""
        found = self._walk(parts, follow_last=True, entry_name=entry_name)
        assert found is not None
        children = found[1].children
        if children is None:
            raise InvalidArgument(f"entry {entry_name[:300]!r} of the build context lies in a file, not a directory")
        return children

    def _walk(
        self, parts: list[str], *, follow_last: bool, entry_name: str | None = None
    ) -> tuple[list[str], Node] | None:
        """The real path and node that `parts` mean; None: there is none.

        entry_name  of an entry that is being added: missing directories are made, and climbing out is a Breakout; for
                    a look-up `..` at the root stays there, as it does for a process.
        """
        trail: list[tuple[str, Node]] = []
        todo, links = parts[::-1], 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if trail:
                    trail.pop()
                elif entry_name is not None:
                    raise Breakout(f"entry {entry_name[:300]!r} leaves the build context through a symbolic link")
                continue
            here = trail[-1][1] if trail else self.root
            if here.children is None:
                return None if entry_name is None else ([name for name, _ in trail], here)
            node = here.children.get(part)
            if node is None:
                if entry_name is None:
                    return None
                node = here.children[part] = Node(TarEntry("", DIRECTORY, 0o755))
            if node.entry.kind == SYMLINK and (todo or follow_last):
                links += 1
                if links > _LINKS_LIMIT:
                    raise Breakout(f"forbidden path outside the build context: {'/'.join(parts)} ()")
                if node.entry.link.startswith("/"):
                    trail.clear()
                todo += node.entry.link.split("/")[::-1]
                continue
            trail.append((part, node))
        return [name for name, _ in trail], trail[-1][1] if trail else self.root

    # -- looking --

    def find(self, path: str) -> Node:
        """The file at `path`, links followed. Raises NotFound."""
        found = self._walk(path.split("/"), follow_last=True)
        if found is None:
            raise NotFound(f"stat {path}: file does not exist")
        return found[1]

    def walk(self, node: Node | None = None, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """All below a directory (None: the root), by name, a directory before what is in it; paths begin so."""
        waiting = [(prefix, node or self.root)]
        while waiting:
            path, found = waiting.pop()
            if path != prefix:
                yield path, found
            if found.children is not None:
                below = sorted(found.children, key=lambda name: name.encode("utf-8", "surrogateescape"), reverse=True)
                waiting += [(f"{path}/{name}" if path else name, found.children[name]) for name in below]

    def read(self, path: str, limit_bytes: int) -> bytes:
        """A regular file whole. Raises NotFound, InvalidArgument: not a file, or too large."""
        node = self.find(path)
        if node.entry.kind != FILE:
            raise InvalidArgument(f"{path} of the build context is not a regular file")
        if node.entry.size > limit_bytes:
            raise InvalidArgument(f"{path} of the build context is larger than {limit_bytes} bytes")
        return b"".join(bytes(piece) for _, piece in self.data(node))

    def data(self, node: Node) -> Iterator[tuple[int, memoryview]]:
        """The pieces of a file, with their offset in it; what lies between them is zero."""
        return spans(self.fd, node.at, node.entry.size, node.entry.holes)

    def remove(self, path: str) -> None:
        """Take a file out of the index; a missing one is fine."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        found = self._walk(parts[:-1], follow_last=True) if parts else None
        if found is not None and found[1].children is not None:
            found[1].children.pop(parts[-1], None)
