"""What processes may do: their capabilities, the brakes on them, and who they are outside.

Source  proc_pid_status(5) (CapEff, CapBnd, NoNewPrivs, Seccomp); user_namespaces(7) (uid_map).
Rules   - all is read from /proc at that moment.
        - a capability counts over what belongs to the process's user namespace: so that is drawn too.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted
from minidocker.lab.diagrams.processes import status_of
from minidocker.linux.capabilities import names, read

_SECCOMP = {"0": "no filter", "1": "strict", "2": "a filter"}
_LISTED = 3


@dataclass(frozen=True, slots=True)
class Privileges:
    """What the kernel tells of one process. uid: as seen from this process; inside: in its own user namespace."""

    effective: int
    bounding: int
    no_new_privileges: bool
    seccomp: str
    uid: int
    inside: int
    user_namespace: str

    @property
    def everything(self) -> bool:
        """Whether it has every capability that a process may have here (that we may have ourselves)."""
        return self.effective == read()["CapBnd"]


def privileges_of(pid: int | str) -> Privileges:
    """The privileges of a process. Raises OSError: there is no such process, or it may not be looked at."""
    fields = status_of(os.getpid() if pid == "self" else int(pid))
    uid = int(fields["Uid"].split()[1])
    found = Path(f"/proc/{pid}/uid_map").read_text().split()
    ranges = [tuple(map(int, found[at : at + 3])) for at in range(0, len(found), 3)]
    inside = next((first + uid - outer for first, outer, length in ranges if outer <= uid < outer + length), 65534)
    return Privileges(
        int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields["NoNewPrivs"] == "1",
        _SECCOMP.get(fields["Seccomp"], fields["Seccomp"]), uid, inside, os.readlink(f"/proc/{pid}/ns/user"),
    )  # fmt: skip


def _caps(bits: int) -> str:
    found = [name.removeprefix("CAP_").lower() for name in names(bits)]
    if not found:
        return "none"
    if bits == read()["CapBnd"]:
        return f"all {len(found)}"
    return ", ".join(found) if len(found) <= _LISTED else f"{len(found)} capabilities"


def privilege_board(processes: Mapping[str, int | str]) -> Picture:
    """Processes side by side with what each may do, grouped by their user namespaces.

    processes  label -> pid (or "self"), in the order of the columns.
    Raises     OSError: one has ended, or may not be looked at.
    """
    found = {label: privileges_of(pid) for label, pid in processes.items()}
    lines, rows = ['rankdir="TB"', 'node [shape="box"]'], []
    for name in dict.fromkeys(one.user_namespace for one in found.values()):
        members = [label for label, one in found.items() if one.user_namespace == name]
        own = os.readlink("/proc/self/ns/user") != name
        lines.append(f'{quoted(name)} [label={quoted(name, "of its own" if own else "the machine")} '
                     f'shape="ellipse" style="{"bold" if own else "solid"}"]')  # fmt: skip
        lines += [f"{quoted(name)} -> {quoted('process ' + label)} [arrowhead=none]" for label in members]
    for label, one in found.items():
        identity = f"uid {one.inside}" if one.inside == one.uid else f"uid {one.inside} inside, {one.uid} outside"
        brakes = (f"seccomp: {one.seccomp}", f"no new privileges: {'yes' if one.no_new_privileges else 'no'}")
        facts = (identity, f"may now: {_caps(one.effective)}", f"may ever: {_caps(one.bounding)}", *brakes)
        look = f'fillcolor="{OWN}" style="filled,bold"' if one.everything else f'fillcolor="{SHARED}" style="filled"'
        lines.append(f"{quoted('process ' + label)} [label={quoted(label, *facts)} {look}]")
        rows.append((label, *(fact.partition(": ")[2] or fact for fact in facts), one.user_namespace))
    powerful = sum(one.everything for one in found.values())
    alt = (
        f"privileges of {', '.join(found)}: {count(powerful, 'process')} with every capability, "
        f"{sum(one.uid != one.inside for one in found.values())} with another uid outside"
    )
    columns = ("process", "who", "may now", "may ever", "seccomp", "no new privileges", "user namespace")
    return Picture("\n".join(lines), alt, columns, tuple(rows))
