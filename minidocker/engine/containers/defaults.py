"""What a create request leaves open: filled in from the image, and from Docker's defaults.

Source  moby daemon/commit.go (merge of configurations), daemon/daemon_unix.go, oci/defaults.go (masked paths).
Rules   - filled in here, once: later code reads the result and never asks "is it set?".
        - pure; the request itself is not changed.
"""

import posixpath

import msgspec

from minidocker import typed
from minidocker.engine.containers.config import ContainerConfig, Healthcheck, HostConfig
from minidocker.engine.containers.validate import RUNTIMES
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig
from minidocker.oci.image_config import Healthcheck as ImageHealthcheck
from minidocker.runtime.default_spec import READONLY_PATHS, masked_paths

SHM_DEFAULT_BYTES = 64 << 20


def merge_image(config: ContainerConfig, image: ExecutionConfig) -> ContainerConfig:
    """`config` with the image's defaults for what it leaves open.

    Raises  InvalidArgument: neither has a command.
    """
    merged = msgspec.structs.replace(config)
    given = {entry.partition("=")[0] for entry in config.env or []}
    merged.env = [*(config.env or []), *(e for e in image.env or [] if e.partition("=")[0] not in given)]
    merged.user = config.user or image.user
    working_dir = config.working_dir or image.working_dir
    merged.working_dir = posixpath.normpath(working_dir) if working_dir else ""
    merged.exposed_ports = {**(image.exposed_ports or {}), **(config.exposed_ports or {})} or None
    merged.volumes = {**(image.volumes or {}), **(config.volumes or {})} or None
    merged.labels = {**(image.labels or {}), **(config.labels or {})}
    merged.stop_signal = config.stop_signal or image.stop_signal
    merged.stop_timeout = image.stop_timeout if config.stop_timeout is None else config.stop_timeout
    merged.shell = config.shell or image.shell
    merged.on_build = config.on_build or image.on_build
    merged.healthcheck = _merge_health(config.healthcheck, image.healthcheck)
    if not config.entrypoint:
        merged.cmd = config.cmd or image.cmd
        merged.entrypoint = image.entrypoint if config.entrypoint is None else []
    if merged.entrypoint == [""]:
        merged.entrypoint = None
    if not merged.entrypoint and not merged.cmd:
        raise InvalidArgument("No command specified")
    return merged


def _merge_health(wanted: Healthcheck | None, image: ImageHealthcheck | None) -> Healthcheck | None:
    """The container's check, with the image's where it leaves something open."""
    if image is None:
        empty = wanted is not None and wanted.test == []
        return msgspec.structs.replace(wanted, test=None) if empty and wanted is not None else wanted
    if wanted is None:
        return typed.convert(image, Healthcheck, from_attributes=True)
    return Healthcheck(
        test=wanted.test or image.test,
        interval=wanted.interval or image.interval,
        timeout=wanted.timeout or image.timeout,
        start_period=wanted.start_period or image.start_period,
        start_interval=wanted.start_interval or image.start_interval,
        retries=wanted.retries or image.retries,
    )


def fill_host(host: HostConfig) -> HostConfig:
    """`host` with the daemon's defaults."""
    filled = msgspec.structs.replace(host)
    filled.restart_policy = msgspec.structs.replace(host.restart_policy, name=host.restart_policy.name or "no")
    filled.network_mode = host.network_mode or "default"
    filled.ipc_mode = host.ipc_mode or "private"
    filled.cgroupns_mode = host.cgroupns_mode or ("host" if host.privileged else "private")
    filled.shm_size = host.shm_size or SHM_DEFAULT_BYTES
    filled.runtime = host.runtime or RUNTIMES[0]
    filled.pids_limit = host.pids_limit if host.pids_limit is not None and host.pids_limit > 0 else None
    if host.security_opt is None and (host.privileged or "host" in (host.ipc_mode, host.pid_mode)):
        filled.security_opt = ["label=disable"]
    if host.memory > 0 and host.memory_swap == 0:
        filled.memory_swap = 2 * host.memory
    if host.masked_paths is None:
        filled.masked_paths = None if host.privileged else list(masked_paths())
    if host.readonly_paths is None:
        filled.readonly_paths = None if host.privileged else list(READONLY_PATHS)
    return filled
