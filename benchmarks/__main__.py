"""`./lab bench`: how long things take, here and with the engines that are installed, in one interleaved run.

    python -m benchmarks [--rounds N] [--only start,launcher,exec,twenty,build,pull,push] [--load] [--json]

Everything runs in a network and a mount namespace of its own, so no bridge, rule or mount of an engine remains.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import builds, load, rows, transfers
from benchmarks.contestants import UNIFIED, Engine, Minidocker, installed, quietly, remove_groups, version
from benchmarks.table import Row, as_json, show
from minidocker.linux import mounts, namespaces
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.mounts import MountFlag
from minidocker.linux.namespaces import CloneFlag

PARTS = ("start", "launcher", "exec", "twenty", "build", "pull", "push")  # in the table's order


def own_world() -> None:
    """Leave the machine alone: a new network namespace with only lo, private mounts, its own /sys and /run/netns."""
    namespaces.unshare(CloneFlag.NEWNS | CloneFlag.NEWNET)
    mounts.set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)
    quietly(["ip", "link", "set", "lo", "up"])
    groups = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    mounts.mount("sysfs", "/sys", "sysfs")
    mounts.mount(f"/proc/self/fd/{groups}", "/sys/fs/cgroup", None, MountFlag.BIND | MountFlag.REC)
    os.close(groups)
    for place in ("/run/netns", "/var/lib/cni"):  # what podman writes outside of its own roots
        os.makedirs(place, exist_ok=True)
        mounts.mount("tmpfs", place, "tmpfs")


@contextlib.contextmanager
def no_unified_tree() -> Iterator[None]:
    """On a hybrid host hide the version 2 tree for a while: crun refuses to run beside it."""
    if not os.path.ismount(UNIFIED):
        yield
        return
    mounts.unmount(UNIFIED, detach=True)
    try:
        yield
    finally:
        quietly(["mount", "-t", "cgroup2", "cgroup2", UNIFIED])


@contextlib.contextmanager
def running(engines: list[Engine], root: Path) -> Iterator[None]:
    """All engines, ready and with the image `busybox`."""
    archive = root / "busybox.tar"
    rows.write_archive(archive)
    with contextlib.ExitStack() as scope:
        for engine in engines:
            (root / engine.name).mkdir()
            if engine.groups and not Cgroup.open(engine.groups).exists():
                scope.callback(remove_groups, engine.groups)
            engine.start(root / engine.name)
            scope.callback(engine.stop)
            engine.load(archive)
        yield


def measure(engines: list[Engine], root: Path, rounds: int, parts: set[str]) -> list[Row]:
    """The rows of the wanted parts."""
    found: dict[str, list[Row]] = {}
    if "launcher" in parts:
        with no_unified_tree():
            found["launcher"] = rows.launcher_alone(root, rounds)
    if parts != {"launcher"}:
        with running(engines, root):
            if "twenty" in parts:  # first, because it weighs the daemons before their first container
                found["twenty"] = rows.twenty(engines)
            if "start" in parts:
                found["start"] = [*rows.run_and_remove(engines, rounds), *rows.warm_client(engines, rounds)]
            if "exec" in parts:
                found["exec"] = rows.exec_true(engines, rounds)
            if "build" in parts:
                found["build"] = builds.build(engines, max(3, rounds // 2), root)
            found |= moved(engines, root, max(2, rounds // 2), parts & {"pull", "push"})
    return [row for part in PARTS for row in found.get(part, [])]


def moved(engines: list[Engine], root: Path, rounds: int, parts: set[str]) -> dict[str, list[Row]]:
    """The rows for which a registry is needed."""
    found: dict[str, list[Row]] = {}
    if parts:
        with transfers.served(root) as port:
            if "pull" in parts:
                found["pull"] = [transfers.pull(engines, port, rounds)]
            if "push" in parts:
                found["push"] = [transfers.push(engines, port, rounds, root)]
    return found


def main() -> int:
    """Print the table; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--rounds", type=int, default=10, help="how often each contestant runs (default 10)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts of the table, of: {','.join(PARTS)}")
    parser.add_argument("--load", action="store_true", help="instead: ours alone, with many containers, clients, bytes")
    parser.add_argument("--json", action="store_true", help="print all samples as JSON")
    arguments = parser.parse_args()
    parts = set(arguments.only.split(","))
    if parts - set(PARTS):
        parser.error(f"--only knows {','.join(PARTS)}")
    if os.geteuid() != 0:
        print("benchmarks: needs root", file=sys.stderr)
        return 1
    own_world()
    engines: list[Engine] = [Minidocker()] if arguments.load else installed()
    versions = {engine.name: version(engine) for engine in engines}
    root = Path(tempfile.mkdtemp(prefix="minidocker-bench-", dir="/var/tmp"))
    try:
        if arguments.load:
            with running(engines, root):
                table = load.measure(engines[0])
        else:
            table = measure(engines, root, arguments.rounds, parts)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if arguments.json:
        print(as_json(table, versions))
    else:
        print("\n".join(versions.values()) + "\n")
        show(table)
    return int(any(row.missed for row in table))


if __name__ == "__main__":
    sys.exit(main())
