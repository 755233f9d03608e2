"""What a container is asked to be: the bodies of `POST /containers/create`, read strictly.

Source  Docker Engine API 1.44, ContainerCreate (Config, HostConfig, NetworkingConfig).
Rules   - a field is either supported (a field of a struct here), or refused by name with the reason when it asks for
          something; nothing is accepted and ignored.
        - a newer client sends its new fields with empty values: those are harmless and pass.
        - field names on the wire are Docker's; `None` means that the client did not say.
"""

import functools
from typing import Any, TypeVar

import msgspec

from minidocker import typed
from minidocker.errors import InvalidArgument

T = TypeVar("T", bound=msgspec.Struct)


class Healthcheck(msgspec.Struct, rename="pascal", omit_defaults=True):
    """How to ask a container whether it is well. Times in nanoseconds; 0: the image's, else Docker's default.

    test  None or []: the image's; ["NONE"]: no check; ["CMD", word..]; ["CMD-SHELL", text].
    """

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, rename="pascal"):
    """The part that an image can give defaults for."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class LogConfig(msgspec.Struct, rename="pascal"):
    """Where output goes: type "json-file" (options max-size, max-file) or "none"."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(msgspec.Struct, rename="pascal"):
    """no, always, unless-stopped or on-failure (with an upper bound of tries; 0: none)."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(msgspec.Struct, rename="pascal"):
    """Where on the host a container's port is published. Empty: any address, a free port."""

    host_ip: str = ""
    host_port: str = ""


class DeviceMapping(msgspec.Struct, rename="pascal"):
    """A device node of the host; permissions of r, w, m."""

    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class Ulimit(msgspec.Struct, rename="pascal"):
    """One resource limit by the name that `ulimit` and setrlimit(2) share ("nofile")."""

    name: str
    hard: int = 0
    soft: int = 0


class WeightDevice(msgspec.Struct, rename="pascal"):
    """Relative disk share on one device (a path of the host)."""

    path: str
    weight: int


class ThrottleDevice(msgspec.Struct, rename="pascal"):
    """Bytes or operations a second on one device (a path of the host)."""

    path: str
    rate: int


