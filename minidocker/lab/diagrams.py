"""Pictures of live state: which process is in which namespace, what is mounted where, who is whose child.

Source  proc_pid_ns(5), proc_pid_mountinfo(5), proc_pid_status(5) NSpid; the DOT language (graphviz.org).
Rules   - a picture is drawn from what the kernel says at that moment, never from what we believe.
        - each has a text that says the same (`alt`) and a table, and no meaning by colour alone.
        - without graphviz the table is shown instead of the picture.
"""

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minidocker.linux.mounts import Mount, mountinfo
from minidocker.linux.namespaces import KINDS, PROC_NAME

# Readable on light and dark pages alike: the picture brings its own paper.
_PAPER, _INK, _SHARED, _OWN = "#fbfaf7", "#222222", "#e8eef7", "#fdebd3"
_GRAPH = f'graph [bgcolor="{_PAPER}" fontname="Helvetica" pad="0.2" rankdir="LR" nodesep="0.15"]'
_TEXT = f'fontname="Helvetica" color="{_INK}" fontcolor="{_INK}"'
_NODE = f'node [{_TEXT} fontsize="11" shape="box" style="filled" fillcolor="white"]'
_EDGE = f'edge [{_TEXT} fontsize="9"]'


@dataclass(frozen=True)
class Picture:
    """A diagram with the same facts as text and as a table; a notebook shows it as the last value of a cell.

    dot      DOT source of the graph's body.
    alt      one sentence that says what the picture shows.
    columns  headings of the table; `rows` its cells.
    """

    dot: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def svg(self) -> str | None:
        """The picture as SVG, or None where graphviz is absent."""
        try:
            import graphviz

            source = graphviz.Source(f"digraph {{ {_GRAPH} {_NODE} {_EDGE}\n{self.dot}\n}}")
            return str(source.pipe(format="svg", encoding="utf-8"))
        except (ImportError, OSError, RuntimeError):
            return None

    def table(self) -> str:
        """The facts as plain text."""
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.columns, *self.rows)
        ]
        return "\n".join(lines)

    def _html_table(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _repr_mimebundle_(self, **_options: object) -> dict[str, str]:
        text, svg = f"{self.alt}\n\n{self.table()}", self.svg()
        if svg is None:
            return {"text/plain": text}
        data = base64.b64encode(svg.encode()).decode()
        figure = (
            f'<figure style="margin:0"><img alt="{html.escape(self.alt, quote=True)}" style="max-width:100%" '
            f'src="data:image/svg+xml;base64,{data}"/><figcaption>{html.escape(self.alt)}</figcaption>'
            f"<details><summary>The same as a table</summary>{self._html_table()}</details></figure>"
        )
        return {"text/plain": text, "text/html": figure}


def _quoted(*lines: str) -> str:
    """A DOT string of one or more lines."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


# ---------------------------------------------------------------- processes and their namespaces


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
        lines.append(f'{_quoted("process " + label)} [label={_quoted(label)} shape="ellipse" style="bold"]')
    for kind in kinds:
        holders: dict[str, list[str]] = {}
        for label in labels:
            holders.setdefault(found[label][kind], []).append(label)
        differing += len(holders) > 1
        for name, members in holders.items():
            shared = len(members) > 1
            label = _quoted(name, f"shared by {len(members)}" if shared else "own")
            look = f'fillcolor="{_SHARED}"' if shared else f'fillcolor="{_OWN}" style="filled,bold"'
            lines.append(f"{_quoted(name)} [label={label} {look}]")
            lines += [f"{_quoted('process ' + member)} -> {_quoted(name)} [arrowhead=none]" for member in members]
        rows.append((kind, *(found[label][kind].partition(":")[2] for label in labels)))
    alt = f"{', '.join(labels)}: they differ in {differing} of {len(kinds)} kinds of namespace and share the others"
    return Picture("\n".join(lines), alt, ("namespace", *labels), tuple(rows))


# ---------------------------------------------------------------- mounts


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
        label = _quoted(mount.mount_point, f"{mount.fstype}, {propagation}")
        look = 'fillcolor="white"' if propagation == "private" else f'fillcolor="{_OWN}" style="filled,bold"'
        lines.append(f"m{mount.id} [label={label} {look}]")
        if mount.parent_id in there and mount.parent_id != mount.id:
            lines.append(f"m{mount.parent_id} -> m{mount.id}")
        rows.append((mount.mount_point, mount.fstype, propagation, ",".join(mount.options)))
    shared = sum(_propagation(mount) != "private" for mount in chosen)
    alt = f"{_count(len(chosen), 'mount')} at or below {below}, {shared or 'none'} of them tied to other namespaces"
    return Picture("\n".join(lines), alt, ("mount point", "filesystem", "propagation", "options"), tuple(rows))


def _is_below(path: str, root: str) -> bool:
    return root == "/" or path == root or path.startswith(root.rstrip("/") + "/")


def _propagation(mount: Mount) -> str:
    return " ".join(mount.propagation) or "private"


# ---------------------------------------------------------------- process trees


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc tells it. `pids`: outermost namespace first, its own last."""

    pid: int
    parent: int
    state: str
    command: str
    pids: tuple[int, ...]


def status_of(pid: int) -> dict[str, str]:
    """What the kernel tells of a process, by name: "PPid", "NSpid", "VmRSS", "SigCgt" ...

    Raises  OSError: there is no such process.
    Source  proc_pid_status(5).
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def processes_below(root: int) -> list[Process]:
    """`root` and all its descendants, parents first; processes that end meanwhile are left out."""
    everything = {process.pid: process for process in _all_processes()}
    found = [everything[root]] if root in everything else []
    for process in found:
        found += sorted((p for p in everything.values() if p.parent == process.pid), key=lambda p: p.pid)
    return found


def _all_processes() -> Iterable[Process]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = status_of(int(entry))
        except OSError:
            continue
        pids = tuple(int(pid) for pid in fields["NSpid"].split())
        yield Process(int(entry), int(fields["PPid"]), fields["State"].split()[0], fields["Name"], pids)


def process_tree(root: int, title: str = "") -> Picture:
    """`root` and its descendants, each with its pid outside and its pid inside its namespace.

    Raises  ValueError: there is no such process.
    """
    processes = processes_below(root)
    if not processes:
        raise ValueError(f"there is no process {root}")
    lines, rows = [], []
    for process in processes:
        inside = str(process.pids[-1]) if len(process.pids) > 1 else "-"
        zombie = process.state == "Z"
        name = f"{process.command}{' (zombie)' if zombie else ''}"
        label = _quoted(name, f"outside {process.pid}, inside {inside}")
        style = "filled,dashed" if zombie else "filled"
        fill = _OWN if len(process.pids) > 1 else "white"
        lines.append(f'p{process.pid} [label={label} style="{style}" fillcolor="{fill}"]')
        if process.pid != root:
            lines.append(f"p{process.parent} -> p{process.pid}")
        rows.append((process.command, str(process.pid), inside, process.state))
    inside_count = sum(len(process.pids) > 1 for process in processes)
    zombies = sum(process.state == "Z" for process in processes)
    alt = (
        f"{title or 'process tree'}: {_count(len(processes), 'process')}, "
        f"{inside_count or 'none'} of them in an inner pid namespace"
        + (f", {_count(zombies, 'zombie')}" if zombies else "")
    )
    return Picture("\n".join(lines), alt, ("command", "pid outside", "pid inside", "state"), tuple(rows))
