"""Keyword options of `containers.create` and `run`, and the API document that they become.

Source  Docker Engine API, "ContainerCreate"; the names are docker-py's.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from minidocker.client.resource import Document
from minidocker.errors import InvalidArgument

PortTarget = int | str | tuple[str, int] | None


class ContainerOptions(TypedDict, total=False):
    """Options of a new container; what is absent is left to the image and the daemon."""

    name: str
    environment: Mapping[str, str] | Sequence[str]
    entrypoint: str | Sequence[str]
    working_dir: str
    user: str
    hostname: str
    domainname: str
    labels: Mapping[str, str]
    tty: bool
    stdin_open: bool
    auto_remove: bool
    init: bool
    volumes: Mapping[str, str] | Sequence[str]      # host path or volume -> "/inside[:ro]", or "source:/inside[:ro]"
    tmpfs: Mapping[str, str]                        # path -> mount options
    mounts: Sequence[Document]                      # the API's own Mount documents
    volumes_from: Sequence[str]
    ports: Mapping[str, PortTarget]                 # "80/tcp" -> host port, (address, port), None for any
    publish_all_ports: bool
    network: str                                    # a network, "none", "host" or "container:NAME"
    dns: Sequence[str]
    extra_hosts: Mapping[str, str]
    read_only: bool
    privileged: bool
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    security_opt: Sequence[str]
    masked_paths: Sequence[str]                     # [] hides nothing of /proc and /sys
    readonly_paths: Sequence[str]
    devices: Sequence[str]                          # "/dev/x[:/dev/inside[:rwm]]"
    sysctls: Mapping[str, str]
    memory_bytes: int
    memory_swap_bytes: int
    nano_cpus: int                                  # billionths of a CPU
    cpu_shares: int
    cpuset_cpus: str
    pids_limit: int
    shm_size_bytes: int
    oom_kill_disable: bool
    ulimits: Sequence[Document]                     # {"Name", "Soft", "Hard"}
    pid_mode: str
    ipc_mode: str
    uts_mode: str
    userns_mode: str
    cgroupns_mode: str
    group_add: Sequence[str]
    restart_policy: Document                        # {"Name": "on-failure", "MaximumRetryCount": 3}
    stop_signal: str
    stop_timeout_seconds: int
    log_driver: str
    log_options: Mapping[str, str]
    healthcheck: Document
    runtime: str
    platform: str


_CONFIG = {
    "working_dir": "WorkingDir", "user": "User", "hostname": "Hostname", "domainname": "Domainname",
    "labels": "Labels", "tty": "Tty", "stdin_open": "OpenStdin", "stop_signal": "StopSignal",
    "stop_timeout_seconds": "StopTimeout", "healthcheck": "Healthcheck",
}
_HOST = {
    "auto_remove": "AutoRemove", "init": "Init", "tmpfs": "Tmpfs", "mounts": "Mounts", "volumes_from": "VolumesFrom",
    "publish_all_ports": "PublishAllPorts", "network": "NetworkMode", "dns": "Dns", "read_only": "ReadonlyRootfs",
    "privileged": "Privileged", "cap_add": "CapAdd", "cap_drop": "CapDrop", "security_opt": "SecurityOpt",
    "masked_paths": "MaskedPaths", "readonly_paths": "ReadonlyPaths",
    "sysctls": "Sysctls", "memory_bytes": "Memory", "memory_swap_bytes": "MemorySwap", "nano_cpus": "NanoCpus",
    "cpu_shares": "CpuShares", "cpuset_cpus": "CpusetCpus", "pids_limit": "PidsLimit", "shm_size_bytes": "ShmSize",
    "oom_kill_disable": "OomKillDisable", "ulimits": "Ulimits", "pid_mode": "PidMode", "ipc_mode": "IpcMode",
    "uts_mode": "UTSMode", "userns_mode": "UsernsMode", "cgroupns_mode": "CgroupnsMode", "group_add": "GroupAdd",
    "restart_policy": "RestartPolicy", "runtime": "Runtime",
}


def create_body(image: str, command: str | Sequence[str] | None, options: ContainerOptions) -> Document:
    """The body of POST /containers/create (without the name and the platform, which go into the query).

    command  a list as it is; a string is split at blanks as a shell would.
    Raises   InvalidArgument for an option that does not exist.
    """
    config: Document = {"Image": image}
    host: Document = {}
    if command is not None:
        config["Cmd"] = _words(command)
    for key, value in options.items():
        if key in _CONFIG:
            config[_CONFIG[key]] = _plain(value)
        elif key in _HOST:
            host[_HOST[key]] = _plain(value)
        elif key not in ContainerOptions.__annotations__:
            raise InvalidArgument(f"containers have no option {key!r}; see minidocker.client.container_body")
    _environment(options, config)
    _ports(options, config, host)
    _volumes(options, host)
    if "extra_hosts" in options:
        host["ExtraHosts"] = [f"{name}:{address}" for name, address in options["extra_hosts"].items()]
    if "devices" in options:
        host["Devices"] = [_device(text) for text in options["devices"]]
    if "log_driver" in options or "log_options" in options:
        host["LogConfig"] = {"Type": options.get("log_driver", ""), "Config": dict(options.get("log_options", {}))}
    return {**config, "HostConfig": host}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, (tuple, set)) else value


def _words(command: str | Sequence[str]) -> list[str]:
    if not isinstance(command, str):
        return list(command)
    import shlex

    return shlex.split(command)


def _environment(options: ContainerOptions, config: Document) -> None:
    environment = options.get("environment")
    if isinstance(environment, Mapping):
        config["Env"] = [f"{name}={value}" for name, value in environment.items()]
    elif environment is not None:
        config["Env"] = list(environment)
    if "entrypoint" in options:
        config["Entrypoint"] = _words(options["entrypoint"])


def _ports(options: ContainerOptions, config: Document, host: Document) -> None:
    ports = options.get("ports")
    if not ports:
        return
    bindings: Document = {}
    for inside, target in ports.items():
        address, port = target if isinstance(target, tuple) else ("", target)
        name = inside if "/" in inside else f"{inside}/tcp"
        bindings[name] = [{"HostIp": address, "HostPort": "" if port is None else str(port)}]
    config["ExposedPorts"] = {name: {} for name in bindings}
    host["PortBindings"] = bindings


def _volumes(options: ContainerOptions, host: Document) -> None:
    volumes = options.get("volumes")
    if isinstance(volumes, Mapping):
        host["Binds"] = [f"{source}:{target}" for source, target in volumes.items()]
    elif volumes is not None:
        host["Binds"] = list(volumes)


def _device(text: str) -> Document:
    source, _, rest = text.partition(":")
    target, _, access = rest.partition(":")
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": access or "rwm"}
