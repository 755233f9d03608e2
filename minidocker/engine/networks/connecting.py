"""Connecting containers to networks and taking them out again, running or not.

Source  Docker Engine API 1.44: NetworkConnect, NetworkDisconnect; texts and statuses recorded from dockerd; moby
        daemon/container_operations.go.
Rules   - a running container: interface, then route, then ports, then what is written down; its record says "connected"
          only when all of it is done, and a crash before that leaves an interface that the next daemon sweeps.
        - the container's lock is held all the time; what is inside its namespace is done by a fork of the launcher.
        - the default route and the published ports move to whichever network leads out now, by one rule.
"""

import asyncio
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.engine.containers.config import EndpointRequest
from minidocker.engine.containers.container import VOLATILE_NAME, Container, Record, Volatile
from minidocker.engine.containers.etc_files import LiveFiles
from minidocker.engine.containers.starting import close_all
from minidocker.engine.networks import attachments
from minidocker.engine.networks.attachments import RESOLVER_ADDRESS, WITHOUT_BRIDGE, Attached
from minidocker.engine.networks.network import Network
from minidocker.errors import Conflict, Forbidden, InvalidArgument, MinidockerError, NotFound
from minidocker.network.endpoint import Endpoint
from minidocker.runtime import records
from minidocker.runtime.network import Route

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

_HOST_ONLY = "container cannot be disconnected from host network or connected to host network"
_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_NONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


@dataclass(slots=True)
class Changed:
    """What a running container has after a change; sockets: of a DNS server that it did not have before."""

    networks: dict[str, EndpointRequest]
    attached: Attached
    sockets: list[socket.socket] = field(default_factory=list)


