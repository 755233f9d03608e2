"""The config.json that `minidocker-runtime spec` writes: a shell in namespaces of its own.

Source  runc-spec(8); Docker's default masked and read-only paths and mounts.
"""

import functools
import glob

from minidocker.linux import capabilities
from minidocker.oci import runtime_spec

_SAFE = ["nosuid", "noexec", "nodev"]

MOUNTS = (
    runtime_spec.Mount("/proc", "proc", "proc", _SAFE),
    runtime_spec.Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    runtime_spec.Mount(
        "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    ),
    runtime_spec.Mount("/dev/shm", "tmpfs", "shm", [*_SAFE, "mode=1777", "size=65536k"]),
    runtime_spec.Mount("/dev/mqueue", "mqueue", "mqueue", _SAFE),
    runtime_spec.Mount("/sys", "sysfs", "sysfs", [*_SAFE, "ro"]),
    runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", [*_SAFE, "relatime", "ro"]),
)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_PER_CPU_MASKED = "/sys/devices/system/cpu/cpu*/thermal_throttle"  # as many as this machine has
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@functools.cache
def masked_paths() -> tuple[str, ...]:
    """What a container must not see by default, on this machine."""
    return (*MASKED_PATHS, *sorted(glob.glob(_PER_CPU_MASKED)))


def default_spec() -> runtime_spec.Spec:
    """A container of ./rootfs that runs `sh` on a terminal."""
    names = list(capabilities.DEFAULT)
    return runtime_spec.Spec(
        oci_version=runtime_spec.SPEC_VERSION,
        root=runtime_spec.Root("rootfs", readonly=True),
        process=runtime_spec.Process(
            cwd="/",
            args=["sh"],
            env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            terminal=True,
            capabilities=runtime_spec.Capabilities(bounding=names, effective=names, permitted=names),
            rlimits=[runtime_spec.Rlimit("RLIMIT_NOFILE", 1024, 1024)],
            no_new_privileges=True,
        ),
        hostname="minidocker",
        mounts=list(MOUNTS),
        linux=runtime_spec.Linux(
            namespaces=[runtime_spec.Namespace(kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            masked_paths=list(masked_paths()),
            readonly_paths=list(READONLY_PATHS),
        ),
    )
