"""`cp`: files between a container and this machine, as tar archives.

Source  docker cp's reference; Docker Engine API, "ContainerArchive".
Rules   - `copy_plan` says where something lands, `copy_host` packs and unpacks here, the daemon does so there.
        - what the container's end is, only the daemon says: it resolves links within the container.
"""

import base64
import os
import stat
import time
from collections.abc import Iterator

from minidocker.cli import copy_host
from minidocker.cli.commands.archive import pieces_of
from minidocker.cli.copy_plan import End, clean, kept_ending, land, means_contents, renamed, split
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, write_all
from minidocker.cli.values import human_size
from minidocker.client.documents import loads
from minidocker.client.failures import DaemonError
from minidocker.client.resource import Document, document
from minidocker.client.transport import quote

COPY_OPTIONS = """
-a, --archive       Keep all owners and groups
-L, --follow-link   Follow a symbolic link that is the source
-q, --quiet         Say nothing (the default without a terminal)
"""
_DIRECTORY = 1 << 31  # of Go's os.FileMode
_SYMLINK = 1 << 27
_NO_FILE = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21  # devices, FIFOs, sockets
_LINKS_LIMIT = 10
_REFRESH_SECONDS = 0.2


def split_operand(text: str) -> tuple[str, str]:
    """(container, path); the container is empty for a path of this machine."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith((".", "/")):
        return "", text
    return container, path


def absolute(path: str) -> str:
    """A path of this machine from its root, with the ending that it has."""
    whole = clean(os.path.join(os.getcwd(), path))
    if means_contents(path):
        return whole.rstrip("/") + "/."
    return whole + "/" if path.endswith("/") and whole != "/" else whole


class Progress:
    """The line that counts bytes on a terminal, and the one at the end."""

    def __init__(self, session: Session, options: Options, verb: str) -> None:
        self._session = session
        self._shown = not options.flag("quiet") if options.given("quiet") else os.isatty(1)
        self._live = self._shown and os.isatty(2)
        self._verb = verb
        self._next = 0.0
        self.count = 0

    def watch(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """`pieces`, counted."""
        for piece in pieces:
            self.count += len(piece)
            if self._live and time.monotonic() >= self._next:
                self._next = time.monotonic() + _REFRESH_SECONDS
                self._session.error(f"\r\x1b[2K{self._verb} - {human_size(self.count, 3)}")
            yield piece

    def finish(self, where: str) -> None:
        """Say that it is done."""
        if self._live:
            self._session.error("\r\x1b[2K")
        if self._shown:
            self._session.error(f"Successfully copied {human_size(self.count, 3)} to {where}\n")


def _stat(session: Session, container: str, path: str) -> Document | None:
    """What is at the container's `path`; None: nothing, or nothing that can be looked at."""
    try:
        response = session.transport.request("HEAD", f"/containers/{quote(container)}/archive", query={"path": path})
    except DaemonError:
        return None
    return document(loads(base64.b64decode(response.headers["x-docker-container-path-stat"])))


def _mode(found: Document | None) -> int:
    mode = found.get("mode") if found else 0
    return mode if isinstance(mode, int) else 0


def _link_end(path: str, found: Document) -> str:
    target = str(found.get("linkTarget"))
    return target if target.startswith("/") else clean(os.path.join(split(path)[0], target))


def copy(session: Session, options: Options, operands: list[str]) -> int:
    """`cp CONTAINER:SRC DEST|-` or `cp SRC|- CONTAINER:DEST`"""
    (from_container, source), (to_container, target) = map(split_operand, operands)
    if not source:
        raise CommandFailure("source can not be empty")
    if not target:
        raise CommandFailure("destination can not be empty")
    if from_container and to_container:
        raise CommandFailure("copying between containers is not supported")
    if from_container:
        _copy_out(session, options, from_container, source, target)
    elif to_container:
        _copy_in(session, options, source, to_container, target)
    else:
        raise CommandFailure("must specify at least one container source")
    return 0


# -- out of a container --


