"""An overlay as a stack of layers: who holds which name, and which of them is seen.

Source  kernel Documentation/filesystems/overlayfs.rst (upper and lower, whiteouts, opaque directories);
        proc_pid_mountinfo(5).
Rules   - which layers there are is the kernel's word (mountinfo); what is in them is read from their directories.
        - what is seen is asked of the mount itself where it can be reached, and worked out by overlayfs's rules: if the
          two differed, the picture would say so.
"""

import html
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minidocker.errors import NotFound
from minidocker.lab.diagrams.picture import INK, OWN, SHARED, Picture, count
from minidocker.linux.mounts import mountinfo
from minidocker.storage.directories import OPAQUE_XATTR, is_whiteout

MOST = 8
NOWHERE, NOT_SEEN = "", "not seen"


@dataclass(frozen=True, slots=True)
class Layer:
    """One directory of an overlay. `writable`: it is the upper directory."""

    label: str
    directory: Path
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Overlay:
    """The layers, top first, and where the whole is seen (None: it cannot be reached from here)."""

    layers: tuple[Layer, ...]
    merged: Path | None


def overlay_at(mount_point: str = "/", *, pid: int | str = "self", base: Path | None = None) -> Overlay:
    """The overlay that a process sees at `mount_point`.

    base    the directory from which the kernel was given relative paths of lower layers.
    Raises  NotFound: there is no overlay. KernelError: no such process.
    """
    mounts = [mount for mount in mountinfo(pid) if mount.mount_point == mount_point]
    if not mounts or mounts[-1].fstype != "overlay":
        raise NotFound(f"process {pid} has no overlay mounted at {mount_point}")
    options = dict(option.partition("=")[::2] for option in mounts[-1].super_options)
    lowers = [Path(base or "/") / _plain(path) for path in _split(options["lowerdir"])]
    upper = options.get("upperdir")
    layers = [Layer("upper (writable)", Path(_plain(upper)), writable=True)] if upper else []
    for number, path in zip(range(len(lowers), 0, -1), lowers, strict=True):
        layers.append(Layer(f"lower {number}" if len(lowers) > 1 else "lower", path))
    return Overlay(tuple(layers), Path(f"/proc/{pid}/root") / mount_point.lstrip("/"))


def _split(text: str) -> list[str]:
    """Paths between colons; a backslash takes a colon's meaning away."""
    return [part.replace("\0", "\\:") for part in text.replace("\\:", "\0").split(":")]


def _plain(path: str) -> str:
    return path.replace("\\:", ":").replace("\\,", ",").replace("\\\\", "\\")


# ---------------------------------------------------------------- what a layer holds


def what_is_at(layer: Path, path: str) -> str:
    """What a layer holds under a name, in words; "" for nothing."""
    place = layer / path.lstrip("/")
    try:
        status = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return NOWHERE
    if is_whiteout(status):
        return "whiteout"
    if stat.S_ISDIR(status.st_mode):
        return "opaque directory" if _is_opaque(place) else "directory"
    if stat.S_ISLNK(status.st_mode):
        return f"link to {os.readlink(place)}"
    return f"file, {size(status.st_size)}" if stat.S_ISREG(status.st_mode) else "special file"


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def size(number: int) -> str:
    """Bytes, for people."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB" if number >= 1e3 else f"{number} B"


def origin(layers: Sequence[Layer], path: str) -> int | None:
    """Which of the layers (top first) gives what is seen at `path`; None: nothing is seen.

    The first that has the name gives it, unless it is a whiteout. What lies below a whiteout, below something that is
    no directory, or below an opaque directory, is out of sight for all that is in it as well.
    """
    parts = path.strip("/").split("/")
    for number, layer in enumerate(layers):
        opaque = False
        for depth in range(1, len(parts) + 1):
            found = what_is_at(layer.directory, "/".join(parts[:depth]))
            if found == "whiteout":
                return None
            if found and depth == len(parts):
                return number
            if found and not found.endswith("directory"):
                return None
            opaque |= found == "opaque directory"
            if not found:
                break
        if opaque:
            return None
    return None


def paths_in(layers: Sequence[Layer], below: str = "/") -> Iterator[str]:
    """Every name in the layers' directories below a path, each once, top layer first; plain directories left out."""
    seen: set[str] = set()
    for layer in layers:
        top = layer.directory / below.strip("/")
        for directory, directories, files in os.walk(top):
            directories.sort()
            for name in sorted([*files, *directories]):
                path = "/" + os.path.relpath(os.path.join(directory, name), layer.directory)
                if path not in seen and what_is_at(layer.directory, path) != "directory":
                    seen.add(path)
                    yield path


