"""The engines that are compared, each with roots and a network namespace of the benchmark's own.

Rules   - a peer that is not installed is left out, and the table says so.
        - every engine is stopped and all its files are removed at the end.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from minidocker.linux.cgroups import Hierarchies

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = CHECKOUT / ".venv" / "bin"
START_TIMEOUT_SECONDS = 60.0
UNIFIED = "/sys/fs/cgroup/unified"
PODMAN_FILES, PODMAN_PROCESSES = 1 << 20, 1 << 15


def quietly(command: Sequence[str | Path], **options: object) -> None:
    """Run a command that must succeed; its output is shown only if it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}"
        )


class Engine:
    """A command line, and the daemon behind it if it has one."""

    name = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    groups = ""  # the control group above its containers, if it does not remove it itself

    def start(self, root: Path) -> None:
        """Make it ready to be used."""

    def stop(self) -> None:
        """End its daemon."""

    def load(self, archive: Path) -> None:
        """Give it the image `busybox` from a docker-archive."""
        self.run("load", "-i", str(archive))

    def run(self, *words: str) -> None:
        """Its command line, once."""
        quietly([*self.command, *words], env=os.environ | self.environment)

    def cli(self, *words: str) -> Callable[[], None]:
        """A run of its command line, ready to be timed."""
        return lambda: self.run(*words)

    def output(self, *words: str) -> str:
        """What its command line prints."""
        command = [*self.command, *words]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | self.environment
        ).stdout

    def monitor_pids(self, container_pid: int) -> set[int]:
        """The processes that exist only because this one container runs."""
        return set()

    def daemon_pids(self) -> set[int]:
        """The processes that exist without a container."""
        return set()


class Daemon(Engine):
    """An engine with a daemon of its own."""

    program = ""

    def arguments(self, root: Path) -> list[str]:
        """How the daemon is started."""
        raise NotImplementedError

    def start(self, root: Path) -> None:
        socket = root / "engine.sock"
        self.command = (*self.command, "-H", f"unix://{socket}")
        with (root / "daemon.log").open("wb") as log:
            self.process = subprocess.Popen(
                [self.program, *self.arguments(root), "-H", f"unix://{socket}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while subprocess.run([*self.command, "version"], capture_output=True).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.program} did not start:\n{(root / 'daemon.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def daemon_pids(self) -> set[int]:
        return descendants(self.process.pid)


class Minidocker(Daemon):
    """Ours."""

    name = "minidocker"
    program = str(BIN / "minidockerd")
    command = (str(BIN / "minidocker"),)

    def arguments(self, root: Path) -> list[str]:
        return [f"--data-root={root}/data", f"--exec-root={root}/run", f"--pidfile={root}/pid", "--live-restore=false"]

    def monitor_pids(self, container_pid: int) -> set[int]:
        return {parent_of(container_pid)}


class Docker(Daemon):
    """dockerd with containerd and runc."""

    name = "docker"
    program = "dockerd"
    groups = "/docker"
    command: tuple[str, ...] = ("docker",)

    def arguments(self, root: Path) -> list[str]:
        return [f"--data-root={root}/data", f"--exec-root={root}/run", f"--pidfile={root}/pid", "--log-level=error"]

    def monitor_pids(self, container_pid: int) -> set[int]:
        return {parent_of(container_pid)}


class Podman(Engine):
    """No daemon; conmon watches each container. It does not see a hybrid host's version 2 tree: crun refuses it."""

    name = "podman"
    groups = "/libpod_parent"
    command: tuple[str, ...] = ("podman",)
    place: subprocess.Popen[bytes] | None = None

    def start(self, root: Path) -> None:
        self.command = ("podman", "--root", f"{root}/data", "--runroot", f"{root}/run", "--cgroup-manager=cgroupfs")
        if os.path.ismount(UNIFIED):
            script = f"umount -l {UNIFIED} && echo && exec sleep infinity"
            self.place = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
            assert self.place.stdout is not None
            self.place.stdout.readline()
            self.command = ("nsenter", f"--mount=/proc/{self.place.pid}/ns/mnt", "--", *self.command)
        settings = f"[engine]\ntmp_dir = {json.dumps(f'{root}/run/libpod')}\n"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if 0 <= files < PODMAN_FILES:  # its default cannot be had here; nor can more processes than it leaves itself
            limits = [f"nofile={files}:{files}", f"nproc={PODMAN_PROCESSES}:{PODMAN_PROCESSES}"]
            settings += f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
        (root / "containers.conf").write_text(settings)
        self.environment = {"CONTAINERS_CONF": str(root / "containers.conf")}

    def stop(self) -> None:
        if self.place is not None:
            self.place.kill()
            self.place.wait()

    def monitor_pids(self, container_pid: int) -> set[int]:
        return {parent_of(container_pid)}


def parent_of(pid: int) -> int:
    """The parent's pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def remove_groups(path: str) -> None:
    """The control group that an engine made for all its containers, and what it left below, unless it is in use."""
    for tree in Hierarchies.detect().trees:
        for directory, _, _ in os.walk(tree + path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def descendants(pid: int) -> set[int]:
    """A process and all below it."""
    children = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if parent_of(int(entry)) == pid:
                    children |= descendants(int(entry))
    return children | {pid}


def pss_mib(pids: set[int]) -> float:
    """Memory of processes, shared pages divided among those who share them (PSS), in MiB."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib / 1024


def installed() -> list[Engine]:
    """Ours, and the peers that are on this machine."""
    engines: list[Engine] = [Minidocker()]
    if shutil.which("dockerd") and shutil.which("docker"):
        engines.append(Docker())
    if shutil.which("podman"):
        engines.append(Podman())
    return engines


def version(engine: Engine) -> str:
    """Who takes part, in one line."""
    return engine.output("--version").strip()
