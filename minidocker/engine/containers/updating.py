"""`docker update`: other limits, or another restart policy, for a container that exists.

Source  Docker Engine API 1.44, ContainerUpdate; moby container/container_unix.go (what conflicts with what), texts
        recorded from dockerd.
Rules   - zero and empty mean "leave it"; MemorySwap, CpuQuota and PidsLimit are lifted by -1, PidsLimit by 0, too.
        - a running container gets the new limits before they are recorded: what the kernel refuses changes nothing.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from minidocker import typed
from minidocker.engine import abilities
from minidocker.engine.containers import spec, validate
from minidocker.engine.containers.config import HostConfig
from minidocker.engine.containers.config_reader import host_fields, is_empty, read_host
from minidocker.engine.containers.container import Container, Record
from minidocker.errors import Conflict, InvalidArgument, KernelError, MinidockerError
from minidocker.oci import runtime_spec as oci

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

_NUMBERS = (
    "blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "memory",
    "memory_swap", "memory_reservation",
)  # fmt: skip
# Fields of the body that Docker takes and that can change; any other that asks for something is refused.
_KNOWN = {
    "BlkioWeight", "CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems", "Memory",
    "MemorySwap", "MemoryReservation", "PidsLimit", "RestartPolicy", "KernelMemory",
}  # fmt: skip


def read_update(body: dict[str, Any]) -> HostConfig:
    """The wish of an update's body. Raises InvalidArgument: a wrong type, or a field that cannot be changed."""
    fields = typed.named(body, host_fields())
    for key in fields.keys() & host_fields() - _KNOWN:
        if not is_empty(fields[key]):
            raise InvalidArgument(f"{key} cannot be changed by an update: create the container anew")
    return read_host({key: value for key, value in fields.items() if key in _KNOWN})


def merge(record: Record, wish: HostConfig) -> HostConfig:
    """The container's host configuration with the wish in it.

    Raises  Conflict: the wish contradicts what is set and not changed with it.
    """
    host = record.host
    if wish.nano_cpus and (host.cpu_period > 0 or host.cpu_quota > 0):
        kind = "Period" if host.cpu_period > 0 else "Quota"
        raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as CPU {kind} has already been set")
    for value, kind in ((wish.cpu_period, "Period"), (wish.cpu_quota, "Quota")):
        if value and host.nano_cpus:
            raise Conflict(f"Conflicting options: CPU {kind} cannot be updated as NanoCPUs has already been set")
    if wish.memory and not wish.memory_swap and 0 < host.memory_swap < wish.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    changed = {name: getattr(wish, name) for name in _NUMBERS if getattr(wish, name)}
    if wish.pids_limit is not None:
        changed["pids_limit"] = max(wish.pids_limit, 0)
    if wish.restart_policy.name:
        if host.auto_remove and wish.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changed["restart_policy"] = wish.restart_policy
    return msgspec.structs.replace(host, **changed)


def changes(before: oci.Resources, after: oci.Resources, *, lift_pids: bool) -> oci.Resources:
    """What to write to the group of a running container: all limits of `after`, devices apart."""
    pids = after.pids or (oci.Pids(-1) if lift_pids or before.pids else None)
    return oci.Resources(memory=after.memory, cpu=after.cpu, pids=pids, block_io=after.block_io)


class Updating:
    """Updates of the containers of one engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def update(self, container: Container, wish: HostConfig) -> list[str]:
        """Change it, and return warnings.

        Raises  InvalidArgument: see `validate`. Conflict: see `merge`, or it is being removed. MinidockerError: the
                kernel refuses a value.
        """
        if wish.restart_policy.maximum_retry_count and not wish.restart_policy.name:
            raise InvalidArgument("maximum retry count cannot be used without the restart policy on-failure")
        async with container.lock:
            record = container.record
            try:
                if container.removed or record.removing:
                    raise Conflict('Container is marked for removal and cannot be "update".')
                merged = merge(record, wish)
            except Conflict as error:
                raise Conflict(f"Cannot update container {container.id}: {error}") from None
            validate.check_host(merged, record.config)
            merged, warnings = abilities.adapt(merged, self._engine.abilities)
            if container.state.running:
                await asyncio.to_thread(self._apply, container, merged, wish.pids_limit is not None)
            record.host = merged
            await container.save()
        self._engine.events.emit("container", "update", container.id, container.attributes())
        return warnings

    def _apply(self, container: Container, merged: HostConfig, lift_pids: bool) -> None:
        """In a thread: write the limits; on a refusal write the old ones again, as far as they go."""
        record, starter = container.record, self._engine.starter
        facts = starter.facts(record, container.directory)
        before = spec.resources(record, facts)
        after = spec.resources(msgspec.structs.replace(record, host=merged), facts)
        runtime = self._engine.runtime
        try:
            runtime.update(container.id, changes(before, after, lift_pids=lift_pids))
        except (KernelError, MinidockerError) as error:
            try:
                runtime.update(container.id, changes(before, before, lift_pids=lift_pids))
            except (KernelError, MinidockerError):
                pass  # the first refusal is what the client must hear
            raise MinidockerError(f"Cannot update container {container.id}: {error}") from error