# ---------------------------------------------------------------- the picture


def overlay_stack(overlay: Overlay, *, below: str = "/", names: Sequence[str] = (), most: int = MOST) -> Picture:
    """The layers as a stack, seen from above: for each name who holds it, and which of them is seen.

    below   only names below this path.
    names   these names instead of all; `most` limits how many are shown.
    Raises  OSError: a layer's directory may not be read, or has gone.
    """
    for layer in overlay.layers:
        layer.directory.stat()
    everything = list(names) or sorted(paths_in(overlay.layers, below))
    chosen = everything[:most]
    held = {path: [what_is_at(layer.directory, path) for layer in overlay.layers] for path in chosen}
    seen = {path: origin(overlay.layers, path) for path in chosen}
    columns = ("name", "seen", *(layer.label for layer in overlay.layers))
    rows = [(path, _seen(overlay, path, seen[path]), *held[path]) for path in chosen]
    hidden = sum(bool(what) for path in chosen for number, what in enumerate(held[path]) if number != seen[path])
    alt = (
        f"an overlay of {count(len(overlay.layers), 'layer')}: {count(len(chosen), 'name')}"
        f"{f' (the first of {len(everything)})' if len(everything) > most else ''}, "
        f"{sum(number is not None for number in seen.values())} of them seen; "
        f"entries that are hidden, or hide: {hidden or 'none'}"
    )
    return Picture(_table(overlay, chosen, held, seen, rows), alt, columns, tuple(rows))


def _seen(overlay: Overlay, path: str, number: int | None) -> str:
    """What a process sees there, and from which layer; checked against the mount itself."""
    told = NOT_SEEN if number is None else f"from {overlay.layers[number].label}"
    if overlay.merged is not None and os.path.lexists(overlay.merged / path.lstrip("/")) != (number is not None):
        told += " (but the mount says otherwise)"
    return told


def _table(
    overlay: Overlay,
    chosen: Sequence[str],
    held: dict[str, list[str]],
    seen: dict[str, int | None],
    rows: Sequence[tuple[str, ...]],
) -> str:
    """One node, a table: a column for each name, a row for each layer, what is seen on top."""
    head = "".join(_cell(path, bold=True) for path in chosen)
    merged = "".join(_cell(row[1], fill="white") for row in rows)
    body = [f"<TR>{_cell('')}{head}</TR>", f"<TR>{_cell('what is seen', bold=True)}{merged}</TR>"]
    for number, layer in enumerate(overlay.layers):
        cells = "".join(_held(held[path], number, seen[path]) for path in chosen)
        body.append(f"<TR>{_cell(layer.label, bold=True)}{cells}</TR>")
    table = f'<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="3" CELLPADDING="5" COLOR="{INK}">{"".join(body)}</TABLE>'
    return f'stack [shape="plain" style="" label=<{table}>]'


def _held(held: Sequence[str], number: int, seen: int | None) -> str:
    """What one layer holds under a name, and what becomes of it."""
    what = held[number]
    if not what:
        return '<TD BORDER="0"></TD>'
    if number == seen:
        return _cell(what, "seen", fill=OWN, bold=True)
    merges = seen is not None and what.endswith("directory") and set(held[seen:number]) <= {"directory", ""}
    return _cell(what, "hides what is below" if what == "whiteout" else "merged" if merges else "hidden", fill=SHARED)


def _cell(*lines: str, fill: str = "", bold: bool = False) -> str:
    text = "<BR/>".join(html.escape(line) for line in lines)
    if bold and text:
        text = f"<B>{text}</B>"
    if fill:
        return f'<TD BGCOLOR="{fill}">{text}</TD>'
    return f'<TD BORDER="0">{text}</TD>'
