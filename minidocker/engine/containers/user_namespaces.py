"""Containers with a user namespace of their own (`--userns auto`): root inside is nobody outside.

Source  user_namespaces(7); Docker Engine API, HostConfig.UsernsMode; podman-run(1), `--userns=auto`; moby's
        `--security-opt writable-cgroups`.
Rules   - a container has 65536 ids of its own, which follow from its ID: nothing is recorded, two containers of one
          daemon hardly ever have the same ones, and no user of the machine has any of them.
        - files of images and volumes are root's on disk; mounts shift their ids (runtime/shifted.py).
        - a namespace of the host would belong to another user namespace than the container's root: refused.
"""

import msgspec

from minidocker.engine.containers.config import HostConfig
from minidocker.errors import InvalidArgument
from minidocker.oci import runtime_spec as oci

AUTO = "auto"
LENGTH = 1 << 16
_FIRST, _LAST = 1 << 24, 1 << 31  # above what login.defs and subuid hand out, below what some take for negative


def is_own(host: HostConfig) -> bool:
    """Whether the container has a user namespace of its own."""
    return host.userns_mode == AUTO


def writable_groups(host: HostConfig) -> bool:
    """Whether its root may make control groups below the container's, within the container's limits."""
    return any(option in ("writable-cgroups=true", "writable-cgroups:true") for option in host.security_opt or [])


def check(host: HostConfig) -> None:
    """Raises  InvalidArgument: an option contradicts a user namespace, or needs one."""
    if writable_groups(host) and not is_own(host) and not host.privileged:
        raise InvalidArgument("writable-cgroups=true needs a user namespace of the container's own: use userns auto")
    if not is_own(host):
        return
    if host.privileged:
        raise InvalidArgument("privileged mode is incompatible with user namespaces")
    for what, mode in (("network", host.network_mode), ("PID", host.pid_mode), ("IPC", host.ipc_mode)):
        if mode == "host" or mode.startswith("container:"):
            raise InvalidArgument(f"cannot share another {what} namespace when user namespaces are enabled")
    for what, mode in (("UTS", host.uts_mode), ("cgroup", host.cgroupns_mode)):
        if mode == "host":
            raise InvalidArgument(f"cannot share the host's {what} namespace when user namespaces are enabled")


def mappings(container_id: str) -> list[oci.IdMapping]:
    """The ids of a container, for users and for groups."""
    number = int(container_id[:12], 16) % ((_LAST - _FIRST) // LENGTH)
    return [oci.IdMapping(0, _FIRST + number * LENGTH, LENGTH)]


def into(spec: oci.Spec, container_id: str, engines_own: set[str]) -> oci.Spec:
    """The config.json of a container, with a user namespace.

    engines_own  destinations of the bind mounts whose files are the engine's: volumes, and the files of /etc
    """
    linux = msgspec.structs.replace(
        spec.linux,
        namespaces=[oci.Namespace("user"), *spec.linux.namespaces],
        uid_mappings=mappings(container_id),
        gid_mappings=mappings(container_id),
    )
    mounts = [
        msgspec.structs.replace(mount, options=[*mount.options, "idmap"]) if mount.destination in engines_own else mount
        for mount in spec.mounts
    ]
    return msgspec.structs.replace(spec, linux=linux, mounts=mounts)
