"""What a create request must satisfy before anything is made, by name and reason.

Source  Docker Engine API 1.44, ContainerCreate; moby daemon/container.go, daemon_unix.go (limits, texts).
Rules   - checks are pure: they know the request and the image, not the machine's state.
        - what is wrong is InvalidArgument and says which field.
"""

import ipaddress
import re

from minidocker.engine.containers import security_options, user_namespaces
from minidocker.engine.containers.config import ContainerConfig, Healthcheck, HostConfig
from minidocker.engine.values import parse_port, signal_number
from minidocker.errors import InvalidArgument

MEMORY_MIN_BYTES = 6 << 20
RUNTIMES = ("minidocker-runtime", "runc")
_IPC_SYSCTLS = {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
                "kernel.shmmni", "kernel.shm_rmid_forced"}  # fmt: skip
_ULIMITS = {"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
            "rttime", "sigpending", "stack"}  # fmt: skip
_CPUSET = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\Z")
_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})\Z")
_ENV_KEY = re.compile(r"[^=\0]+")


def check_config(config: ContainerConfig) -> None:
    """Checks of the portable half."""
    for entry in config.env or []:
        if not _ENV_KEY.match(entry) or "\0" in entry:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if any("\0" in word for word in [*(config.cmd or []), *(config.entrypoint or []), config.user, config.working_dir]):
        raise InvalidArgument("the command, user and working directory must not hold NUL bytes")
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.hostname and not re.fullmatch(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9_])?", config.hostname):
        raise InvalidArgument(
            f"invalid hostname: {config.hostname}: expected at most 64 letters, digits, '-', '_' and '.'"
        )
    if len(config.domainname) > 64 or "\n" in config.domainname or "\0" in config.domainname:
        raise InvalidArgument(f"invalid domain name: {config.domainname[:80]!r}")
    if config.healthcheck is not None:
        _check_health(config.healthcheck)
    for port in config.exposed_ports or {}:
        parse_port(port)
    if config.mac_address and not re.fullmatch(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", config.mac_address):
        raise InvalidArgument(f"{config.mac_address} is not a valid mac address")


def _check_health(check: Healthcheck) -> None:
    times = (("Interval", check.interval), ("Timeout", check.timeout), ("StartPeriod", check.start_period),
             ("StartInterval", check.start_interval))  # fmt: skip
    for name, nanoseconds in times:
        if nanoseconds and nanoseconds < 1_000_000:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    kind, *words = check.test or [""]  # Docker takes any kind, and never runs a check of one that it does not know
    if kind in ("CMD", "CMD-SHELL") and (not words or any("\0" in word for word in words)):
        raise InvalidArgument(f"Healthcheck has no command after {kind}, or one with a NUL byte")


def check_host(host: HostConfig, config: ContainerConfig) -> None:
    """Checks of the host's half."""
    _check_memory(host)
    _check_cpu(host)
    _check_modes(host, config)
    security_options.check(host)
    user_namespaces.check(host)
    if host.runtime not in ("", *RUNTIMES):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}': it exists on Windows only")
    if host.oom_score_adj < -1000 or host.oom_score_adj > 1000:
        raise InvalidArgument(f"invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for limit in host.ulimits or []:
        if limit.name not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    for rule in host.device_cgroup_rules or []:
        if not _DEVICE_RULE.match(rule):
            raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")
    for device in host.devices or []:
        if not device.path_on_host.startswith("/") or not set(device.cgroup_permissions) <= set("rwm"):
            raise InvalidArgument(f"invalid device mapping: {device.path_on_host}:{device.cgroup_permissions}")
    _check_restart(host)
    _check_names(host)


def _check_memory(host: HostConfig) -> None:
    if 0 < host.memory < MEMORY_MIN_BYTES or host.memory < 0:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swap < -1:
        raise InvalidArgument(f"invalid MemorySwap: {host.memory_swap}: use -1 for unlimited swap")
    if host.memory_swappiness is not None and not 0 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.memory_reservation < 0 or 0 < host.memory_reservation < MEMORY_MIN_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.pids_limit is not None and host.pids_limit < -1:
        raise InvalidArgument(f"invalid PidsLimit: {host.pids_limit}: use -1 for no limit")


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus and (host.cpu_period > 0 or host.cpu_quota > 0):
        other = "CPU Period" if host.cpu_period > 0 else "CPU Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    if host.nano_cpus < 0:
        raise InvalidArgument("range of CPUs is from 0.01 up: NanoCpus must not be negative")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000 or host.cpu_quota < -1:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    for field, value in (("Cpus", host.cpuset_cpus), ("Mems", host.cpuset_mems)):
        if value and not _CPUSET.match(value):
            raise InvalidArgument(f"Invalid value {value} for cpuset {field.lower()}")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")


def check_joined_network(host: HostConfig, asked: ContainerConfig) -> None:
    """What cannot be asked for (an image may have it) by one that joins another container's network."""
    if not host.network_mode.startswith("container:"):
        return
    for flag, what in (
        (asked.hostname, "hostname and the network mode"),
        (host.dns or host.dns_search or host.dns_options, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (asked.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (asked.exposed_ports, "port exposing and the container type network mode"),
    ):
        if flag:
            raise InvalidArgument(f"conflicting options: {what}")


def _check_modes(host: HostConfig, config: ContainerConfig) -> None:
    """Namespace modes. Joining names another container; whether it is there and runs is seen at start."""
    for field, value, plain in (
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host")),
        ("PID", host.pid_mode, ("", "host")),
        ("UTS", host.uts_mode, ("", "host")),
        ("USER", host.userns_mode, ("", "host", user_namespaces.AUTO)),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host")),
    ):
        joins = field in ("IPC", "PID") and value.startswith("container:") and len(value) > len("container:")
        if value not in plain and not joins:
            raise InvalidArgument(f"invalid {field} mode: {value}")
    mode = host.network_mode
    shares = mode == "host" or mode.startswith("container:")
    if mode in ("container", "container:"):
        raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
    if shares and host.links:
        what = "host type networking" if mode == "host" else "container type network"
        raise InvalidArgument(
            f"conflicting options: {what} can't be used with links. This would result in undefined behavior"
        )
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if shares and config.mac_address:
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    if ".." in host.cgroup_parent.split("/"):
        raise InvalidArgument(f"invalid cgroup parent {host.cgroup_parent}: it must not climb")
    for key in host.sysctls or {}:
        _check_sysctl(key, host, network_is_own=not shares)


def _check_sysctl(key: str, host: HostConfig, *, network_is_own: bool) -> None:
    name = key.replace("/", ".")
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        if host.ipc_mode == "host" or host.ipc_mode.startswith("container:"):
            raise InvalidArgument(f"sysctl '{key}' is not allowed with the IPC mode {host.ipc_mode}")
    elif name.startswith("net."):
        if not network_is_own:
            raise InvalidArgument(f"sysctl '{key}' is not allowed in the network mode {host.network_mode}")
    elif name == "kernel.domainname":
        if host.uts_mode == "host":
            raise InvalidArgument(f"sysctl '{key}' is not allowed with the UTS mode host")
    else:
        raise InvalidArgument(f"sysctl '{key}' is not allowed: it is not of a namespace of the container's own")
    if ".." in name:
        raise InvalidArgument(f"sysctl '{key}' is not a name")


def _check_restart(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(f"invalid restart policy '{policy.name}'")
    if policy.name and policy.maximum_retry_count < 0:
        raise InvalidArgument("maximum retry count cannot be negative")
    if policy.name not in ("", "on-failure") and policy.maximum_retry_count:
        raise InvalidArgument(f"maximum retry count cannot be used with restart policy '{policy.name}'")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_names(host: HostConfig) -> None:
    """Name servers, extra hosts, published ports."""
    for server in host.dns or []:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"invalid DNS server: {server}: not an IP address") from None
    for word in [*(host.dns_search or []), *(host.dns_options or [])]:
        if any(character.isspace() for character in word):
            raise InvalidArgument(f"invalid DNS option: {word!r}")
    for entry in host.extra_hosts or []:
        name, separator, address = entry.partition(":") if "=" not in entry else entry.partition("=")
        if not separator or not name or any(character.isspace() for character in entry):
            raise InvalidArgument(f"bad format for add-host: {entry!r}")
        if address != "host-gateway":
            try:
                ipaddress.ip_address(address.strip("[]"))
            except ValueError:
                raise InvalidArgument(f"invalid IP address in add-host: {address!r}") from None
    for port, bindings in (host.port_bindings or {}).items():
        first, last, _ = parse_port(port)
        if first != last:
            raise InvalidArgument(f'invalid port specification: "{port.partition("/")[0]}"')
        for binding in bindings or []:
            if binding.host_port not in ("", "0"):
                parse_port(binding.host_port)
            try:
                ipaddress.ip_address(binding.host_ip or "0.0.0.0")
            except ValueError:
                raise InvalidArgument(f"invalid IP address: {binding.host_ip}") from None
