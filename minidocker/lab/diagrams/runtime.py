"""What a runtime does with a container: the states of its life with the present one marked, and who started whom.

Source  OCI runtime-spec, runtime.md ("State", "Lifecycle"); proc_pid_status(5).
Rules   - the present state is what the runtime finds out by looking at the process, at that moment.
"""

from pathlib import Path

from minidocker.errors import NotFound
from minidocker.lab.diagrams.picture import OWN, Picture, quoted
from minidocker.lab.diagrams.processes import Process, status_of
from minidocker.runtime.standalone import Standalone

NOTHING = "no container"
# From, what is done, to: those of the specification, and two that runc has added (pause; delete before the start).
MOVES = (
    (NOTHING, "create", "created"),
    ("created", "start", "running"),
    ("created", "kill", "stopped"),
    ("created", "delete", NOTHING),
    ("running", "pause", "paused"),
    ("paused", "resume", "running"),
    ("running", "kill, or its end", "stopped"),
    ("stopped", "delete", NOTHING),
)
STATES = (NOTHING, "created", "running", "paused", "stopped")


def state_of(root: Path, id: str) -> tuple[str, int]:
    """The state of a container of minidocker-runtime, one of STATES, and the pid of its process (0: none).

    root  the runtime's --root.
    """
    try:
        standing = Standalone(root).find(id)
    except NotFound:
        return NOTHING, 0
    return standing.status, int(standing.document()["pid"])


def state_machine(root: Path, id: str) -> Picture:
    """The states of a container's life, the present one marked in words, with the commands that lead on from it."""
    now, pid = state_of(root, id)
    lines, rows = [], []
    for state in STATES:
        words = [
            state,
            *([f"NOW ({id})"] if state == now else []),
            *([f"process {pid}"] if state == now and pid else []),
        ]
        look = f'fillcolor="{OWN}" style="filled,bold"' if state == now else 'style="filled,dashed"'
        lines.append(f"{quoted(state)} [label={quoted(*words)} {look}]")
    for start, command, end in MOVES:
        possible = start == now
        lines.append(
            f"{quoted(start)} -> {quoted(end)} [label={quoted(command)} style={'bold' if possible else 'dashed'}]"
        )
        rows.append((start, command, end, "possible now" if possible else "-"))
    commands = " or ".join(command for start, command, _ in MOVES if start == now)
    alt = f"{id} is in the state '{now}'" + (f" with process {pid}" if pid else "") + f"; from here {commands} leads on"
    return Picture("\n".join(lines), alt, ("state", "command", "next state", "possible"), tuple(rows))


def ancestors(pid: int) -> list[Process]:
    """The process and its parents up to the machine's first one, the oldest first. Raises OSError: no such process."""
    chain: list[Process] = []
    while pid:
        fields = status_of(pid)
        pids = tuple(int(number) for number in fields["NSpid"].split())
        chain.insert(0, Process(pid, int(fields["PPid"]), fields["State"].split()[0], _name(pid), pids))
        pid = chain[0].parent
    return chain


def _name(pid: int) -> str:
    """The beginning of its command line: a longer name than the kernel's own of 15 letters."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    names = [Path(word.decode(errors="replace")).name for word in words[:2] if word]
    if names and names[0].startswith("python") and len(names) > 1:
        return names[1]
    own = status_of(pid)["Name"]
    return names[0] if names and not own.startswith("minidocker-mon") else own


def lineage(pid: int, title: str = "who started whom", jobs: dict[str, str] | None = None) -> Picture:
    """The chain of parents of a process, from the machine's first process down to it.

    jobs     what a process is for, by the beginning of its name.
    Raises   OSError: there is no such process.
    """
    chain = ancestors(pid)
    lines, rows = [], []
    for process in chain:
        job = next((text for name, text in (jobs or {}).items() if process.command.startswith(name)), "")
        inside = str(process.pids[-1]) if len(process.pids) > 1 else "-"
        label = quoted(*filter(None, (process.command, job, f"pid {process.pid}, inside {inside}")))
        look = f'fillcolor="{OWN}" style="filled,bold"' if process.pid == pid else 'style="filled"'
        lines.append(f"p{process.pid} [label={label} {look}]")
        if process.parent:
            lines.append(f"p{process.parent} -> p{process.pid}")
        rows.append((process.command, job or "-", str(process.pid), inside))
    alt = f"{title}: {', then '.join(process.command for process in chain)}"
    return Picture("\n".join(lines), alt, ("process", "its job", "pid", "pid inside"), tuple(rows))
