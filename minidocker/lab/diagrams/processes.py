"""Who is whose child, with each process's number outside and inside its pid namespace.

Source  proc_pid_status(5) NSpid; pid_namespaces(7).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minidocker.lab.diagrams.picture import OWN, Picture, count, quoted


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
        label = quoted(name, f"outside {process.pid}, inside {inside}")
        style = "filled,dashed" if zombie else "filled"
        fill = OWN if len(process.pids) > 1 else "white"
        lines.append(f'p{process.pid} [label={label} style="{style}" fillcolor="{fill}"]')
        if process.pid != root:
            lines.append(f"p{process.parent} -> p{process.pid}")
        rows.append((process.command, str(process.pid), inside, process.state))
    inside_count = sum(len(process.pids) > 1 for process in processes)
    zombies = sum(process.state == "Z" for process in processes)
    alt = (
        f"{title or 'process tree'}: {count(len(processes), 'process')}, "
        f"{inside_count or 'none'} of them in an inner pid namespace"
        + (f", {count(zombies, 'zombie')}" if zombies else "")
    )
    return Picture("\n".join(lines), alt, ("command", "pid outside", "pid inside", "state"), tuple(rows))
