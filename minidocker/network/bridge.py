"""Bridge networks: a bridge on the host, a pair of interfaces a container, addresses, published ports.

Source  Docker's bridge driver (moby daemon/libnetwork/drivers/bridge), what it does seen from outside.
Rules   - synchronous and callable from any thread; the hot path (attach, publish, release) starts no program.
        - an endpoint goes allocate, publish, attach, release. A failed start releases; release may come twice.
        - a pair dies with its network namespace, 15 to 50 ms after its last process. release does not wait for it: the
          address is free once the pair is seen gone; a pair that outlives a second is deleted (at the next allocate).
        - memory is truth while the daemon lives; the next daemon is told what lives (`adopt`) and sweeps the rest.
"""

import logging
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from minidocker.errors import Forbidden, InvalidArgument
from minidocker.linux import netlink
from minidocker.network import host
from minidocker.network.addresses import AddressPool, mac_of
from minidocker.network.endpoint import Endpoint, LiveEndpoint
from minidocker.network.firewall import Firewall
from minidocker.network.nftables import Nftables
from minidocker.network.ports import HostPorts, PortBinding, PortUnavailable
from minidocker.network.rules import NetworkRules, Published

log = logging.getLogger(__name__)

_LINGER_SECONDS = 1.0  # how long a dying namespace may take to take its pair along (15 to 50 ms seen)


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """A bridge network as its user wants it.

    name        of the network ("bridge"); bridge: of the device on the host (at most 15 bytes)
    address     of the bridge, which is the containers' gateway, with the subnet's prefix; None: found or chosen
    ip_range    part of the subnet that containers' addresses are chosen from; None: all of it
    reserved    addresses never handed out (Docker's AuxiliaryAddresses)
    avoid       subnets that are not chosen for it: of networks whose bridge is not there at the moment
    host_address  where ports are published that ask for no address of the host
    """

    name: str
    bridge: str
    address: IPv4Interface | None = None
    ip_range: IPv4Network | None = None
    reserved: tuple[IPv4Address, ...] = ()
    avoid: tuple[IPv4Network, ...] = ()
    mtu: int = 1500
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    host_address: str = "0.0.0.0"

    def __post_init__(self) -> None:
        host.check_name(self.bridge)


