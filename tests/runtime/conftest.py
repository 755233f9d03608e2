"""A runtime of the tests' own: an exec-root, a launcher and what makes boxes (see boxes.py)."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from minidocker.linux.cgroups import Cgroup
from minidocker.linux.forkserver import ForkServer
from minidocker.runtime.lifecycle import LAUNCHER, Runtime

sys.path.insert(0, str(Path(__file__).parent))  # tests have no packages; boxes.py is for all of this directory
from boxes import BUSYBOX, Box, default_config, make_rootfs, wait_readable


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid():
        pytest.skip("needs root")
    if not BUSYBOX.exists():
        pytest.skip("needs Debian's busybox-static")
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    if os.geteuid():
        pytest.skip("needs root")
    exec_root = tmp_path_factory.mktemp("launcher")
    server = ForkServer.spawn("minidocker-launcher", LAUNCHER, exec_root=exec_root, python_path=sys.path)
    yield server
    server.close()


@pytest.fixture(scope="session")
def cgroup_parent() -> Iterator[str]:
    path = f"/minidocker-test-{uuid.uuid4().hex[:8]}"
    yield path
    Cgroup.open(path).remove()


@pytest.fixture
def runtime(tmp_path: Path, launcher: ForkServer) -> Runtime:
    return Runtime(tmp_path / "exec", launcher)


@pytest.fixture
def box(tmp_path: Path, rootfs: Path, runtime: Runtime, cgroup_parent: str) -> Iterator[Callable[..., Box]]:
    """Makes containers with an overlay over the busybox tree; at the end they are killed and forgotten."""
    made: list[Box] = []

    def make(*args: str, tree: Path | None = None, **process: Any) -> Box:
        id_ = f"c{uuid.uuid4().hex[:12]}"
        bundle = tmp_path / id_
        for name in ("rootfs", "upper", "work"):
            (bundle / name).mkdir(parents=True)
        config = default_config(bundle / "rootfs", f"{cgroup_parent}/{id_}", list(args))
        config["process"] |= process
        lower = tree or rootfs
        overlay = {"directory": str(lower.parent), "lowerdir": lower.name,
                   "upperdir": str(bundle / "upper"), "workdir": str(bundle / "work")}  # fmt: skip
        config["annotations"]["org.minidocker.overlay"] = msgspec.json.encode(overlay).decode()
        made.append(Box(id_, runtime, bundle, config, bundle / "log.json"))
        return made[-1]

    yield make
    for one in made:
        _clean(one)


def _clean(one: Box) -> None:
    created = one.created
    if created is not None and one.directory.exists():
        if one.runtime.exit_status(one.id) is None and created.channel.socket.fileno() >= 0:
            one.runtime.abandon(created)
            return
        if one.runtime.exit_status(one.id) is None:
            one.runtime.kill_all(one.id)
        wait_readable(created.monitor_pidfd)
        one.runtime.forget(one.id)
