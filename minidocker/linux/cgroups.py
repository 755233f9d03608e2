"""Control groups: limit, count, freeze and kill a set of processes, on version 2, version 1 and hybrid hosts alike.

Source  kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; cgroups(7).
Rules   - a group has one path, from the mount's root, in every hierarchy ("tree") that we may write. Version 1 has one
          a controller, version 2 one for all; a hybrid host has both, and mostly no controllers on version 2.
        - in version 2 a group that hands controllers to children may hold no process ("no internal processes"): so
          processes live in leaves, and only the groups on the way down hand controllers on.
        - a version 1 cpuset takes no process before its cpus and mems are set: they are copied from the parent.
        - join before unsharing the cgroup namespace, or the namespace's root is the wrong group.
"""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from minidocker.errors import Conflict, InvalidArgument, KernelError, Unsupported
from minidocker.linux import cgroup_files as files
from minidocker.linux.cgroup_hierarchies import Hierarchies, controllers, swap_limit, version
from minidocker.linux.cgroup_limits import IoMax, IoWeight, Limits, Write, plan, without
from minidocker.linux.cgroup_statistics import Statistics, gather, table

__all__ = [
    "Cgroup",
    "Hierarchies",
    "IoMax",
    "IoWeight",
    "Limits",
    "Statistics",
    "Write",
    "controllers",
    "plan",
    "swap_limit",
    "version",
]

_LIMITING = ("cpu", "cpuset", "io", "memory", "pids")  # handed down on version 2, as far as the host has them
_V1_MEMORY, _V1_MEMORY_AND_SWAP = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
_WEIGHTS = ("io.weight", "blkio.weight", "blkio.weight_device")
_TIMEOUT_SECONDS = 10.0  # a process that waits for a device can be neither killed nor frozen until the device answers
_JOIN_HINTS = {
    errno.EBUSY: "the group hands controllers to children, so it may hold no process itself: join a child of it",
    errno.ENOSPC: "cpuset.cpus or cpuset.mems of the group is empty",
    errno.EOPNOTSUPP: "the group is threaded or of an invalid type (cgroup.type)",
}


