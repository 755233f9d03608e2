"""The figures: one function each, returning rows of the table."""

import io
import json
import os
import select
import shutil
import tarfile
import time
from functools import partial
from pathlib import Path

from benchmarks.contestants import BIN, Engine, Minidocker, pss_mib, quietly
from benchmarks.table import Row, Run, faster, interleave
from minidocker.client import connect
from minidocker.lab.setup import base_image
from minidocker.linux import seccomp
from minidocker.linux.forkserver import ForkServer
from minidocker.runtime.lifecycle import LAUNCHER, Runtime

IMAGE = "busybox"
BATCH = 20
SETTLE_SECONDS = 5  # after the images were loaded: what a daemon needs only for that may go


def with_goal(row: Row, goal: float, *peers: str) -> Row:
    """The same row, measured against the faster of the peers that took part."""
    return Row(row.what, row.samples, row.unit, faster(row, *peers) or peers[0], goal)


def run_and_remove(engines: list[Engine], rounds: int) -> list[Row]:
    """`run --rm busybox true`, with and without a network."""
    bridge = {engine.name: engine.cli("run", "--rm", IMAGE, "true") for engine in engines}
    none = {engine.name: engine.cli("run", "--rm", "--network", "none", IMAGE, "true") for engine in engines}
    first = interleave("run --rm busybox true, bridge", bridge, rounds)
    second = interleave("the same, --network none", none, rounds)
    return [
        with_goal(first, 0.3, "docker", "podman"),
        Row(second.what, second.samples, peer="docker", goal=0.3),
        Row(
            "  and against podman", {k: v for k, v in second.samples.items() if k != "docker"}, peer="podman", goal=0.5
        ),
    ]


def warm_client(engines: list[Engine], rounds: int) -> list[Row]:
    """The same from a Python client that is already running, against docker's command line."""
    ours = next(engine for engine in engines if isinstance(engine, Minidocker))
    client = connect(ours.command[-1])

    def run() -> None:
        client.containers.run(IMAGE, ["true"], remove=True, network="none")

    runs: dict[str, Run] = {"minidocker": run}
    runs |= {e.name: e.cli("run", "--rm", "--network", "none", IMAGE, "true") for e in engines if e.name == "docker"}
    row = interleave("the same from a warm client", runs, rounds)
    return [Row(row.what, row.samples, peer="docker", goal=0.06)]


def write_archive(path: Path) -> None:
    """The base image as a docker-archive, which every engine can load."""
    image = base_image.build()
    manifest = [{"Config": "config.json", "RepoTags": [f"{IMAGE}:latest"], "Layers": ["layer.tar.gz"]}]
    files = {"config.json": image.config, "layer.tar.gz": image.layer, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def bundle(root: Path) -> Path:
    """A bundle with the full default plan, the same for every runtime."""
    directory = root / "bundle"
    (directory / "rootfs").mkdir(parents=True)
    busybox = base_image.find_busybox()
    with tarfile.open(fileobj=io.BytesIO(base_image.layer_tar(busybox, base_image.applets(busybox)))) as layer:
        layer.extractall(directory / "rootfs")
    program = shutil.which("runc") or shutil.which("crun") or str(BIN / "minidocker-runtime")
    quietly([program, "spec"], cwd=directory)
    spec = json.loads((directory / "config.json").read_text())
    spec["process"].update(terminal=False, args=["true"])
    spec["linux"]["cgroupsPath"] = f"/{directory.parent.name}"  # else only the peers would make a control group
    spec["linux"]["seccomp"] = seccomp.default_profile(spec["process"]["capabilities"]["bounding"])
    (directory / "config.json").write_text(json.dumps(spec))
    return directory


def launcher_alone(root: Path, rounds: int) -> list[Row]:
    """Create, start and end one container with all isolation, without daemon and command line."""
    directory = bundle(root)
    server = ForkServer.spawn("minidocker-launcher", LAUNCHER, exec_root=root / "launcher", python_path=_site())
    runtime = Runtime(root / "launcher", server)
    number = 0

    def ours() -> None:
        nonlocal number
        number += 1
        created = runtime.create(f"bench{number}", directory)
        runtime.start(created)
        select.select([created.monitor_pidfd], [], [])
        os.close(created.monitor_pidfd)
        runtime.forget(created.id)

    runs: dict[str, Run] = {"minidocker": ours}
    for program in ("crun", "runc"):
        if shutil.which(program):
            state = f"--root={root}/{program}"
            command = [program, state, "run", "--bundle", directory, f"bench-{os.getpid()}"]
            runs[program] = partial(quietly, command)
    row = interleave("launcher alone, the full plan", runs, rounds * 3)
    server.close()
    return [Row(row.what, row.samples, peer="crun", goal=1.3)]


def _site() -> list[str]:
    import msgspec

    return [str(Path(msgspec.__file__).parents[1])]


def exec_true(engines: list[Engine], rounds: int) -> list[Row]:
    """`exec C true` in a container that runs."""
    for engine in engines:
        engine.run("run", "-d", "--name", "bench-exec", IMAGE, "sleep", "600")
    row = interleave(
        "exec C true", {engine.name: engine.cli("exec", "bench-exec", "true") for engine in engines}, rounds
    )
    for engine in engines:
        engine.run("rm", "-f", "bench-exec")
    return [Row(row.what, row.samples, peer="docker", goal=0.7)]


def twenty(engines: list[Engine]) -> list[Row]:
    """Start 20 detached containers one after the other, measure their memory, remove them with one command."""
    begun: dict[str, list[float]] = {}
    removed: dict[str, list[float]] = {}
    each: dict[str, list[float]] = {}
    base: dict[str, list[float]] = {}
    time.sleep(SETTLE_SECONDS)
    for engine in engines:
        idle = engine.daemon_pids()
        base[engine.name] = [pss_mib(idle)]
        begin = time.perf_counter()
        names = [f"bench-{number}" for number in range(BATCH)]
        for name in names:
            engine.run("run", "-d", "--name", name, IMAGE, "sleep", "600")
        begun[engine.name] = [(time.perf_counter() - begin) * 1000]
        pids = [int(engine.output("inspect", "-f", "{{.State.Pid}}", name)) for name in names]
        monitors = set[int]().union(*(engine.monitor_pids(pid) for pid in pids))
        each[engine.name] = [pss_mib(monitors) / BATCH]
        begin = time.perf_counter()
        engine.run("rm", "-f", *names)
        removed[engine.name] = [(time.perf_counter() - begin) * 1000]
    return [
        Row(f"start {BATCH} detached", begun, peer="docker", goal=0.2),
        Row(f"rm -f the {BATCH}", removed, peer="docker", goal=0.3),
        Row("memory a running container (PSS)", each, "MiB", "docker", 0.5),
        Row("memory before the first (PSS)", {k: v for k, v in base.items() if v[0]}, "MiB", "docker", 1.0),
    ]
