"""Boxes: containers of the tests' own, made of a busybox root filesystem and a config.json as the engine writes it."""

import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from minidocker.linux import capabilities
from minidocker.runtime.lifecycle import Created, Runtime
from minidocker.runtime.records import Exit
from minidocker.runtime.rotating_log import LogTarget

BUSYBOX = Path("/bin/busybox")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASKED = ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
          "/sys/firmware"]  # fmt: skip
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
NAMESPACES = ["mount", "pid", "network", "ipc", "uts", "cgroup"]
SAFE = ["nosuid", "noexec", "nodev"]


def mount(destination: str, type_: str, *options: str, source: str = "") -> dict[str, Any]:
    """One entry of `mounts`."""
    return {"destination": destination, "type": type_, "source": source or type_, "options": list(options)}


def default_mounts() -> list[dict[str, Any]]:
    """Docker's."""
    return [
        mount("/proc", "proc", *SAFE),
        mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("/sys", "sysfs", *SAFE, "ro"),
        mount("/sys/fs/cgroup", "cgroup", "ro", *SAFE),
        mount("/dev/mqueue", "mqueue", *SAFE),
        mount("/dev/shm", "tmpfs", *SAFE, "mode=1777", "size=67108864", source="shm"),
    ]


def default_config(rootfs: Path, cgroup: str, args: list[str]) -> dict[str, Any]:
    """A config.json as the engine writes it, with a simple filter of its own."""
    caps = list(capabilities.DEFAULT)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "cwd": "/",
            "args": args,
            "env": [PATH],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": str(rootfs)},
        "hostname": "box",
        "mounts": default_mounts(),
        "annotations": {},
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
            "resources": {},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
        },
    }


def make_rootfs(directory: Path) -> Path:
    """Busybox under its common names, /etc/passwd and /etc/group, an empty /tmp."""
    for name in ("bin", "etc", "tmp", "root", "home"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in listed:
        if applet != "busybox" and not (directory / "bin" / applet).exists():
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/sh\nmail:x:8:12::/home:/bin/sh\n"
    )
    (directory / "etc/group").write_text("root:x:0:\nadm:x:4:mail\nwww-data:x:33:\nmail:x:12:\nwheel:x:10:root\n")
    (directory / "tmp").chmod(0o1777)
    directory.chmod(0o755)
    return directory


@dataclass
class Box:
    """One container of a test."""

    id: str
    runtime: Runtime
    bundle: Path
    config: dict[str, Any]
    log: Path
    created: Created | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.runtime.exec_root / "containers" / self.id

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    def write(self) -> None:
        (self.bundle / "config.json").write_bytes(msgspec.json.encode(self.config))

    def create(self, **options: Any) -> Created:
        self.write()
        self.created = self.runtime.create(self.id, self.bundle, log=LogTarget(str(self.log)), **options)
        return self.created

    def start(self, **options: Any) -> "Box":
        if self.created is None:
            self.create(**options)
        assert self.created is not None
        self.runtime.start(self.created, self.options.get("network"))
        return self

    def wait(self) -> Exit:
        """The exit, once the monitor has ended."""
        assert self.created is not None
        wait_readable(self.created.monitor_pidfd)
        ended = self.runtime.exit_status(self.id)
        assert ended is not None
        return ended

    def logged(self, stream: str | None = None) -> str:
        entries = [msgspec.json.decode(line) for line in self.log.read_bytes().splitlines()]
        return "".join(entry["log"] for entry in entries if stream is None or entry["stream"] == stream)

    def run(self, **options: Any) -> str:
        """Start, wait, and give what it wrote."""
        self.start(**options)
        ended = self.wait()
        assert ended.code == 0, (ended, self.logged())
        return self.logged()

    def attach(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> "Attached":
        return Attached(self.runtime.open_attach(self.id), stdin=stdin, stdout=stdout, stderr=stderr)


class Attached:
    """A client of attach.sock."""

    def __init__(self, connection: socket.socket, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.socket = connection
        self.socket.settimeout(30)
        wish = {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr}
        self.socket.sendall(msgspec.json.encode(wish) + b"\n")
        self.file = self.socket.makefile("rb")
        self.answer = msgspec.json.decode(self.file.readline())

    def until(self, wanted: bytes) -> bytes:
        """Read raw bytes (of a terminal) until `wanted` is among them."""
        seen = b""
        while wanted not in seen:
            byte = self.file.read(1)
            assert byte, seen
            seen += byte
        return seen

    def frames(self) -> list[tuple[int, bytes]]:
        """All frames to the end."""
        found = []
        while head := self.file.read(8):
            found.append((head[0], self.file.read(int.from_bytes(head[4:], "big"))))
        return found


def wait_readable(fd: int, timeout_seconds: float = 30) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(timeout_seconds * 1000), "nothing happened in time"


def eventually(condition: Callable[[], bool], timeout_seconds: float = 10) -> bool:
    """Ask until it holds; for states that the kernel tells nobody about."""
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