class Connecting:
    """Connect and disconnect, on an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def connect(self, text: str, name: str, request: EndpointRequest | None) -> None:
        """Connect a container to a network. It may be stopped: then it is connected when it starts.

        Raises  NotFound, InvalidArgument, Forbidden: in Docker's words. Conflict: the address is in use.
        """
        engine = self._engine
        network, container = engine.networks.get(text), engine.containers.get(name)
        request = request or EndpointRequest()
        async with container.lock:
            record = container.record
            self._check_connect(network, container, request)
            networks = {**record.networks, network.name: request}
            if not container.state.running:
                record.networks = networks
                await container.save()
                return
            changed = await asyncio.to_thread(self._attach, container, network.name, networks)
            self._adopt(container, changed)
            engine.resolving.came(container)
            await engine.resolving.serve(container, changed.sockets)
            await container.save()
        engine.networks.tell("connect", container, [network.name])

    def _check_connect(self, network: Network, container: Container, request: EndpointRequest) -> None:
        record, mode = container.record, container.record.host.network_mode
        if container.removed or record.removing:
            raise Conflict(
                f"Container {container.id} is marked for removal and cannot be connected or disconnected to the network"
            )
        if network.name == "host":
            raise InvalidArgument(_HOST_ONLY)
        if mode.startswith("container:") or "host" in record.networks:
            raise InvalidArgument(_SHARED)
        others = set(record.networks) - {network.name}
        if others and (network.name == "none" or "none" in others):
            raise InvalidArgument(_NONE)
        if container.state.running and network.name in record.networks:
            raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")
        attachments.check_request(network, request)

    def _attach(self, container: Container, name: str, networks: dict[str, EndpointRequest]) -> Changed:
        """In a thread: all of it on the kernel's side, or nothing."""
        record = msgspec.structs.replace(container.record, networks=networks)
        if name in WITHOUT_BRIDGE:
            return Changed(networks, _attached(record))
        with ExitStack() as undo:
            bridge, endpoint = self._engine.attachments.allocate(record, name, record.attached)
            undo.callback(bridge.detach, endpoint)
            self._engine.runtime.while_alive(record.id, lambda pid: bridge.attach(endpoint, pid))
            endpoints = {**record.attached, name: endpoint}
            routes = [route for route in _routes(networks, endpoints) if route.interface == endpoint.interface]
            needed = self._engine.networks.get(name).user_defined and not record.resolver
            sockets = self._engine.runtime.change_network(
                record.id,
                {"interfaces": [endpoint.interface_plan(leads=False, leads6=False)]},
                routes=routes,
                resolver=RESOLVER_ADDRESS if needed else "",
            )
            undo.callback(close_all, sockets)
            attached = _attached(record)
            attached.endpoints = endpoints
            undo.callback(self._put_back, container.record, attached)
            self._lead_ports(record, attached)
            files = LiveFiles(record, container.directory)
            for address in endpoint.addresses:
                files.add_address(address)
                undo.callback(files.remove_address, address)
            if needed:
                files.use_embedded()
            self._write(record, attached, resolver=record.resolver or bool(sockets))
            undo.pop_all()
        return Changed(networks, attached, sockets)

    def _put_back(self, before: Record, attached: Attached) -> None:
        """A connect failed: ports and route as they were; what was not there before goes with the interface."""
        if before.published_on and attached.published_on != before.published_on:
            self._move_ports(attached, before.published_on)
        self._set_routes(before.id, _routes(before.networks, before.attached))

    def _lead_ports(self, record: Record, attached: Attached) -> None:
        """Published ports go to the network that leads out now, keeping their numbers on the host."""
        leading = attachments.gateway_network(record.networks, attached.endpoints)
        if attached.published_on:
            self._move_ports(attached, leading)
        elif leading:
            self._engine.attachments.publish(record, attached, leading)

    def _move_ports(self, attached: Attached, leading: str) -> None:
        bridge_of = self._engine.networks.bridge
        if not attached.published_on or attached.published_on == leading:
            return
        here = bridge_of(attached.published_on)
        other = attached.endpoints[attached.published_on]
        if leading:
            attached.ports = bridge_of(leading).take_over_ports(attached.endpoints[leading], here, other)
            attached.published_on = leading if attached.ports else ""
        else:
            here.unpublish(other)
            attached.ports, attached.published_on = [], ""

    async def disconnect(self, text: str, name: str, *, force: bool = False) -> None:
        """Take a container out of a network.

        Raises  NotFound, InvalidArgument; MinidockerError: it is not in the network.
        """
        engine = self._engine
        network = engine.networks.get(text)
        try:
            container = engine.containers.get(name)
        except NotFound:
            if force:
                raise NotFound(f"endpoint {name} not found") from None
            raise
        async with container.lock:
            record, running = container.record, container.state.running
            if network.name == "host" and running:
                raise InvalidArgument(_HOST_ONLY)
            if network.name not in record.networks:
                raise MinidockerError(
                    f"container {container.id} is not connected to {'' if running else 'the '}network {network.name}"
                )
            networks = {key: value for key, value in record.networks.items() if key != network.name}
            if running:
                engine.resolving.left(container, network.name)
                changed = await asyncio.to_thread(self._detach, container, network.name, networks)
                self._adopt(container, changed)
                engine.resolving.came(container)
            else:
                record.networks = networks
            await container.save()
        if running:
            engine.networks.tell("disconnect", container, [network.name])

    def _detach(self, container: Container, name: str, networks: dict[str, EndpointRequest]) -> Changed:
        """In a thread. Written down first: what a crash leaves of the interface is swept."""
        before = container.record
        record, attached = msgspec.structs.replace(before, networks=networks), _attached(before)
        endpoint = before.attached.get(name)
        if endpoint is None:
            return Changed(networks, attached)
        remaining = {key: value for key, value in before.attached.items() if key != name}
        leading = attachments.gateway_network(networks, remaining)
        if attached.published_on == name:
            self._move_ports(attached, leading)
        attached.endpoints = remaining
        self._write(record, attached, resolver=before.resolver)
        self._engine.networks.bridge(name).detach(endpoint)
        known = _routes(before.networks, before.attached)
        self._set_routes(record.id, [route for route in _routes(networks, remaining) if route not in known])
        for address in endpoint.addresses:
            LiveFiles(record, container.directory).remove_address(address)
        return Changed(networks, attached)

    def _set_routes(self, id: str, routes: list[Route]) -> None:
        if routes:
            self._engine.runtime.change_network(id, routes=routes)

    @staticmethod
    def _adopt(container: Container, changed: Changed) -> None:
        record, attached = container.record, changed.attached
        record.networks, record.attached = changed.networks, attached.endpoints
        record.ports, record.published_on = attached.ports, attached.published_on
        record.resolver = record.resolver or bool(changed.sockets)

    def _write(self, record: Record, attached: Attached, *, resolver: bool) -> None:
        volatile = Volatile(
            record.state.started_at, attached.endpoints, attached.ports, attached.published_on, resolver
        )
        path: Path = self._engine.runtime.exec_root / "containers" / record.id / VOLATILE_NAME
        records.write(path, volatile)


def _attached(record: Record) -> Attached:
    return Attached(dict(record.attached), list(record.ports), record.published_on)


def _routes(networks: dict[str, EndpointRequest], endpoints: dict[str, Endpoint]) -> list[Route]:
    """The default routes that a container should have: of IPv4 and of IPv6, as far as a network leads out."""
    leading, leading6 = (attachments.gateway_network(networks, endpoints, version) for version in (4, 6))
    ways = [Route(endpoints[leading].interface, endpoints[leading].gateway)] if leading else []
    return ways + ([Route(endpoints[leading6].interface, endpoints[leading6].gateway6)] if leading6 else [])
