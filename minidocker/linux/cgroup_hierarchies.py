"""Which control group trees this host has, found by what can be written, not by the kernel's version.

Source  cgroups(7); proc_pid_mounts(5); kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst.
Rules   - version 1 mounts its controllers one by one or together, each mount a tree; a named tree (name=systemd)
          controls nothing but is joined too, so that a cgroup namespace shows none of the host's groups.
        - a hybrid host has both kinds of tree; its version 2 tree is used for killing, freezing and device programs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from minidocker.linux import cgroup_files as files

Version = Literal["v2", "hybrid", "v1", "none"]

_V1_CONTROLLERS = frozenset(
    {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"}
    | {"net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc"}
)


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The control group trees of this host that we may write. Detect once, then hand it to whoever makes groups."""

    unified: str | None  # mount point of the version 2 tree
    unified_controllers: frozenset[str]
    v1: Mapping[str, str]  # version 1 controller -> mount point of its tree; a named tree as "name=systemd"

    @classmethod
    def detect(cls, mounts: Path = Path("/proc/self/mounts")) -> Self:
        """Keep of the mounts (proc_pid_mounts(5)) what is writable; the kernel's version says nothing about it."""
        unified, v1 = None, dict[str, str]()
        for line in mounts.read_text().splitlines():
            _, target, kind, options, *_ = line.split(" ")
            if kind not in ("cgroup", "cgroup2") or not os.access(target, os.W_OK):
                continue
            if not os.path.exists(f"{target}/cgroup.procs"):
                continue  # something else is mounted above it
            if kind == "cgroup2":
                unified = unified or target
                continue
            for option in options.split(","):
                if option in _V1_CONTROLLERS or option.startswith("name="):
                    v1.setdefault(option, target)
        available = files.read(f"{unified}/cgroup.controllers").split() if unified else []
        return cls(unified, frozenset(available), v1)

    @property
    def version(self) -> Version:
        """"v2", "v1", "hybrid" (trees of both kinds) or "none"."""
        if self.v1:
            return "hybrid" if self.unified else "v1"
        return "v2" if self.unified else "none"

    @property
    def trees(self) -> tuple[str, ...]:
        """Mount point of each tree, once. The version 2 tree is last: its kill file must outlive the other groups."""
        mounts = dict.fromkeys(self.v1.values())
        return (*mounts, self.unified) if self.unified else (*mounts,)

    def tree(self, controller: str) -> str | None:
        """Mount point of the tree with `controller`, "" being the version 2 tree itself; None: there is none."""
        if controller in self.v1:
            return self.v1[controller]
        return self.unified if not controller or controller in self.unified_controllers else None


def version(hierarchies: Hierarchies | None = None) -> Version:
    """Which kind of host this is, by what can be written."""
    return (hierarchies or Hierarchies.detect()).version


def controllers(hierarchies: Hierarchies | None = None) -> dict[str, Path]:
    """Every controller of this host -> the mount point of the tree that has it."""
    trees = hierarchies or Hierarchies.detect()
    v1 = {name: Path(mount) for name, mount in trees.v1.items() if not name.startswith("name=")}
    return v1 | {name: Path(trees.unified) for name in sorted(trees.unified_controllers) if trees.unified}


def swap_limit(hierarchies: Hierarchies | None = None) -> bool:
    """True if this kernel can limit swap; version 1 kernels often need swapaccount=1 at boot."""
    trees = hierarchies or Hierarchies.detect()
    if "memory" in trees.v1:
        return os.path.exists(f"{trees.v1['memory']}/memory.memsw.limit_in_bytes")
    if "memory" not in trees.unified_controllers or not trees.unified:
        return False
    with os.scandir(trees.unified) as groups:  # the root group itself has no limits to look for
        limited = [group.path for group in groups if os.path.exists(f"{group.path}/memory.max")]
    if not limited:  # no group has been given the controller yet: what matters is that the kernel was built with swap
        return os.path.exists("/proc/swaps")
    return os.path.exists(f"{limited[0]}/memory.swap.max")
