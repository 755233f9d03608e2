"""From a container's record to config.json: what the runtime is told, as data.

Source  OCI runtime-spec config.md and config-linux.md; moby daemon/oci_linux.go (Docker's default mounts and order).
Rules   - `build` is pure: everything of the machine that it needs comes in by `Facts`.
        - Docker's own mounts come first, then the generated files of /etc and the user's mounts by depth.
        - privileged means: all devices, all capabilities, no filter, no masks, writable /sys and cgroups.
"""

import posixpath
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from minidocker.engine.containers import user_namespaces
from minidocker.engine.containers.config import ContainerConfig, ThrottleDevice
from minidocker.engine.containers.container import MountPoint, Record
from minidocker.linux import capabilities
from minidocker.oci import runtime_spec as oci

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup")


# What Docker sets in each network namespace of a container's own: any user may ping, and bind any port.
NETWORK_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What only the machine knows.

    directory     the container's directory: bundle, upper, work and the files of /etc
    layers        data-root/layers, where the record's lowerdir starts
    cgroup        path of the container's cgroup
    seccomp       the profile as raw JSON of the specification; NO_RAW: no filter
    joined        OCI namespace name -> path of the namespace to join (container:ID modes)
    init          path of the static init for --init
    devices       what HostConfig.Devices resolved to: node and access
    numbers       device path -> (major, minor), for disk limits
    capabilities  what the engine itself has: the most that ALL and privileged can mean
    etc           where hosts, hostname and resolv.conf are; None: in `directory`
    environment   what legacy links tell; the container's own entries win
    swap_limit    whether this kernel can limit swap; if not, a memory limit is all there is
    sysctls       which of NETWORK_SYSCTLS this kernel has
    """

    directory: Path
    layers: Path
    cgroup: str
    seccomp: msgspec.Raw = field(default_factory=lambda: oci.NO_RAW)
    joined: dict[str, str] = field(default_factory=dict)
    init: str = ""
    devices: tuple[tuple[oci.Device, str], ...] = ()
    numbers: dict[str, tuple[int, int]] = field(default_factory=dict)
    capabilities: tuple[str, ...] = capabilities.NAMES
    swap_limit: bool = True
    sysctls: frozenset[str] = frozenset()
    etc: Path | None = None
    environment: tuple[str, ...] = ()


def effective_capabilities(record: Record, available: tuple[str, ...]) -> list[str]:
    """The capabilities of the container's root."""
    host = record.host
    if host.privileged:
        return list(available)
    return list(capabilities.resolve(capabilities.DEFAULT, host.cap_add or [], host.cap_drop or [], known=available))


def environment(record: Record, links: tuple[str, ...] = ()) -> list[str]:
    """Docker's defaults, then the container's own; the later of two wins."""
    config = record.config
    defaults = [DEFAULT_PATH, f"HOSTNAME={config.hostname}"] + (["TERM=xterm"] if config.tty else [])
    merged = {entry.partition("=")[0]: entry for entry in [*defaults, *links]}
    for entry in config.env or []:
        key, equals, _ = entry.partition("=")
        if equals:
            merged[key] = entry
        else:
            merged.pop(key, None)  # `-e NAME` without a value takes a default away
    return list(merged.values())


def process(record: Record, facts: Facts) -> oci.Process:
    """The command, who runs it and with what rights."""
    host, config = record.host, record.config
    caps = effective_capabilities(record, facts.capabilities)
    rows, columns = host.console_size
    return oci.Process(
        cwd=config.working_dir or "/",
        args=[record.path, *record.args],
        env=environment(record, facts.environment),
        terminal=config.tty,
        console_size=oci.ConsoleSize(rows, columns) if config.tty and rows and columns else None,
        capabilities=oci.Capabilities(bounding=caps, effective=caps, permitted=caps),
        rlimits=[_rlimit(limit.name, limit.hard, limit.soft) for limit in host.ulimits or []],
        no_new_privileges=no_new_privileges(record),
        oom_score_adj=host.oom_score_adj or None,
    )


