"""`cp`: files between a container and this machine, as tar archives.

Source  docker cp's reference; Docker Engine API, "ContainerArchive".
Rules   - where something lands follows cp(1): into a directory that exists, else under the destination's last name;
          `SRC/.` means the contents.
        - what comes out of a container is unpacked by tarfile's "tar" filter: no member leaves the destination.
"""

import base64
import os
import tarfile
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from minidocker.cli.archive import pieces_of
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, write_all
from minidocker.cli.values import human_size
from minidocker.client.documents import loads
from minidocker.client.resource import document
from minidocker.client.transport import quote

COPY_OPTIONS = """
-a, --archive       Keep all owners and groups
-L, --follow-link   Follow a symbolic link that is the source
-q, --quiet         Say nothing
"""
_DIRECTORY = 1 << 31        # Go's os.ModeDir
_SYMLINK = 1 << 27          # Go's os.ModeSymlink


def split_operand(text: str) -> tuple[str, str]:
    """(container, path); the container is empty for a path of this machine."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith((".", "/")):
        return "", text
    return container, path


def _stat(session: Session, container: str, path: str) -> dict[str, object] | None:
    try:
        response = session.transport.request("HEAD", f"/containers/{quote(container)}/archive", query={"path": path})
    except Exception as error:
        if getattr(error, "status", 0) == 404 and _exists(session, container):
            return None
        raise
    return document(loads(base64.b64decode(response.headers["x-docker-container-path-stat"])))


def _exists(session: Session, container: str) -> bool:
    session.transport.request("GET", f"/containers/{quote(container)}/json").read()
    return True


def _is_directory(stat: dict[str, object] | None) -> bool:
    mode = stat.get("mode") if stat else 0
    return bool(isinstance(mode, int) and mode & _DIRECTORY)


def copy(session: Session, options: Options, operands: list[str]) -> int:
    """`cp CONTAINER:SRC DEST|-` or `cp SRC|- CONTAINER:DEST`"""
    (from_container, source), (to_container, target) = map(split_operand, operands)
    if from_container and to_container:
        raise CommandFailure("copying between containers is not supported")
    if from_container:
        size = _copy_out(session, options, from_container, source, target)
        where = target
    elif to_container:
        size = _copy_in(session, options, source, to_container, target)
        where = operands[1]
    else:
        raise CommandFailure("must specify at least one container source")
    if target != "-" and source != "-" and not options.flag("quiet") and os.isatty(2):
        session.error(f"Successfully copied {human_size(size, 3)} to {where}\n")
    return 0


def _copy_out(session: Session, options: Options, container: str, source: str, target: str) -> int:
    if options.flag("follow-link"):
        stat = _stat(session, container, source)
        mode = stat.get("mode") if stat else 0
        if stat and isinstance(mode, int) and mode & _SYMLINK:
            source = os.path.join(os.path.dirname(source), str(stat.get("linkTarget")))
    response = session.transport.request("GET", f"/containers/{quote(container)}/archive", query={"path": source})
    if target == "-":
        if os.isatty(1):
            raise CommandFailure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for piece in response.chunks():
            write_all(1, piece)
        return 0
    with tempfile.TemporaryFile() as file:
        for piece in response.chunks():
            file.write(piece)
        size = file.tell()
        file.seek(0)
        _unpack(file, source, target)
    return size


def _unpack(file: BinaryIO, source: str, target: str) -> None:
    parent = os.path.dirname(target.rstrip("/")) or "."
    with tarfile.open(fileobj=file) as archive:
        members = archive.getmembers()
        if not members:
            return
        top = members[0].name.rstrip("/").split("/")[0]
        into = os.path.isdir(target)
        if not into and not os.path.isdir(parent):
            raise CommandFailure(f'invalid output path: directory "{os.path.abspath(parent)}" does not exist')
        if not into and target.endswith("/") and not members[0].isdir():
            raise CommandFailure(f'no such directory: "{target}"')
        if into and members[0].isdir() and source.rstrip("/").endswith("/."):
            name, base = "", target
        else:
            name, base = (top, target) if into else (os.path.basename(target.rstrip("/")), parent)
        for member in members:
            rest = member.name[len(top):].lstrip("/")
            renamed = "/".join(part for part in (name, rest) if part) or "."
            changes = {"name": renamed}
            if member.islnk():
                changes["linkname"] = "/".join(part for part in (name, member.linkname[len(top):].lstrip("/")) if part)
            member = tarfile.tar_filter(member.replace(**changes, deep=False), base)  # type: ignore[arg-type]
            archive.extract(member, base, numeric_owner=True)


def _copy_in(session: Session, options: Options, source: str, container: str, target: str) -> int:
    if source == "-":
        stat = _stat(session, container, target)
        if not _is_directory(stat):
            raise CommandFailure(f'destination "{container}:{target}" must be a directory')
        return _put(session, options, container, target, pieces_of(0))
    try:
        is_directory = os.path.isdir(source)
        os.stat(source) if options.flag("follow-link") else os.lstat(source)
    except OSError as error:
        raise CommandFailure(f"lstat {source}: {(error.strerror or '').lower()}") from None
    stat = _stat(session, container, target)
    contents = source.endswith("/.") or source == "."
    if stat is not None and not _is_directory(stat) and is_directory:
        raise CommandFailure("cannot copy directory")
    if _is_directory(stat):
        base, name = target, "" if contents else os.path.basename(os.path.abspath(source))
    else:
        base, name = os.path.dirname(target.rstrip("/")) or "/", os.path.basename(target.rstrip("/"))
        if target.endswith("/") and not is_directory:
            raise CommandFailure(f'no such directory: "{target}"')
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", dereference=False) as archive:
            real = os.path.realpath(source) if options.flag("follow-link") else source
            keep = options.flag("archive")
            archive.add(real, name or ".", filter=None if keep else _as_root)
        size = file.tell()
        file.seek(0)
        _put(session, options, container, base, iter(lambda: file.read(1 << 16), b""))
    return size


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _put(session: Session, options: Options, container: str, path: str, pieces: Iterator[bytes]) -> int:
    query = {"path": path, "noOverwriteDirNonDir": "true", "copyUIDGID": options.flag("archive")}
    session.transport.request("PUT", f"/containers/{quote(container)}/archive", query=query, body=pieces).read()
    return 0


_USAGE = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tminidocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
COPY = Command(copy, _USAGE, COPY_OPTIONS, 2, 2)