class Cgroup:
    """One group, in all trees. Leaving a `with` block removes it."""

    def __init__(self, path: str, hierarchies: Hierarchies) -> None:
        self.path = path
        self.hierarchies = hierarchies
        self._unified = f"{hierarchies.unified}{path}" if hierarchies.unified else None

    @classmethod
    def create(cls, path: str, hierarchies: Hierarchies | None = None) -> Self:
        """Make a fresh, empty group, and its parents where they are missing.

        path    from the mount's root, such as "/minidocker/4f1d"; no "..", no white space.
        Raises  InvalidArgument: not such a path. Conflict: a group of that path is in use. Unsupported: no tree is
                writable. KernelError: EBUSY a parent holds processes, so that it cannot hand controllers down.
        """
        group = cls.open(path, hierarchies)
        trees = group.hierarchies
        if not trees.trees:
            raise Unsupported("no control group tree is mounted writable here: mount cgroup2 on /sys/fs/cgroup")
        made: list[str] = []
        try:
            for tree in trees.trees:
                _make_fresh(tree, path)
                made.append(tree + path)
            if trees.unified:
                _hand_down(trees.unified, path, [name for name in _LIMITING if name in trees.unified_controllers])
            if "cpuset" in trees.v1:
                _fill_cpuset(trees.v1["cpuset"], path)
        except BaseException:
            for directory in reversed(made):
                files.rmdir(directory)
            raise
        return group

    @classmethod
    def open(cls, path: str, hierarchies: Hierarchies | None = None) -> Self:
        """The group at `path`, be it there or not; nothing is made."""
        first, *parts = path.split("/")
        if first or not parts or any(part in ("", ".", "..") or part.split() != [part] for part in parts):
            raise InvalidArgument(f"{path!r} is no control group path: it begins with / and has no .. nor white space")
        return cls(path, hierarchies or Hierarchies.detect())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Cgroup({self.path!r}, {self.hierarchies.version})"

    def directory(self, controller: str = "") -> Path | None:
        """Where the files of `controller` are, "" for the version 2 group itself; None where there is no such tree."""
        tree = self.hierarchies.tree(controller)
        return Path(tree + self.path) if tree else None

    def exists(self) -> bool:
        """True if the group is there in any tree."""
        return any(os.path.isdir(tree + self.path) for tree in self.hierarchies.trees)

    def read(self, controller: str, file: str) -> str:
        """A file's text, "" where there is none. `controller` as in `directory`."""
        tree = self.hierarchies.tree(controller)
        return files.read(f"{tree}{self.path}/{file}") if tree else ""

    def join(self, pid: int = 0, *, trees: Literal["all", "v1", "v2"] = "all") -> None:
        """Move a process with all its threads into the group, in every tree; what it forks later is born there.

        pid     0: the calling process.
        trees   The version 2 tree makes the caller sleep for one RCU grace period (5 to 10 ms on an idle machine, no
                processor time), version 1 does not if a single-threaded caller moves itself. So a parent can do
                `join(child, trees="v2")` while the child does `join(trees="v1")` and goes on with its set-up; both must
                have ended before the child unshares its cgroup namespace.
        Raises  KernelError: ESRCH no such process; EBUSY (version 2) the group hands controllers to children.
        """
        # "tasks" moves one thread only, so the kernel need not hold up forks. st_nlink: 2, and 1 a thread.
        alone = pid == 0 and os.stat("/proc/self/task").st_nlink == 3
        for tree in self.hierarchies.trees:
            is_v2 = tree == self.hierarchies.unified
            if trees == "all" or is_v2 == (trees == "v2"):
                file = "tasks" if alone and not is_v2 else "cgroup.procs"
                files.write(f"{tree}{self.path}/{file}", str(pid), _JOIN_HINTS)

    def apply(self, limits: Limits) -> None:
        """Write the limits into this host's trees.

        Raises  Unsupported: the host lacks the controller, or the file, for one of them. KernelError: the kernel
                refuses a value (EBUSY memory below what is in use, EINVAL, ERANGE out of range, ENODEV no such device).
        """
        trees = self.hierarchies
        modern = trees.unified_controllers & set(_LIMITING)
        if not trees.v1:
            writes = plan(limits, "v2")
        elif not modern:
            writes = self._memory_order(plan(limits, "v1"))
        else:  # a hybrid host that keeps some controllers in its version 2 tree (boot option cgroup_no_v1)
            writes = self._memory_order(plan(without(limits, modern), "v1"))
            writes += plan(without(limits, frozenset(_LIMITING) - modern), "v2")
        for write in writes:
            self._apply(write)

    def _memory_order(self, writes: list[Write]) -> list[Write]:
        """Version 1 refuses memory above memory+swap at every moment: where both rise, memory+swap goes first."""
        place = {write.file: index for index, write in enumerate(writes)}
        if _V1_MEMORY in place and _V1_MEMORY_AND_SWAP in place:
            memory, both = place[_V1_MEMORY], place[_V1_MEMORY_AND_SWAP]
            present, asked = self.read("memory", _V1_MEMORY_AND_SWAP).strip(), int(writes[memory].value)
            if present.isdigit() and (asked < 0 or asked > int(present)):
                writes[memory], writes[both] = writes[both], writes[memory]
        return writes

    def _apply(self, write: Write) -> None:
        tree = self.hierarchies.tree(write.controller)
        if tree is None:
            raise Unsupported(f"cannot set {write.file}: no {write.controller} controller here that we may write")
        directory, file, value = tree + self.path, write.file, write.value
        if file in _WEIGHTS and not os.path.exists(f"{directory}/{file}"):
            file, value = _bfq(file, value)
        try:
            files.write(f"{directory}/{file}", value)
        except KernelError as error:
            if os.path.isdir(directory) and not os.path.exists(f"{directory}/{file}"):
                reason = f"the {write.controller} controller has no such file in this kernel or in this group"
                raise Unsupported(f"cannot set {write.file} of {self.path}: {reason}") from error
            raise

    def pids(self) -> list[int]:
        """All processes of the group and of the groups below it, as this pid namespace numbers them."""
        trees = self.hierarchies.trees[-1:]
        return sorted({pid for tree in trees for group in files.walk(tree + self.path) for pid in files.pids(group)})

    def freeze(self, frozen: bool) -> None:
        """Stop, or let go on, every process of the group and below it; returns when that has happened.

        Raises  Unsupported: neither a version 2 tree nor a freezer. KernelError: ETIMEDOUT a process cannot stop.
        """
        if self._has("cgroup.freeze"):
            files.write(f"{self._unified}/cgroup.freeze", str(int(frozen)))
            done = files.wait_event(str(self._unified), "frozen", int(frozen), _TIMEOUT_SECONDS)
        elif directory := self.directory("freezer"):
            done = files.set_freezer(str(directory), "FROZEN" if frozen else "THAWED", _TIMEOUT_SECONDS)
        else:
            raise Unsupported("cannot pause: this host has neither cgroup.freeze nor a freezer controller")
        if not done:
            if frozen:
                self.freeze(False)
            raise KernelError("freeze", self.path, errno.ETIMEDOUT, "a process waits in the kernel and cannot stop")

    def frozen(self) -> bool:
        """True if the group itself has been told to freeze."""
        if self._has("cgroup.freeze"):
            return self.read("", "cgroup.freeze").strip() == "1"
        return self.read("freezer", "freezer.self_freezing").strip() == "1"

    def kill(self) -> None:
        """SIGKILL for every process of the group and below it; none can escape by forking."""
        if self._has("cgroup.kill"):  # since Linux 5.14
            files.write(f"{self._unified}/cgroup.kill", "1")
            return
        can_freeze = self._has("cgroup.freeze") or self.directory("freezer") is not None
        if can_freeze:
            self.freeze(True)  # a frozen process cannot fork away from the list that we are about to read
        try:
            for tree in self.hierarchies.trees:
                files.kill_below(tree + self.path)
        finally:
            if can_freeze:
                self.freeze(False)

    def statistics(self) -> Statistics:
        """What the group has used so far; a controller that is absent counts as nothing used."""
        v1 = frozenset(self.hierarchies.v1)
        return gather(self.read, unified=self.hierarchies.unified_controllers, v1=v1)

    def oom_kills(self) -> int:
        """How many processes of the group and below it the kernel has killed for want of memory."""
        tree = self.hierarchies.v1.get("memory")
        if tree is None:
            return table(self.read("memory", "memory.events")).get("oom_kill", 0)
        # Version 1 counts in the victim's own group only, so the groups that a container made are added.
        groups = files.walk(tree + self.path)
        return sum(table(files.read(f"{group}/memory.oom_control")).get("oom_kill", 0) for group in groups)

    def delegate(self, uid: int, gid: int) -> None:
        """Let a user make groups below this one, in every tree; the group's own limits stay ours.

        On version 1 only for who is root of a user namespace: a group is guarded by its files' owner alone.
        Source  cgroup-v2.rst, "Delegation"; /sys/kernel/cgroup/delegate; cgroup-v1/cgroups.rst, "Attaching processes".
        """
        for tree in self.hierarchies.trees:
            modern = ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control")
            for name in modern if tree == self.hierarchies.unified else ("", "/cgroup.procs", "/tasks"):
                os.chown(tree + self.path + name, uid, gid)

    def remove(self) -> None:
        """Kill what is left and remove the group and all below it, in every tree. One that is gone already is fine.

        Raises  KernelError: EBUSY a process could not be ended within ten seconds.
        """
        for tree in self.hierarchies.trees:
            directory = tree + self.path
            if not files.rmdir(directory):  # the way of almost every container: nothing left, one call a tree
                self._empty(directory)
                files.rmdir_below(directory)

    def prune(self) -> bool:
        """Remove the group only if it has neither processes nor groups below it. True: it is gone."""
        left = [tree for tree in self.hierarchies.trees if not files.rmdir(tree + self.path)]
        return not left

    def _empty(self, directory: str) -> None:
        """End every process of one tree's group; they leave all trees at the same moment."""
        if any(files.pids(group) for group in files.walk(directory)):
            self.kill()
        if self._unified:
            files.wait_event(self._unified, "populated", 0, _TIMEOUT_SECONDS)
        files.kill_until_empty(directory, _TIMEOUT_SECONDS)

    def _has(self, file: str) -> bool:
        return self._unified is not None and os.path.exists(f"{self._unified}/{file}")