def no_new_privileges(record: Record) -> bool:
    """Whether setuid programs gain nothing."""
    options = record.host.security_opt or []
    return any(o in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true") for o in options)


def _rlimit(name: str, hard: int, soft: int) -> oci.Rlimit:
    unlimited = 0xFFFFFFFFFFFFFFFF
    return oci.Rlimit(f"RLIMIT_{name.upper()}", unlimited if hard == -1 else hard, unlimited if soft == -1 else soft)


def namespaces(record: Record, facts: Facts) -> list[oci.Namespace]:
    """Which namespaces are new (no path), joined (a path) or the host's (absent)."""
    host = record.host
    shared = {
        "pid": host.pid_mode == "host",
        "uts": host.uts_mode == "host",
        "ipc": host.ipc_mode == "host",
        "network": host.network_mode == "host",
        "cgroup": host.cgroupns_mode == "host",
    }
    return [oci.Namespace(name, facts.joined.get(name, "")) for name in NAMESPACES if not shared.get(name, False)]


def _default_mounts(record: Record, facts: Facts) -> list[oci.Mount]:
    host = record.host
    writable = host.privileged or (user_namespaces.is_own(host) and user_namespaces.writable_groups(host))
    access = "rw" if writable else "ro"
    mounts = [
        oci.Mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        oci.Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        oci.Mount(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        oci.Mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", access]),
        oci.Mount("/sys/fs/cgroup", "cgroup", "cgroup", [access, "nosuid", "noexec", "nodev"]),
    ]
    # Of the IPC namespace that it is mounted in: with ipc=host the host's queues, mounted there or not.
    mounts.append(oci.Mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]))
    if host.ipc_mode == "host":
        return [*mounts, oci.Mount("/dev/shm", "bind", "/dev/shm", ["rbind", "nosuid", "noexec", "nodev"])]
    if host.ipc_mode.startswith("container:"):
        pid_path = facts.joined["ipc"].removesuffix("/ns/ipc")
        return [
            *mounts,
            oci.Mount("/dev/shm", "bind", f"{pid_path}/root/dev/shm", ["bind", "nosuid", "noexec", "nodev"]),
        ]
    if host.ipc_mode != "none":
        options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={host.shm_size}"]
        mounts.append(oci.Mount("/dev/shm", "tmpfs", "shm", options))
    return mounts


def mount_of(point: MountPoint) -> oci.Mount:
    """A user's mount in the specification's words."""
    if point.type == "tmpfs":
        return oci.Mount(point.destination, "tmpfs", "tmpfs", point.options)
    # Never "rw", as Docker: what is mounted read-only on the host stays so.
    access = [] if point.writable else ["rro" if point.read_only_below else "ro"]
    kind = "bind" if point.non_recursive else "rbind"
    return oci.Mount(point.destination, "bind", point.path, [kind, *access, point.propagation or "rprivate"])


def mounts(record: Record, facts: Facts) -> list[oci.Mount]:
    """All mounts, in order; a user's mount replaces a default one of the same destination."""
    taken = {point.destination for point in record.mounts}
    etc = [
        oci.Mount(f"/etc/{name}", "bind", str((facts.etc or facts.directory) / name), ["rbind", "rw", "rprivate"])
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in taken
    ]
    own = [mount_of(point) for point in record.mounts]
    later = sorted([*etc, *own], key=lambda mount: len(posixpath.normpath(mount.destination).split("/")))
    return [mount for mount in _default_mounts(record, facts) if mount.destination not in taken] + later


def _throttles(entries: list[ThrottleDevice] | None, facts: Facts) -> list[oci.ThrottleDevice]:
    return [oci.ThrottleDevice(*facts.numbers[entry.path], entry.rate) for entry in entries or []]


def resources(record: Record, facts: Facts) -> oci.Resources:
    """The limits of the container's cgroup. Absent means not limited."""
    host = record.host
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        quota, period = host.nano_cpus * 100_000 // 1_000_000_000, 100_000
    memory = oci.Memory(
        limit=host.memory or None,
        reservation=host.memory_reservation or None,
        swap=host.memory_swap or None if facts.swap_limit else None,
        swappiness=host.memory_swappiness,
        disable_oom_killer=host.oom_kill_disable or None,
    )
    cpu = oci.Cpu(
        shares=host.cpu_shares or None,
        quota=quota or None,
        period=period or None,
        cpus=host.cpuset_cpus,
        mems=host.cpuset_mems,
    )
    block = oci.BlockIO(
        weight=host.blkio_weight or None,
        weight_device=[oci.WeightDevice(*facts.numbers[e.path], e.weight) for e in host.blkio_weight_device or []],
        throttle_read_bps_device=_throttles(host.blkio_device_read_bps, facts),
        throttle_write_bps_device=_throttles(host.blkio_device_write_bps, facts),
        throttle_read_iops_device=_throttles(host.blkio_device_read_iops, facts),
        throttle_write_iops_device=_throttles(host.blkio_device_write_iops, facts),
    )
    return oci.Resources(
        devices=device_rules(record, facts),
        memory=memory if memory != oci.Memory() else None,
        cpu=cpu if cpu != oci.Cpu() else None,
        pids=oci.Pids(host.pids_limit) if host.pids_limit and host.pids_limit > 0 else None,
        block_io=block if block != oci.BlockIO() else None,
    )


