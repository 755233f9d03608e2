"""What a container changed: as a layer's tar, and as the list that `docker diff` shows.

Source  OCI image-spec, layer.md, "Change Types"; overlayfs.rst; Docker Engine API, container changes (0 C, 1 A, 2 D).
Rules   - the upper directory holds the changes; below it lie the layers, TOP first here.
        - a directory counts as changed if its own owner, mode or time differ or if something in it changed.
        - everything is reached through open directories, never through a symlink.
"""

import os
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

import msgspec

from minidocker.storage.directories import OPAQUE_XATTR, is_whiteout
from minidocker.storage.tar import DIRECTORY, FILE
from minidocker.storage.tar_writer import TarWriter
from minidocker.storage.walk import Found, walk, write

CHANGED, ADDED, DELETED = 0, 1, 2
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Change(msgspec.Struct, frozen=True):
    """One path of `docker diff`, from the container's root."""

    kind: int
    path: str


def write_layer(
    upper_fd: int, output: Callable[[bytes | memoryview], object], *, hidden: Collection[str] = ()
) -> None:
    """The upper directory as a layer: whiteouts and opaque marks in their archive form.

    hidden  paths that are left out as long as they are empty files or directories: mount points of the runtime.
    """
    writer = TarWriter(output)
    for found in walk(upper_fd, ".", "", marks=True):
        if found.entry.name not in hidden or not _is_empty(found):
            write(writer, found)
    writer.close()


def _is_empty(found: Found) -> bool:
    if found.entry.kind == DIRECTORY:
        fd = os.open(found.leaf, _DIRECTORY, dir_fd=found.parent_fd)
        try:
            return not os.listdir(fd)
        finally:
            os.close(fd)
    return found.entry.kind == FILE and not found.entry.size


def write_tree(root_fd: int, output: Callable[[bytes | memoryview], object]) -> None:
    """A whole tree as `docker export` gives it: no marks, no layers."""
    writer = TarWriter(output)
    for found in walk(root_fd, ".", ""):
        write(writer, found)
    writer.close()


def changes(upper_fd: int, lower_fds: Sequence[int]) -> list[Change]:
    """All changes, by path. lower_fds: the layers' directories, top first."""
    found: dict[str, int] = {}
    with ExitStack() as scope:
        _compare(upper_fd, list(lower_fds), "", found, scope)
    return [Change(found[path], path) for path in sorted(found)]


def _compare(upper_fd: int, lowers: list[int], prefix: str, found: dict[str, int], scope: ExitStack) -> None:
    """Work through directories from a list, not by recursion; parents of what changed are filled in at the end."""
    waiting = [(upper_fd, lowers, prefix)]
    while waiting:
        fd, below, path = waiting.pop()
        names = os.listdir(fd)
        for name in names:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            before = _status_below(below, name)
            shown = f"{path}/{os.fsencode(name).decode('utf-8', 'replace')}"
            if is_whiteout(status):
                if before is not None:
                    found[shown] = DELETED
                    _touch_parents(shown, found)
                continue
            if before is None or not _same(status, before):
                found[shown] = ADDED if before is None else CHANGED
                _touch_parents(shown, found)
            if stat.S_ISDIR(status.st_mode):
                child = _open(name, fd, scope)
                deeper = _directories_below(below, name, scope)
                if _opaque(child):
                    for gone in _merged_names(deeper) - set(os.listdir(child)):
                        found[f"{shown}/{os.fsencode(gone).decode('utf-8', 'replace')}"] = DELETED
                        _touch_parents(f"{shown}/x", found)
                waiting.append((child, deeper, shown))


def _same(now: os.stat_result, before: os.stat_result) -> bool:
    """A directory that was only copied up is as before; a file in the upper directory has changed."""
    if not (stat.S_ISDIR(now.st_mode) and stat.S_ISDIR(before.st_mode)):
        return False
    return (now.st_mode, now.st_uid, now.st_gid, now.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        before.st_mtime_ns,
    )


def _touch_parents(path: str, found: dict[str, int]) -> None:
    while path := path.rpartition("/")[0]:
        if path in found:
            return
        found[path] = CHANGED


def _open(name: str, fd: int, scope: ExitStack) -> int:
    opened = os.open(name, _DIRECTORY, dir_fd=fd)
    scope.callback(os.close, opened)
    return opened


def _status_below(lowers: list[int], name: str) -> os.stat_result | None:
    """What the layers below show under `name`; a whiteout shows nothing."""
    for fd in lowers:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        return None if is_whiteout(status) else status
    return None


def _directories_below(lowers: list[int], name: str, scope: ExitStack) -> list[int]:
    """The directories that merge into `name`, top first: down to the first that is opaque or no directory."""
    merged = []
    for fd in lowers:
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                break
        except FileNotFoundError:
            continue
        merged.append(_open(name, fd, scope))
        if _opaque(merged[-1]):
            break
    return merged


def _merged_names(lowers: list[int]) -> set[str]:
    names = {name for fd in lowers for name in os.listdir(fd)}
    return {name for name in names if _status_below(lowers, name) is not None}


def _opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
