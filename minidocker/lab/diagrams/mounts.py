"""What is mounted where, and which mounts tell other namespaces what happens to them.

Source  proc_pid_mountinfo(5), mount_namespaces(7).
"""

from collections.abc import Sequence

from minidocker.lab.diagrams.picture import OWN, Picture, count, quoted
from minidocker.linux.mounts import Mount, mountinfo


def mount_tree(mounts: Sequence[Mount] | None = None, *, below: str = "/") -> Picture:
    """The mounts as a tree, with filesystem and propagation.

    mounts  from `mountinfo`; None: those of this process.
    below   only mount points at or below this path.
    """
    everything = list(mounts) if mounts is not None else mountinfo()
    chosen = [mount for mount in everything if _is_below(mount.mount_point, below)]
    there = {mount.id for mount in chosen}
    lines, rows = [], []
    for mount in chosen:
        propagation = _propagation(mount)
        label = quoted(mount.mount_point, f"{mount.fstype}, {propagation}")
        look = 'fillcolor="white"' if propagation == "private" else f'fillcolor="{OWN}" style="filled,bold"'
        lines.append(f"m{mount.id} [label={label} {look}]")
        if mount.parent_id in there and mount.parent_id != mount.id:
            lines.append(f"m{mount.parent_id} -> m{mount.id}")
        rows.append((mount.mount_point, mount.fstype, propagation, ",".join(mount.options)))
    shared = sum(_propagation(mount) != "private" for mount in chosen)
    alt = f"{count(len(chosen), 'mount')} at or below {below}, {shared or 'none'} of them tied to other namespaces"
    return Picture("\n".join(lines), alt, ("mount point", "filesystem", "propagation", "options"), tuple(rows))


def _is_below(path: str, root: str) -> bool:
    return root == "/" or path == root or path.startswith(root.rstrip("/") + "/")


def _propagation(mount: Mount) -> str:
    return " ".join(mount.propagation) or "private"
