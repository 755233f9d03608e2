"""What the engine says about itself and its machine: version, info, disk usage.

Source  Docker Engine API 1.44: SystemVersion, SystemInfo, SystemDataUsage; replies recorded from dockerd.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidocker import __version__
from minidocker.engine import clock
from minidocker.engine.logs import log_drivers
from minidocker.engine.plugins import VOLUME_DRIVER
from minidocker.linux import cgroups
from minidocker.oci.manifest import Platform

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

INDEX_SERVER = "https://index.docker.io/v1/"
DRIVER = "overlay2"


def version(api: str, minimum: str) -> dict[str, Any]:
    """The version document. `api` and `minimum` are the API versions that the daemon speaks."""
    machine = os.uname()
    architecture = Platform.of_machine(machine.machine).architecture
    language = f"python{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    details = {
        "ApiVersion": api,
        "Arch": architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": language,
        "KernelVersion": machine.release,
        "MinAPIVersion": minimum,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "minidocker"},
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
        "Version": __version__,
        "ApiVersion": api,
        "MinAPIVersion": minimum,
        "GitCommit": "",
        "GoVersion": language,
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": machine.release,
        "BuildTime": "",
    }


def _operating_system() -> tuple[str, str]:
    """PRETTY_NAME and VERSION_ID of os-release(5)."""
    fields = {}
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        fields = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
        break
    return fields.get("PRETTY_NAME", "Linux"), fields.get("VERSION_ID", "")


def _filesystem(path: Path) -> str:
    """The type of the filesystem that `path` is on, by the longest mount point above it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split()
        point = words[1].rstrip("/")
        if (str(path) == point or str(path).startswith(point + "/")) and len(point) >= len(best):
            best, kind = point, words[2]
    return {"ext4": "extfs", "ext3": "extfs"}.get(kind, kind)


def _sysctl(name: str) -> bool:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip() == "1"
    except OSError:
        return False


def _counts(engine: "Engine") -> dict[str, int]:
    states = [container.state.status for container in engine.containers.all()]
    running = states.count("running") + states.count("restarting")
    paused = states.count("paused")
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(engine.image_store.list()),
    }


def _limits() -> dict[str, bool]:
    found = cgroups.controllers()
    two = cgroups.version() == "v2"
    return {
        "MemoryLimit": "memory" in found,
        "SwapLimit": "memory" in found and cgroups.swap_limit(),
        "CpuCfsPeriod": "cpu" in found,
        "CpuCfsQuota": "cpu" in found,
        "CPUShares": "cpu" in found,
        "CPUSet": "cpuset" in found,
        "PidsLimit": "pids" in found,
        "OomKillDisable": "memory" in found and not two,
    }


def registry_document(engine: "Engine") -> dict[str, Any]:
    """RegistryConfig: what is insecure, which mirrors."""
    settings = engine.settings
    mirrors = [f"{mirror.rstrip('/')}/" for mirror in settings.registry_mirrors]
    indexes = {"docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}}
    for host in settings.insecure_registries:
        if "/" not in host:
            indexes[host] = {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
    networks = [entry for entry in settings.insecure_registries if "/" in entry]
    return {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": [*networks, "127.0.0.0/8"],
        "IndexConfigs": indexes,
        "Mirrors": mirrors,
    }


def _storage(engine: "Engine") -> dict[str, Any]:
    return {
        "Driver": DRIVER,
        "DriverStatus": [
            ["Backing Filesystem", _filesystem(engine.settings.data_root)],
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "false"],
        ],
        "Plugins": {
            "Volume": sorted(["local", *engine.plugins.active(VOLUME_DRIVER)]),
            "Network": ["bridge", "host", "null"],
            "Authorization": list(engine.settings.authorization_plugins) or None,
            "Log": list(log_drivers.DRIVERS),
        },
    }


def _machine() -> dict[str, Any]:
    machine = os.uname()
    name, os_version = _operating_system()
    return {
        "KernelVersion": machine.release,
        "OperatingSystem": name,
        "OSVersion": os_version,
        "OSType": "linux",
        "Architecture": machine.machine,
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": machine.nodename,
        "IPv4Forwarding": _sysctl("net.ipv4.ip_forward"),
        "BridgeNfIptables": _sysctl("net.bridge.bridge-nf-call-iptables"),
        "BridgeNfIp6tables": _sysctl("net.bridge.bridge-nf-call-ip6tables"),
    }


_RUNTIMES = {"minidocker-runtime": {"path": "minidocker-runtime"}, "runc": {"path": "minidocker-runtime"}}
_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}
# What Docker shows and this engine has nothing to say of.
_CONSTANTS: dict[str, Any] = {
    "CgroupDriver": "cgroupfs",
    "IndexServerAddress": INDEX_SERVER,
    "GenericResources": None,
    "HttpProxy": "",
    "HttpsProxy": "",
    "NoProxy": "",
    "Labels": [],
    "ExperimentalBuild": False,
    "ServerVersion": __version__,
    "Runtimes": _RUNTIMES,
    "DefaultRuntime": "minidocker-runtime",
    "Swarm": _NO_SWARM,
    "Isolation": "",
    "ContainerdCommit": {"ID": "", "Expected": ""},
    "RuncCommit": {"ID": "", "Expected": ""},
    "InitCommit": {"ID": "", "Expected": ""},
}


def info(engine: "Engine", version_tuple: tuple[int, int]) -> dict[str, Any]:
    """The info document, in the shape of the client's version."""
    two = cgroups.version() == "v2"
    modern = version_tuple >= (1, 42)
    security = ["name=seccomp,profile=builtin" if modern else "name=seccomp,profile=default"]
    security += ["name=cgroupns"] if two else []
    old = {}
    if version_tuple < (1, 25):
        old["ExecutionDriver"] = "<not supported>"
        security = [option.partition(",")[0].removeprefix("name=") for option in security]
    return {
        "ID": engine.settings.identity,
        **_counts(engine),
        **_storage(engine),
        **_limits(),
        **_machine(),
        **_CONSTANTS,
        **old,
        "LoggingDriver": engine.settings.log.type,
        **({} if modern else {"KernelMemory": False, "KernelMemoryTCP": False}),
        "Warnings": engine.abilities.warnings() or None,
        "Debug": engine.settings.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": len(os.listdir("/proc/self/task")),
        "SystemTime": clock.now(),
        "CgroupVersion": "2" if two else "1",
        "NEventsListener": engine.events.listeners,
        "RegistryConfig": registry_document(engine),
        "DockerRootDir": str(engine.settings.data_root),
        "LiveRestoreEnabled": engine.settings.live_restore,
        "InitBinary": engine.settings.init_path,
        "SecurityOptions": security,
    }
