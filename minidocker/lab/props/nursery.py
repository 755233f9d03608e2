"""A place in the control group trees where a cell may make groups of its own.

Source  kernel Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
Rules   - for isolated cells only: all is made below the group that the cell's supervisor made and removes, whatever
          happens, so nothing outlives the cell and the cell's own limits hold for what is below them too.
        - in version 2 a group with processes hands no controllers down: so `nursery` moves them into a leaf first.
"""

import os

from minidocker.errors import NotFound
from minidocker.lab.cell import CGROUP_PREFIX
from minidocker.linux import cgroup_files as files
from minidocker.linux.cgroups import Cgroup, Hierarchies

LEAF = "cell"
CONTROLLERS = ("cpu", "memory", "pids")


def own_group(hierarchies: Hierarchies | None = None) -> Cgroup:
    """The group that this isolated cell runs in.

    Raises  NotFound: this process is in no such group; begin the cell with %%isolated.
    """
    trees = hierarchies or Hierarchies.detect()
    tree = trees.trees[-1]
    for entry in os.scandir(tree):
        if entry.name.startswith(CGROUP_PREFIX.lstrip("/")):
            group = Cgroup.open(f"/{entry.name}", trees)
            if os.getpid() in group.pids():
                return group
    raise NotFound("this process has no control group of a lesson's cell: begin the cell with %%isolated")


def nursery(hierarchies: Hierarchies | None = None) -> Cgroup:
    """The cell's group, ready to have groups below it; in version 2 the cell's processes are then in a leaf of it.

    Raises  NotFound: see `own_group`.
    """
    group = own_group(hierarchies)
    unified, offered = group.directory(""), group.hierarchies.unified_controllers.intersection(CONTROLLERS)
    if unified is not None and offered:
        leaf = f"{unified}/{LEAF}"
        files.mkdir(leaf)
        for pid in files.pids(str(unified)):
            files.write(f"{leaf}/cgroup.procs", str(pid))
        files.write(f"{unified}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(offered)))
    return group


def directories(group: Cgroup) -> dict[str, str]:
    """Where each controller (cpu, memory, pids) keeps its files of `group`: {"cpu": "/sys/fs/cgroup/...", ...}."""
    found = {name: group.directory(name) for name in CONTROLLERS}
    return {name: str(directory) for name, directory in found.items() if directory is not None}