class BridgeNetwork:
    """One bridge network. Several share a daemon's `firewall` and `ports`."""

    def __init__(self, config: BridgeConfig, firewall: Firewall, ports: HostPorts) -> None:
        self.config = config
        self.firewall = firewall
        self.ports = ports
        self._bridge: host.Bridge | None = None
        self._pool: AddressPool | None = None
        self._published: dict[str, list[Published]] = {}  # by endpoint ID
        self._owned: set[str] = set()  # IDs of the endpoints that were not released yet
        # host interface -> when it was released, its address, its container
        self._leaving: dict[str, tuple[float, IPv4Address, str]] = {}
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Bring the bridge and the firewall to the state they should have; idempotent.

        Raises  Conflict, Unavailable: see `host.ensure_bridge`; Unsupported: no nftables; KernelError.
        """
        config = self.config
        host.sysctl("ip_forward", "1")
        bridge = host.ensure_bridge(config.bridge, config.address, config.mtu, self.firewall.name, config.avoid)
        host.sysctl(f"conf/{config.bridge}/route_localnet", "1")
        if self._pool is None or self._pool.subnet != bridge.address.network:
            self._pool = AddressPool(
                bridge.address.network, bridge.address.ip, allocate_from=config.ip_range, reserved=config.reserved
            )
        self._bridge = bridge
        self.firewall.add_network(
            NetworkRules(config.bridge, str(self.subnet), config.internal, config.masquerade, config.icc)
        )

    @property
    def subnet(self) -> IPv4Network:
        return self._ensured()[1].subnet

    @property
    def gateway(self) -> IPv4Address:
        return self._ensured()[1].gateway

    def allocate(
        self,
        container_id: str,
        requested: IPv4Address | None = None,
        mac: str | None = None,
        *,
        interface: str = "eth0",
    ) -> Endpoint:
        """A new endpoint with an address of its own. Raises: see `AddressPool.take`; InvalidArgument: a bad MAC.

        A container that starts again at once has its address again, though its old pair is not gone yet.
        """
        _, pool = self._ensured()
        mac = _checked(mac) if mac else None
        requested = requested or self._left_by(container_id)
        self._collect(_LINGER_SECONDS, requested)
        address = pool.take(requested)
        endpoint_id = secrets.token_hex(32)
        self._owned.add(endpoint_id)
        return Endpoint(
            id=endpoint_id,
            network=self.config.name,
            container_id=container_id,
            interface=interface,
            host_interface=f"veth{endpoint_id[:7]}",
            address=str(address),
            prefix=pool.subnet.prefixlen,
            gateway="" if self.config.internal else str(pool.gateway),
            mac=mac or mac_of(address),
            mtu=self.config.mtu,
        )

    def attach(self, endpoint: Endpoint, pid: int) -> None:
        """Put the endpoint's interface into the network namespace of `pid`, down; pid 1 configures it by `plan`.

        Raises  KernelError: ESRCH the process is gone.
        """
        bridge, _ = self._ensured()
        self.firewall.refresh()
        netlink.create_veth(
            endpoint.host_interface,
            bridge.index,
            endpoint.interface,
            pid,
            endpoint.mac,
            endpoint.mtu,
            hairpin=endpoint.id in self._published,
            isolated=not self.config.icc,  # frames within a bridge do not pass the firewall
        )

    def publish(self, endpoint: Endpoint, bindings: Sequence[PortBinding], *, name: str = "") -> list[Published]:
        """Publish ports of the endpoint on the host; all or none. Returns what they were bound to.

        name    the container's, for the error's text
        Raises  PortUnavailable: a host port is in use. Nothing was published then.
        """
        if not bindings or self.config.internal:
            return []
        try:
            bound = self.ports.reserve(endpoint.id, bindings)
        except PortUnavailable as error:
            raise PortUnavailable(
                f"driver failed programming external connectivity on endpoint {name or endpoint.container_id[:12]} "
                f"({endpoint.id}): {error}"
            ) from None
        try:
            self.firewall.publish(endpoint.address, bound)
        except BaseException:
            self.ports.release(endpoint.id)
            raise
        self._published[endpoint.id] = bound
        self._forget_flows(bound, None)
        netlink.set_hairpin(endpoint.host_interface)
        return bound

    def take_over_ports(self, endpoint: Endpoint, network: "BridgeNetwork", other: Endpoint) -> list[Published]:
        """Lead the ports that `other`, of `network`, has published to `endpoint` of this network from now on.

        The host's ports stay held all the time. An internal network publishes nothing: they are given back.
        """
        bound = network._published.pop(other.id, [])
        if not bound:
            return []
        if self.config.internal:
            network.firewall.unpublish(bound)
            network.ports.release(other.id)
            return []
        self.firewall.republish(endpoint.address, bound)
        self.ports.hand_over(other.id, endpoint.id)
        self._published[endpoint.id] = bound
        self._forget_flows(bound, other.address)
        netlink.set_hairpin(endpoint.host_interface)
        return bound

    def unpublish(self, endpoint: Endpoint) -> None:
        """Give back the ports of an endpoint that stays."""
        bound = self._published.pop(endpoint.id, [])
        if bound:
            self.firewall.unpublish(bound)
            self.ports.release(endpoint.id)
            self._forget_flows(bound, endpoint.address)

    def published(self, endpoint: Endpoint) -> list[Published]:
        """The endpoint's published ports, as bound."""
        return list(self._published.get(endpoint.id, ()))

    def release(self, endpoint: Endpoint) -> None:
        """Take ports, interface and address back. Idempotent; the container's namespace need not be gone yet."""
        self.unpublish(endpoint)
        with self._lock:
            if endpoint.id in self._owned:
                self._owned.discard(endpoint.id)
                left = (time.monotonic(), IPv4Address(endpoint.address), endpoint.container_id)
                self._leaving[endpoint.host_interface] = left

    def detach(self, endpoint: Endpoint) -> None:
        """Take the endpoint out of a namespace that lives on, and release it."""
        netlink.delete_link(endpoint.host_interface)
        self.release(endpoint)

    def in_use(self) -> bool:
        """Whether an endpoint of it was not released yet."""
        with self._lock:
            return bool(self._owned)

    def statistics(self, endpoint: Endpoint) -> dict[str, int]:
        """Docker's counters of the container's interface (bytes, packets, errors, dropped); empty if it is gone."""
        link = netlink.link(endpoint.host_interface)
        if link is None:
            return {}
        counters = ("bytes", "packets", "errors", "dropped")
        # what this end sent, the container's end received
        received = {f"rx_{what}": getattr(link, f"tx_{what}") for what in counters}
        return received | {f"tx_{what}": getattr(link, f"rx_{what}") for what in counters}

    def adopt(self, live: Iterable[LiveEndpoint]) -> None:
        """After a daemon's restart: these endpoints live on, interfaces of nobody go. Then comes `firewall.rewrite`."""
        bridge, pool = self._ensured()
        wanted = set()
        for one in live:
            wanted.add(one.endpoint.host_interface)
            self._owned.add(one.endpoint.id)
            pool.take(IPv4Address(one.endpoint.address))
            if one.published:
                self._adopt_ports(one)
        ports = [link for link in netlink.links() if link.master == bridge.index and link.kind == "veth"]
        for link in ports if bridge.ours else ():
            if link.name not in wanted:
                log.info("an interface of nobody is removed", extra={"interface": link.name})
                netlink.delete_link(link.name)

    def _adopt_ports(self, one: LiveEndpoint) -> None:
        for port in one.published:
            wish = PortBinding(port.container_port, port.protocol, port.host_address, (port.host_port, port.host_port))
            try:
                self.ports.reserve(one.endpoint.id, [wish])
            except PortUnavailable as error:  # taken while no daemon held it; it is translated all the same
                log.warning("a published port is held by another", extra={"reason": str(error)})
        self._published[one.endpoint.id] = list(one.published)
        self.firewall.expect(one.endpoint.address, one.published)

    def restore(self, live: Iterable[LiveEndpoint]) -> None:
        """`ensure`, `adopt` and `firewall.rewrite`: all that a daemon with this one network does after a restart."""
        self.ensure()
        self.adopt(live)
        self.firewall.rewrite()

    def settle(self) -> None:
        """Delete now what release left to the end of a namespace."""
        self._collect(0)

    def remove(self) -> None:
        """Remove all of this network: published ports, rules, bridge (another's bridge stays, its setting is reset)."""
        for endpoint_id in list(self._published):
            self.firewall.unpublish(self._published.pop(endpoint_id))
            self.ports.release(endpoint_id)
        self.settle()
        self.firewall.remove_network(self.config.bridge)
        link = netlink.link(self.config.bridge)
        if link is not None and link.alias == self.firewall.name:
            host.remove_bridge(self.config.bridge)
        elif link is not None:
            host.sysctl(f"conf/{self.config.bridge}/route_localnet", "0")
        self._bridge = self._pool = None
        self._owned.clear()

    def _collect(self, older_than_seconds: float, requested: IPv4Address | None = None) -> None:
        """Free the addresses of released pairs that are gone; delete those that linger or whose address is wanted."""
        with self._lock:
            limit = time.monotonic() - older_than_seconds
            due = [
                (name, address)
                for name, (since, address, _) in self._leaving.items()
                if since <= limit or address == requested or not netlink.exists(name)
            ]
            for name, _ in due:
                del self._leaving[name]
        for name, address in due:
            if netlink.exists(name) and netlink.delete_link(name):
                log.info("an interface outlived its container and was removed", extra={"interface": name})
            if self._pool is not None:
                self._pool.release(address)

    def _left_by(self, container_id: str) -> IPv4Address | None:
        with self._lock:
            return next((address for _, address, left_by in self._leaving.values() if left_by == container_id), None)

    def _forget_flows(self, bound: Sequence[Published], address: str | None) -> None:
        ports = {port.host_port for port in bound if port.protocol == "udp"}
        if ports:
            self.firewall.forget_udp(ports, address)

    def _ensured(self) -> tuple[host.Bridge, AddressPool]:
        if self._bridge is None or self._pool is None:
            raise Forbidden(f"network {self.config.name} is not set up; ensure() comes first")
        return self._bridge, self._pool


def _checked(mac: str) -> str:
    pairs = mac.lower().replace("-", ":").split(":")
    if len(pairs) != 6 or any(len(pair) != 2 or set(pair) - set("0123456789abcdef") for pair in pairs):
        raise InvalidArgument(f"{mac} is not a valid mac address")
    return ":".join(pairs)


def default_network(
    exec_root: Path, *, bridge: str | None = None, bip: str | None = None, mtu: int = 1500
) -> BridgeNetwork | None:
    """The daemon's network "bridge", by dockerd's flags --bridge and --bip; None: `--bridge none`.

    Nothing on the host is touched before `ensure`. Raises InvalidArgument: a bad --bip; Unsupported: no libnftables.
    """
    if bridge == "none":
        return None
    names = host.names(exec_root, bridge)
    try:
        address = IPv4Interface(bip) if bip else None
    except ValueError:
        raise InvalidArgument(f"--bip {bip!r} is no address with a prefix; for example 10.20.0.1/24") from None
    config = BridgeConfig("bridge", names.bridge, address, mtu=mtu)
    return BridgeNetwork(config, Firewall(names.table, Nftables()), HostPorts())