def _make_fresh(tree: str, path: str) -> None:
    """mkdir, with parents; an empty group left over is replaced, since it may carry limits of its last owner."""
    directory = tree + path
    try:
        made = files.mkdir(directory)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        parent = path.rpartition("/")[0]
        if not parent:
            raise
        _make_parent(tree, parent)
        made = files.mkdir(directory)
    if not made:
        if not files.rmdir(directory):
            raise Conflict(f"control group {path} is in use in {tree}: end its processes and remove its children first")
        files.mkdir(directory)


def _make_parent(tree: str, path: str) -> None:
    directory = tree
    for part in path.split("/")[1:]:
        directory = f"{directory}/{part}"
        if files.mkdir(directory) and files.read(f"{directory}/memory.use_hierarchy").strip() == "0":
            # Before Linux 5.11 a version 1 memory group counts its children only when told so, before it has any.
            files.write(f"{directory}/memory.use_hierarchy", "1")


def _hand_down(tree: str, path: str, wanted: list[str]) -> None:
    """Enable `wanted` in every group from the root to the parent of `path`; what is enabled already is not written."""
    if set(wanted) <= set(files.read(f"{tree}{path}/cgroup.controllers").split()):
        return
    parents = path.split("/")[1:-1]
    for depth in range(len(parents) + 1):
        control = "/".join([tree, *parents[:depth], "cgroup.subtree_control"])
        enabled = files.read(control).split()
        missing = [name for name in wanted if name not in enabled]
        if missing and not _enable(control, *missing):
            for name in missing:  # one that cannot go down takes no other with it; `apply` tells whoever asks for it
                _enable(control, name)


def _enable(control: str, *names: str) -> bool:
    try:
        files.write(control, " ".join(f"+{name}" for name in names))
    except KernelError as error:
        if error.errno in (errno.EBUSY, errno.EOPNOTSUPP):
            hint = "processes sit in that group, so it cannot hand controllers down: move them into a child of it first"
            raise KernelError(error.call, control, error.errno, hint) from error
        return False
    return True


def _fill_cpuset(tree: str, path: str) -> None:
    directory = tree
    for part in path.split("/")[1:]:
        parent, directory = directory, f"{directory}/{part}"
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not files.read(f"{directory}/{file}").strip():
                files.write(f"{directory}/{file}", files.read(f"{parent}/{file}").strip())


def _bfq(file: str, value: str) -> tuple[str, str]:
    """Weights of the bfq scheduler: in files of its own, where both versions use version 1's scale."""
    if file != "io.weight":
        return file.replace("blkio.", "blkio.bfq.", 1), value
    target, weight = value.split()
    return "io.bfq.weight", f"{target} {10 + -(-(int(weight) - 1) * 990 // 9999)}"
