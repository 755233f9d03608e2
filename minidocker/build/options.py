"""What a build is asked for, apart from its Dockerfile and context.

Source  Docker Engine API 1.44, ImageBuild (query parameters); docker build's reference.
Rules   - parsed once, by the daemon's route; everything here is of its final type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from minidocker.engine.containers.config import HostConfig, Ulimit
from minidocker.oci.reference import Reference
from minidocker.registry.credentials import AuthConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """For the containers of RUN, in Docker's units: bytes, microseconds. 0: not limited."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """One build.

    tags          names of the result.
    dockerfile    its path in the context.
    target        the last stage to be built; "" is the last one there is.
    build_args    None as a value: named without one.
    cache_from    images that count as cache; none: all that were built here.
    pull          ask the registry for newer base images.
    remove        of RUN's containers, those of steps that worked; force_remove: and of those that failed.
    platform      of base images ("linux/arm64"); "": this machine's.
    credentials   by registry.
    explain       tell each decision of the cache in the output.
    """

    tags: tuple[Reference, ...] = ()
    dockerfile: str = ""
    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    platform: str = ""
    network_mode: str = ""
    extra_hosts: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    credentials: Mapping[str, AuthConfig] = field(default_factory=dict)
    explain: bool = False

    def host_config(self, binds: list[str]) -> HostConfig:
        """How a RUN's container sits on this host. binds: files of the build, to be mounted."""
        limits = self.limits
        return HostConfig(
            binds=binds or None,
            network_mode=self.network_mode or "default",
            extra_hosts=list(self.extra_hosts) or None,
            security_opt=list(self.security_options) or None,
            memory=limits.memory,
            memory_swap=limits.memory_swap,
            cpu_shares=limits.cpu_shares,
            cpu_period=limits.cpu_period,
            cpu_quota=limits.cpu_quota,
            cpuset_cpus=limits.cpuset_cpus,
            cpuset_mems=limits.cpuset_mems,
            shm_size=limits.shm_size,
            ulimits=list(limits.ulimits) or None,
            cgroup_parent=limits.cgroup_parent,
        )
