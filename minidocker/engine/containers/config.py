"""What a container is asked to be: the structs of a create request. `config_reader` reads them.

Source  Docker Engine API 1.44, ContainerCreate (Config, HostConfig, NetworkingConfig).
Rules   - field names on the wire are Docker's; `None` means that the client did not say.
"""

from typing import Any

import msgspec

from minidocker.engine.values import truth


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
    """Where output goes: the driver, and its options; log_drivers.py knows them."""

    type: str = ""
    config: dict[str, str] | None = None

    @property
    def keeps_copy(self) -> bool:
        """Whether what goes to a server is kept here, too."""
        return self.type == "syslog" and not truth((self.config or {}).get("cache-disabled") or "false")


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


class DeviceRequest(msgspec.Struct, rename={"driver": "Driver", "count": "Count", "device_ids": "DeviceIDs",
                                           "capabilities": "Capabilities", "options": "Options"}):  # fmt: skip
    """Devices that a driver is to find, such as `--gpus`. count: -1 for all; capabilities: alternatives of sets."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


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
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = 0
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


class EndpointIPAM(msgspec.Struct, rename={"ipv4_address": "IPv4Address", "ipv6_address": "IPv6Address",
                                           "link_local_ips": "LinkLocalIPs"}):  # fmt: skip
    """Fixed addresses. link_local_ips: further ones that the interface gets, whatever the network's subnet."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


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
