"""`./lab bench`: how long things take, here and with the engines that are installed, in one interleaved run.

    python -m benchmarks [--rounds N]

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

from benchmarks import rows
from benchmarks.contestants import installed, quietly
from benchmarks.table import Row, show
from minidocker.linux import mounts, namespaces
from minidocker.linux.mounts import MountFlag
from minidocker.linux.namespaces import CloneFlag


def own_world() -> None:
    """Leave the machine alone: a new network namespace with only lo, private mounts, its own /sys."""
    namespaces.unshare(CloneFlag.NEWNS | CloneFlag.NEWNET)
    mounts.set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)
    quietly(["ip", "link", "set", "lo", "up"])
    groups = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    mounts.mount("sysfs", "/sys", "sysfs")
    mounts.mount(f"/proc/self/fd/{groups}", "/sys/fs/cgroup", None, MountFlag.BIND | MountFlag.REC)
    os.close(groups)


@contextlib.contextmanager
def no_unified_tree() -> Iterator[None]:
    """On a hybrid host hide the version 2 tree for a while: crun refuses to run beside it."""
    place = "/sys/fs/cgroup/unified"
    if not os.path.ismount(place):
        yield
        return
    mounts.unmount(place, detach=True)
    try:
        yield
    finally:
        quietly(["mount", "-t", "cgroup2", "cgroup2", place])


def measure(root: Path, rounds: int) -> list[Row]:
    """All rows."""
    engines = installed()
    archive = root / "busybox.tar"
    rows.write_archive(archive)
    with no_unified_tree():
        alone = rows.launcher_alone(root, rounds)
    started = []
    try:
        for engine in engines:
            (root / engine.name).mkdir()
            engine.start(root / engine.name)
            started.append(engine)
            engine.load(archive)
        table = rows.twenty(engines)
        table = [*rows.run_and_remove(engines, rounds), *rows.warm_client(engines, rounds), *table]
        table[4:4] = [*alone, *rows.exec_true(engines, rounds)]
        return table
    finally:
        for engine in reversed(started):
            engine.stop()


def main() -> int:
    """Print the table; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("benchmarks: needs root", file=sys.stderr)
        return 1
    own_world()
    root = Path(tempfile.mkdtemp(prefix="minidocker-bench-", dir="/var/tmp"))
    try:
        table = measure(root, arguments.rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    show(table)
    return int(any("MISSED" in row.verdict() for row in table))


if __name__ == "__main__":
    sys.exit(main())