class BindOptions(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriver(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Which driver makes the volume; only "local" without options."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: VolumeDriver | None = None
    subpath: str = ""


class TmpfsOptions(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Options of a tmpfs mount: size in bytes, permission bits."""

    size_bytes: int = 0
    mode: int | None = None


class MountRequest(msgspec.Struct, rename="pascal", omit_defaults=True):
    """One `--mount`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(msgspec.Struct, rename="pascal"):
    """The part that belongs to this host. Limits in Docker's units: bytes, microseconds, billionths of a CPU."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    mounts: list[MountRequest] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


class EndpointIPAM(msgspec.Struct, rename={"ipv4_address": "IPv4Address", "ipv6_address": "IPv6Address"}):
    """Fixed addresses."""

    ipv4_address: str = ""
    ipv6_address: str = ""


class EndpointRequest(msgspec.Struct, rename={"ipam_config": "IPAMConfig", "links": "Links", "aliases": "Aliases",
                                              "mac_address": "MacAddress", "driver_opts": "DriverOpts",
                                              "gateway_priority": "GwPriority"}):  # fmt: skip
    """How to join one network.

    links             "container:alias": names that this container alone knows for others on the network
    gateway_priority  the network with the highest gives the default route; of equals the first by name
    """

    ipam_config: EndpointIPAM | None = None
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gateway_priority: int = 0


class CreateRequest(msgspec.Struct):
    """The whole body, parted. `endpoints` by network name.

    read_only_below  read-only binds cover the mounts below them; False for clients before API 1.44.
    """

    config: ContainerConfig
    host: HostConfig
    endpoints: dict[str, EndpointRequest]
    read_only_below: bool = True


_WINDOWS = "it exists on Windows only"
_CONFIG_REFUSED = {"ArgsEscaped": _WINDOWS}
_HOST_REFUSED = {
    "Cgroup": "joining another container's cgroup is not supported",
    "StorageOpt": "the storage driver has no per-container options",
    "CpuRealtimePeriod": "this kernel interface is not supported",
    "CpuRealtimeRuntime": "this kernel interface is not supported",
    "DeviceRequests": "there is no device driver such as a GPU's",
    "KernelMemory": "kernel memory limits were removed from Linux",
    "KernelMemoryTCP": "kernel memory limits were removed from Linux",
    "CpuCount": _WINDOWS,
    "CpuPercent": _WINDOWS,
    "IOMaximumIOps": _WINDOWS,
    "IOMaximumBandwidth": _WINDOWS,
}
_ENDPOINT_REFUSED: dict[str, str] = {}
# What a client copies from an inspect into a request; the daemon decides these itself.
_ENDPOINT_OUTPUT = {
    "NetworkID",
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "DNSNames",
}


def is_empty(value: object) -> bool:
    """True for null, zero, "", and lists and objects of nothing else: a client that asks for nothing."""
    if isinstance(value, dict):
        return all(is_empty(item) for item in value.values())
    if isinstance(value, list):
        return all(is_empty(item) for item in value)
    return not value


@functools.cache
def _field_names(kind: type[Any]) -> frozenset[str]:
    """A struct's fields as JSON calls them. Kept: finding them evaluates every annotation, 1 ms for a HostConfig."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def _strict(raw: dict[str, Any], kind: type[T], refused: dict[str, str], where: str) -> T:
    known, kept = _field_names(kind), {}
    for key, value in raw.items():
        if key in known:
            if value is not None:
                kept[key] = value
        elif not is_empty(value):
            reason = refused.get(key, "this daemon does not know the field")
            raise InvalidArgument(f"{where}{key} is not supported: {reason}")
    try:
        return typed.convert_loosely(kept, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {where or 'Config.'.lower()}{error}") from None


def _words(value: object) -> object:
    """Docker takes a command as one string too; it is then one word."""
    return [value] if isinstance(value, str) else value


def _object(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"invalid JSON: {name} must be an object")
    return value


def _check_values(value: object, name: str) -> None:
    """What no field may hold: a NUL byte, which ends a text for the kernel, and a number beyond 64 bits."""
    if isinstance(value, str) and "\0" in value:
        raise InvalidArgument(f"invalid JSON: {name} holds a NUL byte")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument(f"invalid JSON: {name} is a number beyond 64 bits")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(key, name)
            _check_values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, name)


def read_create(raw: object) -> CreateRequest:
    """Read the decoded JSON body of a create request.

    Raises  InvalidArgument: a wrong type, or a field that asks for what is not supported (its name and why).
    """
    body = _object(raw, "the body")
    _check_values(body, "the body")
    plain = {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
    for key in ("Cmd", "Entrypoint", "Shell"):
        if key in plain:
            plain[key] = _words(plain[key])
    config = _strict(plain, ContainerConfig, _CONFIG_REFUSED, "")
    host = _object(body.get("HostConfig"), "HostConfig")
    networking = _object(body.get("NetworkingConfig"), "NetworkingConfig")
    endpoints = {
        name: read_endpoint(value, name)
        for name, value in _object(networking.get("EndpointsConfig"), "EndpointsConfig").items()
    }
    return CreateRequest(config, read_host(host), endpoints)


def read_host(raw: dict[str, Any]) -> HostConfig:
    """A HostConfig, or the part of one that an update has."""
    if raw.get("MemorySwappiness") == -1:
        raw = {**raw, "MemorySwappiness": None}
    return _strict(raw, HostConfig, _HOST_REFUSED, "HostConfig.")


def read_endpoint(raw: object, network: str) -> EndpointRequest:
    """One entry of EndpointsConfig (null is an empty one)."""
    value = {k: v for k, v in _object(raw, f"endpoint of {network}").items() if k not in _ENDPOINT_OUTPUT}
    ipam = _object(value.get("IPAMConfig"), "IPAMConfig")
    if not is_empty(ipam.get("LinkLocalIPs")):
        raise InvalidArgument("IPAMConfig.LinkLocalIPs is not supported: an interface has the addresses of its network")
    kept = {k: v for k, v in ipam.items() if v}
    value["IPAMConfig"] = kept if kept or value.get("IPAMConfig") == {} else None
    return _strict(value, EndpointRequest, _ENDPOINT_REFUSED, f"endpoint of {network}: ")
