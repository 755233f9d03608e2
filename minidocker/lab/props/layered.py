"""A small overlay for a cell to play with: lower layers, an upper one, and the tree that they make together.

Source  kernel Documentation/filesystems/overlayfs.rst.
Rules   - for isolated cells: all of it is on a filesystem of its own below /mnt, which ends with the cell.
        - layers are given base first, as images name them; the kernel is given them the other way round.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from minidocker.linux.mounts import mount
from minidocker.storage.overlay import mount_overlay, options

TOP = Path("/mnt")


class Stack(NamedTuple):
    """Where the parts are. `base`: the directory with the lower layers, called "1", "2", ..."""

    base: Path
    upper: Path
    merged: Path


def stack(*lowers: Mapping[str, str | int]) -> Stack:
    """Mount an overlay over lower layers, base first.

    lowers  each: path -> content; a number stands for so many zero bytes.
    Raises  KernelError: EPERM this process may not mount: begin the cell with %%isolated.
    """
    mount("tmpfs", str(TOP), "tmpfs")
    for number, files in enumerate(lowers, start=1):
        fill(TOP / str(number), files)
    for name in ("upper", "work", "merged"):
        (TOP / name).mkdir()
    names = ":".join(str(number) for number in range(len(lowers), 0, -1))
    mount_overlay(str(TOP), options(names, str(TOP / "upper"), str(TOP / "work")), str(TOP / "merged"))
    return Stack(TOP, TOP / "upper", TOP / "merged")


def fill(directory: Path, files: Mapping[str, str | int]) -> None:
    """Write files below a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else bytes(content))