def device_rules(record: Record, facts: Facts) -> list[oci.DeviceRule]:
    """Deny all, then Docker's few, then what was asked for; privileged: everything."""
    if record.host.privileged:
        return [oci.DeviceRule(True)]
    rules = [oci.DeviceRule(False)]
    rules += [oci.DeviceRule(True, kind, None, None, "m") for kind in "cb"]
    numbers: tuple[tuple[int, int | None], ...] = (
        (1, 5),
        (1, 3),
        (1, 9),
        (1, 8),
        (1, 7),
        (5, 0),
        (5, 1),
        (5, 2),
        (136, None),
    )
    rules += [oci.DeviceRule(True, "c", major, minor, "rwm") for major, minor in numbers]
    rules += [oci.DeviceRule(True, node.type, node.major, node.minor, access) for node, access in facts.devices]
    for text in record.host.device_cgroup_rules or []:
        kind, pair, access = text.split(" ")
        major, _, minor = pair.partition(":")
        rules.append(
            oci.DeviceRule(
                True, kind, None if major == "*" else int(major), None if minor == "*" else int(minor), access
            )
        )
    return rules


def annotations(record: Record, facts: Facts) -> dict[str, str]:
    """The user's, and what the specification has no field for."""
    overlay = oci.Overlay(
        str(facts.layers), record.lowerdir, str(facts.directory / "upper"), str(facts.directory / "work")
    )
    found = {**(record.host.annotations or {}), oci.OVERLAY: msgspec.json.encode(overlay).decode()}
    roots = {point.destination: point.source for point in record.mounts if point.subpath}
    if roots:
        found[oci.MOUNT_ROOTS] = msgspec.json.encode(roots).decode()
    if record.config.user:
        found[oci.USER] = record.config.user
    if record.host.group_add:
        found[oci.GROUP_ADD] = msgspec.json.encode(record.host.group_add).decode()
    if facts.init:
        found[oci.INIT] = facts.init
    return found


def sysctls(record: Record, facts: Facts) -> dict[str, str]:
    """The kernel settings of the container's namespaces; what the user asks for wins."""
    host = record.host
    asked = {key.replace("/", "."): value for key, value in (host.sysctls or {}).items()}
    if host.network_mode == "host" or host.network_mode.startswith("container:"):
        return asked
    found = {key: value for key, value in NETWORK_SYSCTLS.items() if key in facts.sysctls}
    if user_namespaces.is_own(host):  # the range names groups that such a namespace does not have
        found.pop("net.ipv4.ping_group_range", None)
    return found | asked


def build(record: Record, facts: Facts) -> oci.Spec:
    """The whole config.json of a container."""
    host, config = record.host, record.config
    own_uts = host.uts_mode != "host"
    spec = oci.Spec(
        oci_version=oci.SPEC_VERSION,
        root=oci.Root("rootfs", readonly=host.readonly_rootfs),
        process=process(record, facts),
        hostname=config.hostname if own_uts else "",
        domainname=config.domainname if own_uts else "",
        mounts=mounts(record, facts),
        annotations=annotations(record, facts),
        linux=oci.Linux(
            namespaces=namespaces(record, facts),
            devices=[node for node, _ in facts.devices],
            cgroups_path=facts.cgroup,
            resources=resources(record, facts),
            masked_paths=host.masked_paths or [],
            readonly_paths=host.readonly_paths or [],
            sysctl=sysctls(record, facts),
            seccomp=facts.seccomp,
            rootfs_propagation=_root_propagation(record),
        ),
    )
    if not user_namespaces.is_own(host):
        return spec
    others = {point.destination for point in record.mounts if point.type != "volume"}
    engines_own = {mount.destination for mount in spec.mounts if mount.type == "bind"} - others - {"/dev/shm"}
    return user_namespaces.into(spec, record.id, engines_own)


def _root_propagation(record: Record) -> str:
    """Mounts that shall receive or share need a root that is not private."""
    wanted = {point.propagation for point in record.mounts}
    if wanted & {"shared", "rshared"}:
        return "shared"
    return "rslave" if wanted & {"slave", "rslave"} else ""


def exec_arguments_of(config: ContainerConfig) -> tuple[str, list[str]]:
    """Path and arguments of a container's command: entrypoint, then command."""
    words = [*(config.entrypoint or []), *(config.cmd or [])]
    return words[0], words[1:]
