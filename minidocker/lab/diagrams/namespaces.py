"""Which process is in which namespace.

Source  proc_pid_ns(5), namespaces(7).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, quoted
from minidocker.linux.namespaces import KINDS, PROC_NAME


def namespaces_of(processes: Mapping[str, int | str]) -> Picture:
    """Which processes share which namespaces.

    processes  label -> pid (or "self"), in the order of the columns.
    Raises     OSError: a process has ended, or may not be looked at.
    """
    kinds = [kind for kind in KINDS if Path(f"/proc/self/ns/{PROC_NAME[kind]}").exists()]
    found = {
        label: {kind: os.readlink(f"/proc/{pid}/ns/{PROC_NAME[kind]}") for kind in kinds}
        for label, pid in processes.items()
    }
    labels = list(found)
    lines, rows, differing = [], [], 0
    for label in labels:
        lines.append(f'{quoted("process " + label)} [label={quoted(label)} shape="ellipse" style="bold"]')
    for kind in kinds:
        holders: dict[str, list[str]] = {}
        for label in labels:
            holders.setdefault(found[label][kind], []).append(label)
        differing += len(holders) > 1
        for name, members in holders.items():
            shared = len(members) > 1
            label = quoted(name, f"shared by {len(members)}" if shared else "own")
            look = f'fillcolor="{SHARED}"' if shared else f'fillcolor="{OWN}" style="filled,bold"'
            lines.append(f"{quoted(name)} [label={label} {look}]")
            lines += [f"{quoted('process ' + member)} -> {quoted(name)} [arrowhead=none]" for member in members]
        rows.append((kind, *(found[label][kind].partition(":")[2] for label in labels)))
    alt = f"{', '.join(labels)}: they differ in {differing} of {len(kinds)} kinds of namespace and share the others"
    return Picture("\n".join(lines), alt, ("namespace", *labels), tuple(rows))