def _copy_out(session: Session, options: Options, container: str, source: str, target: str) -> None:
    if target != "-":
        target = absolute(target)
        _check_output(target)
    rename = ""
    if options.flag("follow-link"):
        found = _stat(session, container, source)
        if found is not None and _mode(found) & _SYMLINK:
            source, rename = kept_ending(source, _link_end(source, found))
    response = session.transport.request("GET", f"/containers/{quote(container)}/archive", query={"path": source})
    if target == "-":
        for piece in response.chunks():
            write_all(1, piece)
        return
    found = document(loads(base64.b64decode(response.headers["x-docker-container-path-stat"])))
    is_directory = bool(_mode(found) & _DIRECTORY)
    progress = Progress(session, options, "Copying from container")
    try:
        end = _host_target(target)
        own = split(source)[1]
        directory, _, new = land(End(source, exists=True, is_directory=is_directory, rename=rename), end)
        if not new and rename:
            new = rename
        reader = copy_host.Reader(progress.watch(response.chunks()))
        copy_host.unpack(reader, directory, own if new else "", new)
    finally:
        response.close()
    progress.finish(target)


def _check_output(path: str) -> None:
    """Raises CommandFailure: there is no directory for it, or a device is there."""
    parent = os.path.dirname(clean(path))
    if not os.path.exists(parent):
        raise CommandFailure(f'invalid output path: directory "{parent}" does not exist')
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
        word = "device" if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) else "irregular file"
        raise CommandFailure(f'invalid output path: "{path}" must be a directory or a regular file: got a {word}')


def _host_target(path: str) -> End:
    """The end on this machine, links followed to where they lead, even if nothing is there."""
    for _ in range(_LINKS_LIMIT + 1):
        try:
            kind = os.lstat(path).st_mode
        except FileNotFoundError:
            os.lstat(split(path)[0])
            return End(path)
        if not stat.S_ISLNK(kind):
            return End(path, exists=True, is_directory=stat.S_ISDIR(kind))
        path = clean(os.path.join(split(path)[0], os.readlink(path)))
    raise CommandFailure(f'too many symlinks in "{path}"')


# -- into a container --


def _copy_in(session: Session, options: Options, source: str, container: str, target: str) -> None:
    end = _container_target(session, container, target)
    if source == "-":
        if not end.is_directory:
            raise CommandFailure(f'destination "{container}:{target}" must be a directory')
        _put(session, options, container, end.path, pieces_of(0))
        return
    path, rename = _host_source(absolute(source), follow=options.flag("follow-link"))
    is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    directory, old, new = land(End(path, exists=True, is_directory=is_directory, rename=rename), end)
    parent, leaf = split(path)
    first = rename or leaf
    progress = Progress(session, options, "Copying to container")
    pieces = copy_host.pack(parent, leaf, renamed(first, old, new) if new else first)
    _put(session, options, container, directory, progress.watch(pieces))
    progress.finish(f"{container}:{target}")


def _container_target(session: Session, container: str, path: str) -> End:
    """The container's end. Raises CommandFailure: something that takes no files. NotFound: no such container."""
    found, where = _stat(session, container, path), path
    if found is None:
        session.transport.request("GET", f"/containers/{quote(container)}/json").read()
    elif _mode(found) & _SYMLINK:
        where = _link_end(path, found)
        found = _stat(session, container, where)
    if _mode(found) & _NO_FILE:
        kind = "device" if _mode(found) & 1 << 26 else "irregular file"
        raise CommandFailure(f'destination "{container}:{path}" must be a directory or a regular file: got a {kind}')
    return End(where, exists=found is not None, is_directory=bool(_mode(found) & _DIRECTORY))


def _host_source(path: str, *, follow: bool) -> tuple[str, str]:
    """The source with its parents' links resolved (`follow`: its own too), and what its entries are to be called."""
    try:
        if follow:
            return kept_ending(path, os.path.realpath(path, strict=True))
        head, tail = os.path.split(path)
        resolved = os.path.join(os.path.realpath(head, strict=True), tail)
        os.lstat(resolved)
    except NotADirectoryError:
        raise CommandFailure("not a directory") from None
    except OSError as error:
        raise CommandFailure(f"lstat {error.filename}: {(error.strerror or '').lower()}") from None
    before, after = split(path)[1], split(resolved)[1]
    return resolved, before if path.endswith("/") and before != after else ""


def _put(session: Session, options: Options, container: str, path: str, pieces: Iterator[bytes]) -> None:
    query = {"path": path, "noOverwriteDirNonDir": "true", "copyUIDGID": options.flag("archive") or None}
    session.transport.request("PUT", f"/containers/{quote(container)}/archive", query=query, body=pieces).read()


_USAGE = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tminidocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
COPY = Command(copy, _USAGE, COPY_OPTIONS, 2, 2)
