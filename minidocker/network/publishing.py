"""Published ports of a network's endpoints: held on the host, led to the container, moved, given back.

Source  Docker's bridge driver (moby daemon/libnetwork/drivers/bridge, port_mapping), what it does seen from outside.
Rules   - a port is held before it is led anywhere, and given back after it leads nowhere.
        - each family has its own firewall and the endpoint's address of that family; an endpoint without IPv6 has ports
          of IPv4 only.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from minidocker.errors import InvalidArgument
from minidocker.linux import netlink
from minidocker.network.endpoint import Endpoint, LiveEndpoint
from minidocker.network.firewall import Firewall
from minidocker.network.ports import HostPorts, PortBinding, PortUnavailable
from minidocker.network.rules import Published

log = logging.getLogger(__name__)


class Publishing:
    """The published ports of one network. `firewall` and `ports` are the daemon's."""

    def __init__(self, firewall: Firewall, ports: HostPorts) -> None:
        self._firewall, self._ports = firewall, ports
        self._published: dict[str, list[Published]] = {}  # by endpoint ID

    def of(self, endpoint: Endpoint) -> list[Published]:
        """The endpoint's published ports, as bound."""
        return list(self._published.get(endpoint.id, ()))

    def publish(self, endpoint: Endpoint, bindings: Sequence[PortBinding], name: str) -> list[Published]:
        """See `BridgeNetwork.publish`."""
        try:
            bound = self._ports.reserve(endpoint.id, [_possible(binding, endpoint) for binding in bindings])
        except PortUnavailable as error:
            raise PortUnavailable(
                f"driver failed programming external connectivity on endpoint {name or endpoint.container_id[:12]} "
                f"({endpoint.id}): {error}"
            ) from None
        done: list[tuple[Firewall, list[Published]]] = []
        try:
            for firewall, address, ports in self._by_family(endpoint, bound):
                firewall.publish(address, ports)
                done.append((firewall, ports))
        except BaseException:
            for firewall, ports in done:
                firewall.unpublish(ports)
            self._ports.release(endpoint.id)
            raise
        self._published[endpoint.id] = bound
        self._forget_flows(bound, None)
        netlink.set_hairpin(endpoint.host_interface)
        return bound

    def take_over(self, endpoint: Endpoint, before: "Publishing", other: Endpoint, *, none: bool) -> list[Published]:
        """See `BridgeNetwork.take_over_ports`. none: this network publishes nothing."""
        there = before._published.pop(other.id, [])
        keeps = {"ip": not none, "ip6": bool(endpoint.address6) and not none}
        bound = [port for port in there if keeps[port.family]]
        for firewall, address, ports in self._by_family(endpoint, bound):
            firewall.republish(address, ports)
        for firewall, _, ports in self._by_family(other, [port for port in there if not keeps[port.family]]):
            firewall.unpublish(ports)
        self._ports.hand_over(other.id, endpoint.id, bound)
        self._forget_flows(there, other)
        if bound:
            self._published[endpoint.id] = bound
            netlink.set_hairpin(endpoint.host_interface)
        return bound

    def give_back(self, endpoint: Endpoint) -> None:
        """Take the endpoint's ports back; none is fine."""
        bound = self._published.pop(endpoint.id, [])
        if bound:
            for firewall, _, ports in self._by_family(endpoint, bound):
                firewall.unpublish(ports)
            self._ports.release(endpoint.id)
            self._forget_flows(bound, endpoint)

    def give_back_all(self) -> None:
        """Take the ports of all endpoints back."""
        for endpoint_id in list(self._published):
            bound = self._published.pop(endpoint_id)
            for family in {port.family for port in bound}:
                self._firewall.of(family).unpublish([port for port in bound if port.family == family])
            self._ports.release(endpoint_id)

    def adopt(self, one: LiveEndpoint) -> None:
        """After a daemon's restart: hold the ports of an endpoint that lived on; `Firewall.rewrite` leads them."""
        for port in one.published:
            wish = PortBinding(port.container_port, port.protocol, port.host_address, (port.host_port, port.host_port))
            try:
                self._ports.reserve(one.endpoint.id, [wish])
            except PortUnavailable as error:  # taken while no daemon held it; it is translated all the same
                log.warning("a published port is held by another", extra={"reason": str(error)})
        self._published[one.endpoint.id] = list(one.published)
        for firewall, address, ports in self._by_family(one.endpoint, one.published):
            firewall.expect(address, ports)

    def _by_family(
        self, endpoint: Endpoint, ports: Sequence[Published]
    ) -> Iterable[tuple[Firewall, str, list[Published]]]:
        """The ports of each family, with the firewall and the endpoint's address that they belong to."""
        for family, address in (("ip", endpoint.address), ("ip6", endpoint.address6)):
            those = [port for port in ports if port.family == family]
            if those:
                yield self._firewall.of(family), address, those

    def _forget_flows(self, bound: Sequence[Published], before: Endpoint | None) -> None:
        """before: who answered them until now; None: nobody of ours."""
        for family in ("ip", "ip6"):
            ports = {port.host_port for port in bound if port.protocol == "udp" and port.family == family}
            if ports:
                address = None if before is None else before.address if family == "ip" else before.address6
                self._firewall.of(family).forget_udp(ports, address)


def _possible(binding: PortBinding, endpoint: Endpoint) -> PortBinding:
    """What of a binding the endpoint can have. Raises InvalidArgument: a port of IPv6 alone, and it has none; ::1."""
    if binding.host_address == "::1":
        raise InvalidArgument(
            f"cannot publish port {binding.container_port}/{binding.protocol} on [::1]: the kernel leads nothing from "
            "there to a container; publish it on 127.0.0.1 or on another address of IPv6"
        )
    if endpoint.address6:
        return binding
    if ":" in binding.host_address:
        raise InvalidArgument(
            f"cannot publish port {binding.container_port}/{binding.protocol} on [{binding.host_address}]: "
            f"the container has no IPv6 address on network {endpoint.network}; create the network with --ipv6"
        )
    return replace(binding, also="") if binding.also else binding
