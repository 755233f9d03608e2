"""A container's places in its networks: which it wants, what it gets, and which of them leads out.

Source  Docker's network model (sandbox, endpoint, network); moby daemon/container_operations.go, libnetwork/sandbox.go.
Rules   - runs in threads; reads the record under the container's lock, and never changes it.
        - the default route goes over one network: the highest priority, then the first by name, that has a way out.
          The published ports are on the same one.
        - the network of the mode has the first interface, the others follow in the order in which they were named.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

import msgspec

from minidocker.engine.containers.config import EndpointIPAM, EndpointRequest, HostConfig
from minidocker.engine.containers.container import Record
from minidocker.engine.networks.network import Network
from minidocker.engine.values import parse_port
from minidocker.errors import Forbidden, InvalidArgument, NotFound
from minidocker.network.bridge import BridgeNetwork
from minidocker.network.endpoint import Endpoint, LiveEndpoint
from minidocker.network.ports import ANY, ANY6, PortBinding, parse_binding
from minidocker.network.rules import Published

Undo = Callable[[], object]
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
RESOLVER_ADDRESS = "127.0.0.11"
DEFAULT = "bridge"
WITHOUT_BRIDGE = ("host", "none")
MODE_NAMES = {"default": DEFAULT, "": DEFAULT}


class Lookup(Protocol):
    """The networks of the engine."""

    def get(self, text: str) -> Network:
        """By name or ID. Raises NotFound."""

    def bridge(self, name: str) -> BridgeNetwork:
        """The living bridge network of that name. Raises NotFound."""


@dataclass(slots=True)
class Attached:
    """What a start has got: endpoints by network, in the order of the interfaces; the ports, on which network."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    ports: list[Published] = field(default_factory=list)
    published_on: str = ""


def first_network(host: HostConfig, *, disabled: bool = False) -> str:
    """The network that the mode names; "" where it is another container's."""
    mode = "none" if disabled else host.network_mode
    return "" if mode.startswith("container:") else MODE_NAMES.get(mode, mode)


def live_endpoints(record: Record) -> list[LiveEndpoint]:
    """The endpoints of a container that lives on; its ports are on one of them."""
    return [
        LiveEndpoint(endpoint, tuple(record.ports) if name == record.published_on else ())
        for name, endpoint in record.attached.items()
    ]


def on_default(host: HostConfig) -> bool:
    """Whether the mode is the default network's, the only one with legacy links."""
    return first_network(host) == DEFAULT


def wanted(record: Record) -> list[str]:
    """The bridge networks that a container is in, that of its mode first."""
    if record.config.network_disabled or record.host.network_mode.startswith("container:"):
        return []
    names = [name for name in record.networks if name not in WITHOUT_BRIDGE]
    first = first_network(record.host)
    return sorted(names, key=lambda name: name != first)


def gateway_network(
    networks: Mapping[str, EndpointRequest], endpoints: Mapping[str, Endpoint], version: int = 4
) -> str:
    """The network that the default route (of IPv4, of IPv6) goes over; "" if none leads out."""

    def rank(name: str) -> tuple[int, str]:
        request = networks.get(name)
        return -(request.gateway_priority if request else 0), name

    ways = {name: endpoint.gateway if version == 4 else endpoint.gateway6 for name, endpoint in endpoints.items()}
    return min((name for name, gateway in ways.items() if gateway), key=rank, default="")


def check_request(network: Network, request: EndpointRequest) -> None:
    """What the network must be for what is asked of it. Raises InvalidArgument in Docker's words."""
    ipam = request.ipam_config
    if ipam is not None and ipam.ipv4_address:
        _check_address(network, ipam.ipv4_address, 4)
    if ipam is not None and ipam.ipv6_address:
        _check_address(network, ipam.ipv6_address, 6)
    if ipam is not None:
        link_local(ipam)
    if request.aliases and not network.user_defined:
        raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    if any(not alias or re.search(r"[\s\0]", alias) for alias in request.aliases or []):
        raise InvalidArgument(f"invalid network alias: {request.aliases}")
    for link in request.links or []:
        if link.count(":") > 1 or not link.partition(":")[0]:
            raise InvalidArgument(f"bad format for links: {link}")
    if request.mac_address and not _MAC.fullmatch(request.mac_address):
        raise InvalidArgument(f"{request.mac_address} is not a valid mac address")


def link_local(ipam: EndpointIPAM | None) -> tuple[str, ...]:
    """The further addresses that an interface is to have, with prefix: of IPv4 by their class, as in libnetwork.

    Raises  InvalidArgument: not an address.
    """
    found: list[str] = []
    for text in (ipam.link_local_ips if ipam is not None else None) or []:
        try:
            address = ip_address(text)
        except ValueError:
            raise InvalidArgument(f"Invalid link-local IP address: {text}") from None
        first = address.packed[0]
        classes = 8 if first < 128 else 16 if first < 192 else 24
        found.append(f"{address}/{classes if address.version == 4 else 64}")
    return tuple(found)


