"""The tree of control groups: who is in which, with which limits.

Source  kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; proc_pid_cgroup(5).
Rules   - a group is drawn once, whether the host keeps it in one tree (version 2) or in one for each controller.
        - limits are read from the kernel's files at that moment; what is not limited is said to be so.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from minidocker.errors import NotFound
from minidocker.lab.diagrams.picture import OWN, Picture, count, quoted
from minidocker.linux import cgroup_files as files
from minidocker.linux.cgroups import Cgroup, Hierarchies

NO_LIMIT = "no limit"
COLUMNS = ("group", "processes", "memory", "processor", "pids", "trees")
_NAMES_SHOWN = 4
_MIB = 1 << 20


def group_of(pid: int, hierarchies: Hierarchies | None = None) -> Cgroup:
    """The control group that a process is in.

    Raises  OSError: there is no such process. NotFound: it is in no group that is visible here.
    """
    trees = hierarchies or Hierarchies.detect()
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for tree in (*trees.v1, ""):
        if tree in paths and trees.tree(tree) is not None and paths[tree] != "/":
            return Cgroup.open(paths[tree], trees)
    raise NotFound(f"process {pid} is in the root group, or in a group that cannot be seen from here")


def cpu_limit(group: Cgroup) -> tuple[int, int] | None:
    """Quota and period in microseconds: so much processor time in each period; None where there is no limit."""
    quota, _, period = group.read("cpu", "cpu.max").strip().partition(" ")
    if not period:
        quota, period = (group.read("cpu", f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return (int(quota), int(period)) if quota.isdigit() and period.isdigit() else None


def cgroup_tree(groups: Mapping[str, Cgroup]) -> Picture:
    """The groups with all above and below them; each with its limits and members.

    groups  what to call them -> the groups. A group that has gone is left out.
    Raises  ValueError: none of them is there.
    """
    present = {group.path: label for label, group in groups.items() if group.exists()}
    if not present:
        raise ValueError("none of these control groups is there any more")
    trees = next(iter(groups.values())).hierarchies
    paths = sorted({path for one in present for path in (*_above(one), one, *_below(one, trees))})
    lines, rows = [], []
    for number, path in enumerate(paths):
        group = Cgroup(path, trees)
        row = _row(group, path, own=path in present)
        title = present.get(path) or path.rpartition("/")[2] or "/ (the root)"
        label = quoted(_shortened(title), *_words(row, root=path == ""))
        look = f'fillcolor="{OWN}" style="filled,bold"' if path in present else 'fillcolor="white"'
        lines.append(f"g{number} [label={label} {look}]")
        if path:
            lines.append(f"g{paths.index(path.rpartition('/')[0])} -> g{number}")
        rows.append((present.get(path, path or "/"), *row))
    limited = sum(any(NO_LIMIT not in cell for cell in row[2:5]) for row in rows)
    alt = f"{count(len(paths), 'control group')} as a tree ({trees.version}), {limited or 'none'} of them with a limit"
    return Picture("\n".join(lines), alt, COLUMNS, tuple(rows))


def _above(path: str) -> Iterable[str]:
    """All groups on the way down, the root as ""."""
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _below(path: str, trees: Hierarchies) -> Iterable[str]:
    return {found.removeprefix(tree) for tree in trees.trees for found in files.walk(tree + path)} - {path}


def _row(group: Cgroup, path: str, *, own: bool) -> tuple[str, ...]:
    """The cells after the name: processes, memory, processor, pids, trees."""
    used = group.statistics()
    members = files.pids(group.hierarchies.trees[-1] + path)
    if not path:
        return (count(len(members), "process"), NO_LIMIT, NO_LIMIT, NO_LIMIT, _trees(group))
    memory = _limit(used.memory.limit_bytes, lambda value: f"{value / _MIB:g} MiB")
    quota = cpu_limit(group)
    processor = NO_LIMIT if quota is None else f"{quota[0] / quota[1]:.0%} of one ({quota[0]} of {quota[1]} µs)"
    pids = _limit(used.pids.limit, str)
    if own:
        memory = f"{used.memory.usage_bytes / _MIB:.1f} MiB used, {memory}"
        pids = f"{used.pids.current} there, {pids}"
    return (_names(members), memory, processor, pids, _trees(group))


def _limit(value: int | None, text: Callable[[int], str]) -> str:
    return NO_LIMIT if value is None else f"at most {text(value)}"


def _names(pids: list[int]) -> str:
    """How many processes, and what the first ones are called."""
    if not pids:
        return "none"
    commands = [files.read(f"/proc/{pid}/comm").strip() for pid in pids[:_NAMES_SHOWN]]
    more = ", ..." if len(pids) > _NAMES_SHOWN else ""
    return f"{len(pids)}: {', '.join(filter(None, commands))}{more}"


def _trees(group: Cgroup) -> str:
    """In how many trees the group is, and which controllers its version 2 side hands to the groups below it."""
    trees = group.hierarchies
    there = [tree for tree in trees.trees if Path(tree + group.path).is_dir()]
    old = sum(tree != trees.unified for tree in there)
    words = [f"{old} of version 1"] if old else []
    if trees.unified in there:
        handed = group.read("", "cgroup.subtree_control").split()
        words.append("version 2" + (f", hands down {' '.join(handed)}" if handed else ""))
    return " and ".join(words)


def _words(row: tuple[str, ...], *, root: bool) -> list[str]:
    """The lines of a node: its processes, and what is limited."""
    processes, *limits, _ = row
    names = ("memory", "processor", "pids")
    told = [f"{name}: {limit}" for name, limit in zip(names, limits, strict=True) if limit != NO_LIMIT]
    return [f"processes: {processes}" if not root else processes, *told]


def _shortened(name: str) -> str:
    return f"{name[:12]}..." if len(name) == 64 else name
