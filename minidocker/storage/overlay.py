"""Overlay mounts: many read-only layers and one writable one, seen as a single tree.

Source  kernel Documentation/filesystems/overlayfs.rst; mount(2).
Rules   - lowerdir lists the TOP layer first; our chain lists the base first. LayerStore.lowerdir reverses once.
        - upperdir and workdir are on the same filesystem; workdir belongs to this mount alone.
        - nobody touches upperdir while the mount is live.
        - the kernel takes at most one page of options: that is why layers have short relative names.
"""

import os

from minidocker.errors import InvalidArgument
from minidocker.linux.mounts import MountFlag, mount

OPTIONS_LIMIT_BYTES = 4095


def escape(path: str) -> str:
    """`path` as overlayfs wants it inside its option string: backslash, comma and colon need a backslash."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def options(lowerdir: str, upperdir: str | None, workdir: str | None, *, in_user_namespace: bool = False) -> str:
    """The option string of an overlay mount; pure.

    lowerdir            colon-separated and already escaped, top layer first (LayerStore.lowerdir makes it).
    upperdir, workdir   None, both: a read-only view of the lower layers.
    in_user_namespace   True: opaque marks are read from user.overlay.*, which a user namespace's root may set.
    Raises              InvalidArgument: more than a page.
    """
    words = [f"lowerdir={lowerdir}"]
    if upperdir is not None and workdir is not None:
        words += [f"upperdir={escape(upperdir)}", f"workdir={escape(workdir)}"]
    if in_user_namespace:
        words.append("userxattr")
    text = ",".join(words)
    if len(os.fsencode(text)) > OPTIONS_LIMIT_BYTES:
        raise InvalidArgument(
            f"overlay options take {len(os.fsencode(text))} bytes, the kernel reads {OPTIONS_LIMIT_BYTES}; "
            "use a data root with a shorter path"
        )
    return text


def mount_overlay(layers_directory: str, option_string: str, target: str) -> None:
    """Mount an overlay at `target`; the working directory becomes `layers_directory`, where lowerdirs start.

    For a process of its own in a mount namespace of its own: the mount ends with it.
    Raises  KernelError: EINVAL a layer is missing or the options are wrong; EBUSY the upper directory is in use.
    """
    os.chdir(layers_directory)
    mount("overlay", target, "overlay", MountFlag(0), option_string)