def _check_address(network: Network, text: str, version: int) -> None:
    try:
        address = IPv4Address(text) if version == 4 else IPv6Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IPv{version} address: {text}") from None
    if not network.user_defined:
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if version == 6 and not network.ipv6 and any(pool.version == 6 for pool in network.pools):
        return  # as Docker: of a subnet that is not switched on an address is noted, and nobody gets it
    if not (network.static if version == 4 else network.static6):
        raise InvalidArgument(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    subnet = network.subnet if version == 4 else network.subnet6
    if subnet is not None and address not in subnet:
        raise InvalidArgument(f"Invalid address {text}: It does not belong to any of this network's subnets ({subnet})")


class Attachments:
    """Attaching and releasing, on an engine's networks."""

    def __init__(self, networks: Lookup) -> None:
        self._networks = networks

    def check(self, record: Record) -> None:
        """Before anything is made. Raises NotFound: a network that is not there; Forbidden: modes that exclude others.

        InvalidArgument: see `check_request`.
        """
        names = list(record.networks)
        alone = [name for name in names if name in WITHOUT_BRIDGE]
        if alone and len(names) > 1:
            raise Forbidden(f"a container with the network {alone[0]} cannot be connected to others too")
        for name in names:
            check_request(self._networks.get(name), record.networks[name])

    def allocate(
        self, record: Record, name: str, taken: Mapping[str, Endpoint], *, mac: str = ""
    ) -> tuple[BridgeNetwork, Endpoint]:
        """An endpoint on one network: an address, and an interface's name that is free inside."""
        network, bridge, request = self._networks.get(name), self._networks.bridge(name), record.networks[name]
        ipam = request.ipam_config
        endpoint = bridge.allocate(
            record.id,
            IPv4Address(ipam.ipv4_address) if ipam is not None and ipam.ipv4_address else None,
            request.mac_address or mac or None,
            requested6=IPv6Address(ipam.ipv6_address) if ipam is not None and ipam.ipv6_address else None,
            interface=free_interface(network.interface_prefix, {one.interface for one in taken.values()}),
        )
        return bridge, msgspec.structs.replace(endpoint, link_local=link_local(ipam))

    def allocate_all(self, record: Record, undo: Callable[[Undo], object]) -> Attached:
        """An endpoint on every network of a container that starts. undo: told how to give each back."""
        attached = Attached()
        first = self._name_of(first_network(record.host))
        for name in wanted(record):
            mac = record.config.mac_address if name == first else ""
            bridge, endpoint = self.allocate(record, name, attached.endpoints, mac=mac)
            undo(lambda bridge=bridge, endpoint=endpoint: bridge.release(endpoint))  # type: ignore[misc]
            attached.endpoints[name] = endpoint
        return attached

    def _name_of(self, text: str) -> str:
        """The name of the network that a mode means: it may be an ID."""
        try:
            return self._networks.get(text).name
        except NotFound:
            return text

    def attach_all(self, record: Record, attached: Attached, pid: int) -> None:
        """Interfaces into the namespace of `pid`, ports on the network that leads out. Raises PortUnavailable."""
        leading = gateway_network(record.networks, attached.endpoints)
        for name, endpoint in attached.endpoints.items():
            self._networks.bridge(name).attach(endpoint, pid)
        if leading:
            self.publish(record, attached, leading)

    def publish(self, record: Record, attached: Attached, name: str) -> None:
        """Publish the container's ports on one of its networks."""
        bridge = self._networks.bridge(name)
        wishes = bindings(record, bridge.config.host_address)
        attached.ports = bridge.publish(attached.endpoints[name], wishes, name=record.name)
        attached.published_on = name if attached.ports else ""

    def needs_resolver(self, endpoints: Mapping[str, Endpoint]) -> bool:
        """Whether names are resolved by the embedded DNS server: on user-defined networks."""
        return any(self._networks.get(name).user_defined for name in endpoints)

    def release_all(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Give back what a container had that has ended. The first failure is raised when all were tried."""
        failure: Exception | None = None
        for name, endpoint in endpoints.items():
            try:
                self._networks.bridge(name).release(endpoint)
            except NotFound:
                continue
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


def free_interface(prefix: str, taken: set[str]) -> str:
    """The first of eth0, eth1, ... that is not taken."""
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def plan(record: Record, endpoints: Mapping[str, Endpoint]) -> dict[str, object] | None:
    """What pid 1 configures: its interfaces, loopback always; None: the namespace is not its own."""
    mode = record.host.network_mode
    if mode == "host" or mode.startswith("container:"):
        return None
    leading, leading6 = (gateway_network(record.networks, endpoints, version) for version in (4, 6))
    interfaces = [e.interface_plan(leads=n == leading, leads6=n == leading6) for n, e in endpoints.items()]
    return {"interfaces": interfaces}


def bindings(record: Record, host_address: str = "0.0.0.0") -> list[PortBinding]:
    """The published ports as the network wants them; -P publishes every exposed port that is not bound.

    host_address  where a port goes that asks for no address; "0.0.0.0" means every address of IPv6, too
    """
    found: list[PortBinding] = []
    wishes = record.host.port_bindings or {}
    also = ANY6 if host_address == ANY else ""
    for port, places in wishes.items():
        for place in places or [None]:  # type: ignore[list-item]
            address = place.host_ip if place else ""
            binding = parse_binding(port, address or host_address, place.host_port if place else "")
            found.append(binding if address else replace(binding, also=also))
    if record.host.publish_all_ports:
        bound = {(b.container_port, b.protocol) for b in found}
        for exposed in record.config.exposed_ports or {}:
            low, high, protocol = parse_port(exposed)
            numbers = [n for n in range(low, high + 1) if (n, protocol) not in bound]
            found += [PortBinding(number, protocol, host_address, also=also) for number in numbers]
    return found
