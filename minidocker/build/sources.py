"""COPY and ADD: what is copied, its sum for the cache, and the plan that puts it into a layer.

Source  Dockerfile reference, "COPY" and "ADD"; moby builder/dockerfile/copy.go.
Rules   - a source is looked up in the context or in another image's layers, never in the host's files.
        - the cache's text names what is copied by sums; so a file that only got a new time is the same file.
        - ADD unpacks an archive that lies in the context, whatever it is called; what comes by a URL stays packed.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from minidocker.build.context import Context, Node
from minidocker.errors import Breakout, InvalidArgument, MinidockerError, NotFound
from minidocker.patterns import BadPattern, Glob, clean, has_wildcard
from minidocker.storage import sums
from minidocker.storage.assembly import ARCHIVE, SINGLE, TREE, Member, Put, Section, Seen
from minidocker.storage.compression import decompress
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import FILE, HARDLINK, TarEntry, TarReader


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that is copied.

    path       in the context or image, no leading slash; its last part names a single file.
    sum        "file:..." or "dir:...".
    node       of the context; None: in another image.
    context    that the node is in.
    directory  its content is copied, not itself.
    packed     never unpacked (it came by a URL).
    """

    path: str
    sum: str
    directory: bool
    node: Node | None = None
    context: Context | None = None
    packed: bool = False


def in_context(context: Context, text: str) -> list[Source]:
    """The sources that one word of COPY means: a file, a directory, or all that fit a pattern.

    Raises  Breakout: it leads out of the context. NotFound.
    """
    path = _cleaned(text)
    try:
        glob = Glob(path) if has_wildcard(path) else None
    except BadPattern:
        return []
    names = [path] if glob is None else [name for name, _ in context.walk() if glob.matches(name)]
    try:
        return [_found(context, name) for name in names]
    except NotFound as error:
        raise NotFound(f"file not found in build context or excluded by .dockerignore: {error}") from None


def _cleaned(text: str) -> str:
    path = clean(text.lstrip("/") or ".") if not has_wildcard(text) else text.lstrip("/").removeprefix("./")
    if path == ".." or path.startswith("../") or "/../" in f"/{path}/":
        raise Breakout(f"forbidden path outside the build context: {text} ()")
    return "" if path == "." else path


def _found(context: Context, path: str) -> Source:
    node = context.find(path)
    if node.children is None:
        return Source(path, f"file:{node.sum}", False, node, context)
    below = sorted(found.sum or name for name, found in context.walk(node, path))
    return Source(path, sums.of_many("dir", below), True, node, context)


def in_image(seen: Sequence[Seen]) -> list[Source]:
    """The sources that the worker saw in another image."""
    return [Source(one.path, one.sum, one.directory) for one in seen]


def sum_of(sources: Sequence[Source]) -> str:
    """One sum for all sources of an instruction."""
    return sources[0].sum if len(sources) == 1 else sums.of_many("multi", [source.sum for source in sources])


def check(sources: Sequence[Source], destination: str, name: str) -> None:
    """Raise InvalidArgument: no source, or several into what is no directory."""
    if not sources:
        raise InvalidArgument(f"{name} failed: no source files were specified")
    if len(sources) > 1 and not destination.endswith("/"):
        raise InvalidArgument(
            f"When using {name} with more than one source file, the destination must be a directory and end with a /"
        )


def plan(
    sources: Sequence[Source], destination: str, *, owner: tuple[int, int] | None, mode: int | None, unpack: bool
) -> tuple[list[Put], list[Context]]:
    """What the worker is to do.

    owner   of all that is copied; None: as in the other image (COPY --from without --chown).
    unpack  archives of the context are unpacked (ADD).
    Returns the plan and the contexts that are its archives, by number.
    """
    puts: list[Put] = []
    contexts: list[Context] = []
    for source in sources:
        name = posixpath.basename(source.path)
        kind = TREE if source.directory else SINGLE
        if source.node is None or source.context is None:
            puts.append(Put(kind, destination, name, source=source.path, owner=owner, mode=mode))
            continue
        if source.context not in contexts:
            contexts.append(source.context)
        archive = contexts.index(source.context)
        if source.directory:
            members = _tree(source.context, source.node)
        else:
            members = (Member.of(source.node.entry, name, source.node.at),)
            if unpack and not source.packed and is_archive(source.context, source.node):
                puts.append(Put(ARCHIVE, destination, name, members, archive))
                continue
        puts.append(Put(kind, destination, name, members, archive, owner=owner, mode=mode))
    return puts, contexts


def _tree(context: Context, directory: Node) -> tuple[Member, ...]:
    """All below a directory; hard links among them stay links."""
    members, seen = [], dict[int, str]()
    for name, node in context.walk(directory):
        first = seen.setdefault(id(node.first), name) if node.children is None else name
        entry, at = node.entry, node.at
        if first != name:
            entry = TarEntry(name, HARDLINK, entry.mode, entry.uid, entry.gid, 0, entry.mtime_ns, first)
        members.append(Member.of(entry, name, at))
    return tuple(members)


def is_archive(context: Context, node: Node) -> bool:
    """Whether a file holds a tar archive, compressed or not: its first entry can be read."""
    if node.entry.kind != FILE or node.entry.holes is not None:
        return False
    pieces = decompress(Section(context.fd, node.at, node.entry.size), name="source")
    try:
        return next(iter(TarReader(ByteStream(pieces))), None) is not None
    except (MinidockerError, EOFError):
        return False


def owner_of(chown: str, passwd: str, group: str) -> tuple[int, int]:
    """The numbers that --chown means.

    chown          user, or user:group, each a name or a number; without a group, the group of the user's own name.
    passwd, group  the text of these files of the image.
    Raises         InvalidArgument: a name that the files do not have.
    """
    user, colon, group_name = chown.partition(":")
    group_name = group_name if colon else user
    prefix = "unable to convert uid/gid chown string to host mapping: can't find"
    uid, gid = _number(user, passwd), _number(group_name, group)
    if uid is None:
        raise InvalidArgument(f"{prefix} uid for user {user}: no such user: {user}")
    if gid is None:
        raise InvalidArgument(f"{prefix} gid for group {group_name}: no such group: {group_name}")
    return uid, gid


_ID_LIMIT = (1 << 31) - 1


def _number(name: str, text: str) -> int | None:
    if name.isascii() and name.isdecimal():
        return int(name) if int(name) <= _ID_LIMIT else None
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdecimal() and int(fields[2]) <= _ID_LIMIT:
            return int(fields[2])
    return None
