"""The container's view of its control groups, and the limits of config.json in the kernel's terms.

Source  OCI runtime-spec, config-linux.md (resources; mounts of type cgroup); cgroup_namespaces(7).
Rules   - version 2: one cgroup2 mount. Version 1 and hybrid: a tmpfs with a mount a controller; with a cgroup namespace
          each shows the container's own group as its root, without one the group's directory is bound.
        - the mount is read-only unless config.json says otherwise.
"""

import os

from minidocker.errors import KernelError
from minidocker.linux import mounts, trees
from minidocker.linux.cgroups import IoMax, IoWeight, Limits
from minidocker.linux.mounts import MountFlag, mkdirs_in_root, open_in_root
from minidocker.linux.rooted_paths import fd_path
from minidocker.oci import runtime_spec
from minidocker.runtime.rootfs import mount_on
from minidocker.runtime.step import Inside, Step

_PATH = os.O_PATH | os.O_CLOEXEC
_HOST_ROOT = "/sys/fs/cgroup"


def own_groups(text: str) -> dict[str, str]:
    """Hierarchy -> path, from the text of /proc/PID/cgroup; "" is the version 2 tree.

    >>> own_groups("4:cpu,cpuacct:/a\\n1:name=systemd:/b\\n0::/c\\n")
    {'cpu,cpuacct': '/a', 'name=systemd': '/b', '': '/c'}
    """
    lines = (line.split(":", 2) for line in text.split("\n") if line)
    return {hierarchy: path for _, hierarchy, path in lines}


class MountCgroups(Step, frozen=True):
    """/sys/fs/cgroup of the container."""

    destination: str
    flags: int
    namespace: bool

    @property
    def name(self) -> str:
        return f"mount {self.destination}"

    def apply(self, inside: Inside) -> None:
        fd = os.open("self/cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=inside.proc_fd)
        groups = own_groups(os.read(fd, 1 << 16).decode())
        os.close(fd)
        target = mkdirs_in_root(inside.root_fd, self.destination)
        if set(groups) == {""}:
            mount_on(target, self.destination, "cgroup", "cgroup2", MountFlag(self.flags))
        else:
            self._mount_v1(inside.root_fd, target, groups)
        os.close(target)

    def _mount_v1(self, root_fd: int, target: int, groups: dict[str, str]) -> None:
        flags = MountFlag(self.flags)
        mount_on(target, self.destination, "tmpfs", "tmpfs", flags & ~MountFlag.RDONLY, "mode=755")
        tmpfs = open_in_root(root_fd, self.destination, _PATH | os.O_DIRECTORY)
        for hierarchy, path in groups.items():
            if hierarchy:
                self._mount_hierarchy(tmpfs, hierarchy, path)
        if flags & MountFlag.RDONLY:
            trees.set_attributes(tmpfs, trees.RDONLY, path=self.destination)
        os.close(tmpfs)

    def _mount_hierarchy(self, tmpfs: int, hierarchy: str, path: str) -> None:
        name = hierarchy.removeprefix("name=")
        os.mkdir(name, 0o755, dir_fd=tmpfs)
        for controller in name.split(","):
            if controller != name:
                os.symlink(name, controller, dir_fd=tmpfs)
        target = os.open(name, _PATH | os.O_DIRECTORY, dir_fd=tmpfs)
        if self.namespace:
            option = f"none,{hierarchy}" if hierarchy.startswith("name=") else hierarchy
            mount_on(target, f"{self.destination}/{name}", "cgroup", "cgroup", MountFlag(self.flags), option)
        else:
            self._bind(f"{_HOST_ROOT}/{name}{path}", target)
        os.close(target)

    def _bind(self, source: str, target: int) -> None:
        try:
            fd = os.open(source, _PATH | os.O_DIRECTORY)
        except OSError as error:
            raise KernelError("open", source, error.errno or 0, "no such control group on the host") from None
        attributes = self.flags & (trees.RDONLY | trees.NOSUID | trees.NODEV | trees.NOEXEC)
        trees.bind(fd, target, add=attributes, path=fd_path(target))
        os.close(fd)


def cgroup_step(mount: runtime_spec.Mount, *, namespace: bool) -> MountCgroups:
    """The step of a mount of type cgroup."""
    return MountCgroups(mount.destination, int(mounts.parse_options(mount.options).flags), namespace)


def owner_of_groups(spec: runtime_spec.Spec) -> tuple[int, int] | None:
    """Whom a container's control group is given to: its root, if it is somebody else outside and the mount is writable.

    Source  OCI runtime-spec, config-linux.md, "Cgroup ownership".
    """
    kinds = {namespace.type for namespace in spec.linux.namespaces if not namespace.path}
    writable = any(mount.type in ("cgroup", "cgroup2") and "ro" not in mount.options for mount in spec.mounts)
    root = root_outside(spec.linux)
    return root if writable and {"user", "cgroup"} <= kinds and any(root) else None


def root_outside(linux: runtime_spec.Linux) -> tuple[int, int]:
    """User and group that the container's root is outside of its user namespace."""
    user, group = (
        next((entry.host_id for entry in maps if entry.container_id == 0), 0)
        for maps in (linux.uid_mappings, linux.gid_mappings)
    )
    return user, group


def limits(resources: runtime_spec.Resources | None) -> Limits:
    """`linux.resources` as what `Cgroup.apply` takes; device rules are applied apart."""
    if resources is None:
        return Limits()
    memory, cpu = resources.memory or runtime_spec.Memory(), resources.cpu or runtime_spec.Cpu()
    io = resources.block_io or runtime_spec.BlockIO()
    return Limits(
        memory_bytes=memory.limit,
        memory_swap_bytes=memory.swap,
        memory_reservation_bytes=memory.reservation,
        swappiness=memory.swappiness,
        oom_kill_disable=memory.disable_oom_killer or None,
        cpu_shares=cpu.shares,
        cpu_quota_us=cpu.quota,
        cpu_period_us=cpu.period,
        cpu_rt_runtime_us=cpu.realtime_runtime,
        cpu_rt_period_us=cpu.realtime_period,
        cpuset_cpus=cpu.cpus or None,
        cpuset_mems=cpu.mems or None,
        pids=resources.pids.limit if resources.pids else None,
        io_weight=io.weight,
        io_weight_devices=tuple(IoWeight(d.major, d.minor, d.weight) for d in io.weight_device if d.weight is not None),
        io_max=_io_max(io),
        unified=tuple(resources.unified.items()),
    )


def _io_max(io: runtime_spec.BlockIO) -> tuple[IoMax, ...]:
    return (
        *(IoMax(d.major, d.minor, read_bps=d.rate) for d in io.throttle_read_bps_device),
        *(IoMax(d.major, d.minor, write_bps=d.rate) for d in io.throttle_write_bps_device),
        *(IoMax(d.major, d.minor, read_iops=d.rate) for d in io.throttle_read_iops_device),
        *(IoMax(d.major, d.minor, write_iops=d.rate) for d in io.throttle_write_iops_device),
    )
