"""Containers as the API shows them: inspect and list documents, by the client's version.

Source  Docker Engine API 1.24 to 1.44: ContainerInspect, ContainerList; replies recorded from dockerd.
Rules   - pure: a record in, plain dicts out.
        - lists that Docker never gives as null are [] here too.
"""

import shlex
import time
from typing import Any

import msgspec

from minidocker.engine import clock
from minidocker.engine.containers.container import (
    EXITED,
    PAUSED,
    RESTARTING,
    RUNNING,
    Container,
    MountPoint,
    Record,
    State,
)
from minidocker.engine.networks.endpoint_views import NetworkIds, network_documents, network_settings
from minidocker.network.rules import Published

Document = dict[str, Any]
Version = tuple[int, int]

# What inspect shows of HostConfig beside the supported fields: always Docker's zero values.
_HOST_CONSTANTS: Document = {
    "Cgroup": "",
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}
_NEVER_NULL = ("PortBindings", "Dns", "DnsOptions", "DnsSearch", "BlkioWeightDevice", "Devices", "Ulimits")
_BLKIO = ("BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps")


def state_document(state: State) -> Document:
    """`State` of an inspect."""
    return {
        "Status": state.status,
        "Running": state.status in (RUNNING, PAUSED, RESTARTING),
        "Paused": state.status == PAUSED,
        "Restarting": state.status == RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }


def mount_document(point: MountPoint) -> Document:
    """One entry of `Mounts`."""
    document: Document = {"Type": point.type}
    if point.type == "volume":
        document["Name"] = point.name
    document |= {"Source": point.source, "Destination": point.destination}
    if point.type == "volume":
        document["Driver"] = point.driver or "local"
    return document | {"Mode": point.mode, "RW": point.writable, "Propagation": point.propagation}


def mount_documents(record: Record) -> list[Document]:
    """`Mounts`: all but those of --tmpfs, which HostConfig.Tmpfs shows."""
    return [mount_document(p) for p in record.mounts if p.destination not in (record.host.tmpfs or {})]


def host_document(record: Record, version: Version, links: list[str]) -> Document:
    """`HostConfig` of an inspect. links: the legacy ones, as they are shown."""
    document: Document = {**msgspec.to_builtins(record.host), **_HOST_CONSTANTS, "Links": links or None}
    for key in _NEVER_NULL:
        document[key] = document[key] if document[key] is not None else ({} if key == "PortBindings" else [])
    for key in _BLKIO:
        document[key] = document[key] or []
    if document["OomKillDisable"] is None:
        document["OomKillDisable"] = False
    del document["KernelMemory"]
    if version < (1, 42):
        document |= {"KernelMemory": 0, "KernelMemoryTCP": 0}
    for key in ("Mounts", "Sysctls", "Annotations", "Tmpfs", "Init"):
        if not document[key] and document[key] is not False:
            document.pop(key)
    return document


def config_document(record: Record) -> Document:
    """`Config` of an inspect."""
    document: Document = msgspec.to_builtins(record.config)
    for key, empty in (
        ("ExposedPorts", None),
        ("Healthcheck", None),
        ("NetworkDisabled", False),
        ("MacAddress", ""),
        ("StopSignal", ""),
        ("StopTimeout", None),
        ("Shell", None),
    ):
        if document[key] == empty:
            del document[key]
    return document


def inspect(
    container: Container, *, version: Version, layers_directory: str, network_id: NetworkIds, links: list[str]
) -> Document:
    """The whole inspect document, without sizes. links: legacy links, as they are shown."""
    record, directory = container.record, container.directory
    sandbox = f"/proc/{record.state.pid}/ns/net" if record.state.running else ""
    graph = {
        "LowerDir": ":".join(f"{layers_directory}/{short}" for short in record.lowerdir.split(":") if short),
        "MergedDir": str(directory / "rootfs"),
        "UpperDir": str(directory / "upper"),
        "WorkDir": str(directory / "work"),
    }
    return {
        "Id": record.id,
        "Created": record.created,
        "Path": record.path,
        "Args": record.args,
        "State": {**state_document(record.state), **({"Health": health} if (health := container.health) else {})},
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(container.log_path or "") if record.host.log_config.type == "json-file" else "",
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": [e.id for e in container.execs.values() if e.running] or None,
        "HostConfig": host_document(record, version, links),
        "GraphDriver": {"Data": graph, "Name": "overlay2"},
        "Mounts": mount_documents(record),
        "Config": config_document(record),
        "NetworkSettings": network_settings(record, network_id, sandbox, version),
    }


def status_text(record: Record, now_ns: int | None = None, *, health: str = "") -> str:
    """The words of `docker ps`: "Up 5 minutes (healthy)", "Exited (0) 2 hours ago", "Created"."""
    state = record.state
    moment = time.time_ns() if now_ns is None else now_ns

    def since(text: str) -> str:
        return clock.age(max(0, moment - clock.nanoseconds_of(text)) / 1e9)

    if state.status == RUNNING:
        return f"Up {since(state.started_at)}" + (f" ({health})" if health else "")
    if state.status == PAUSED:
        return f"Up {since(state.started_at)} (Paused)"
    if state.status == RESTARTING:
        return f"Restarting ({state.exit_code}) {since(state.finished_at)} ago"
    if state.status == EXITED:
        return f"Exited ({state.exit_code}) {since(state.finished_at)} ago"
    return {"removing": "Removal In Progress", "dead": "Dead"}.get(state.status, "Created")


def port_document(port: Published) -> Document:
    """One entry of a summary's Ports."""
    return {
        "IP": port.host_address,
        "PrivatePort": port.container_port,
        "PublicPort": port.host_port,
        "Type": port.protocol,
    }


def _summary_ports(record: Record) -> list[Document]:
    ports = [port_document(port) for port in record.ports]
    published = {(port.container_port, port.protocol) for port in record.ports}
    for exposed in (record.config.exposed_ports or {}) if record.attached else {}:
        number, _, protocol = exposed.partition("/")
        if number.isdecimal() and (int(number), protocol or "tcp") not in published:
            ports.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return ports


def summary(record: Record, *, image: str, network_id: NetworkIds, version: Version, health: str = "") -> Document:
    """One entry of the list.

    image   what to show: the name, or the ID once the name means another image.
    health  "healthy", "unhealthy", "health: starting"; "" without a check.
    """
    networks = network_documents(record, network_id, version)
    command = " ".join([record.path, *(shlex.quote(arg) if " " in arg else arg for arg in record.args)])
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": image,
        "ImageID": record.image_id,
        "Command": command,
        "Created": clock.nanoseconds_of(record.created) // 1_000_000_000,
        "Ports": _summary_ports(record),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status_text(record, health=health),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {"Networks": networks},
        "Mounts": mount_documents(record),
    }
