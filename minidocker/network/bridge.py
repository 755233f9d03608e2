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
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from pathlib import Path

from minidocker.errors import Forbidden, InvalidArgument, Unavailable
from minidocker.linux import netlink
from minidocker.network import host
from minidocker.network.addresses import Address, AddressPool, mac_of
from minidocker.network.endpoint import Endpoint, LiveEndpoint
from minidocker.network.firewall import Firewall
from minidocker.network.nftables import Nftables
from minidocker.network.ports import HostPorts, PortBinding
from minidocker.network.publishing import Publishing
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
    ipv6        the network has IPv6 too: address6, ip_range6, reserved6 and avoid6 are as those above
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
    ipv6: bool = False
    address6: IPv6Interface | None = None
    ip_range6: IPv6Network | None = None
    reserved6: tuple[IPv6Address, ...] = ()
    avoid6: tuple[IPv6Network, ...] = ()

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
        self._pool6: AddressPool | None = None
        self._publishing = Publishing(firewall, ports)
        self._owned: set[str] = set()  # IDs of the endpoints that were not released yet
        # host interface -> when it was released, its addresses, its container
        self._leaving: dict[str, tuple[float, list[Address], str]] = {}
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Bring the bridge and the firewall to the state they should have; idempotent.

        Raises  Conflict, Unavailable: see `host.ensure_bridge`; Unsupported: no nftables, no IPv6; KernelError.
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
        host.trust_no_router(config.bridge)
        settings = (config.internal, config.masquerade, config.icc)
        self.firewall.add_network(NetworkRules(config.bridge, str(self.subnet), *settings))
        if config.ipv6:
            address6 = host.ensure_address6(config.bridge, config.address6, self.firewall.name, config.avoid6)
            if self._pool6 is None or self._pool6.subnet != address6.network:
                self._pool6 = AddressPool(
                    address6.network, address6.ip, allocate_from=config.ip_range6, reserved=config.reserved6
                )
            self.firewall.ipv6().add_network(NetworkRules(config.bridge, str(address6.network), *settings))

    @property
    def subnet(self) -> IPv4Network:
        subnet = self._ensured()[1].subnet
        assert isinstance(subnet, IPv4Network)
        return subnet

    @property
    def gateway(self) -> IPv4Address:
        gateway = self._ensured()[1].gateway
        assert isinstance(gateway, IPv4Address)
        return gateway

    @property
    def address6(self) -> IPv6Interface | None:
        """The bridge's address of IPv6 with the subnet's prefix; None on a network without IPv6."""
        pool = self._pool6
        return None if pool is None else IPv6Interface(f"{pool.gateway}/{pool.subnet.prefixlen}")

    def allocate(
        self,
        container_id: str,
        requested: IPv4Address | None = None,
        mac: str | None = None,
        *,
        requested6: IPv6Address | None = None,
        interface: str = "eth0",
    ) -> Endpoint:
        """A new endpoint with addresses of its own. Raises: see `AddressPool.take`; InvalidArgument: a bad MAC.

        A container that starts again at once has its addresses again, though its old pair is not gone yet.
        """
        _, pool = self._ensured()
        pool6 = self._pool6
        mac = _checked(mac) if mac else None
        left = self._left_by(container_id)
        wish: Address | None = requested or next((address for address in left if address.version == 4), None)
        wish6: Address | None = requested6 or next((address for address in left if address.version == 6), None)
        self._collect(_LINGER_SECONDS, {wish, wish6})
        address = self._taken(pool, wish)
        assert isinstance(address, IPv4Address)
        try:
            address6 = self._taken(pool6, wish6) if pool6 is not None else None
        except BaseException:
            pool.release(address)
            raise
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
            address6=str(address6 or ""),
            prefix6=pool6.subnet.prefixlen if pool6 is not None else 0,
            gateway6="" if self.config.internal or pool6 is None else str(pool6.gateway),
        )

    def _taken(self, pool: AddressPool, wish: Address | None) -> Address:
        """An address of the pool. If there is none, those of pairs that the kernel is slow to remove are fetched."""
        try:
            return pool.take(wish)
        except Unavailable:
            self._collect(0)
            return pool.take(wish)

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
            hairpin=bool(self.published(endpoint)),
            isolated=not self.config.icc,  # frames within a bridge do not pass the firewall
        )

    def publish(self, endpoint: Endpoint, bindings: Sequence[PortBinding], *, name: str = "") -> list[Published]:
        """Publish ports of the endpoint on the host; all or none. Returns what they were bound to.

        name    the container's, for the error's text
        Raises  PortUnavailable: a host port is in use. Nothing was published then.
        """
        if not bindings or self.config.internal:
            return []
        return self._publishing.publish(endpoint, bindings, name)

    def take_over_ports(self, endpoint: Endpoint, network: "BridgeNetwork", other: Endpoint) -> list[Published]:
        """Lead the ports that `other`, of `network`, has published to `endpoint` of this network from now on.

        The host's ports stay held all the time. What has no place here is given back: all ports on an internal network,
        those of IPv6 on a network without it.
        """
        return self._publishing.take_over(endpoint, network._publishing, other, none=self.config.internal)

    def unpublish(self, endpoint: Endpoint) -> None:
        """Give back the ports of an endpoint that stays."""
        self._publishing.give_back(endpoint)

    def published(self, endpoint: Endpoint) -> list[Published]:
        """The endpoint's published ports, as bound."""
        return self._publishing.of(endpoint)

    def release(self, endpoint: Endpoint) -> None:
        """Take ports, interface and address back. Idempotent; the container's namespace need not be gone yet."""
        self.unpublish(endpoint)
        with self._lock:
            if endpoint.id in self._owned:
                self._owned.discard(endpoint.id)
                addresses = [ip_address(address) for address in endpoint.addresses]
                self._leaving[endpoint.host_interface] = (time.monotonic(), addresses, endpoint.container_id)

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
            if one.endpoint.address6 and self._pool6 is not None:
                self._pool6.take(IPv6Address(one.endpoint.address6))
            if one.published:
                self._publishing.adopt(one)
        ports = [link for link in netlink.links() if link.master == bridge.index and link.kind == "veth"]
        for link in ports if bridge.ours else ():
            if link.name not in wanted:
                log.info("an interface of nobody is removed", extra={"interface": link.name})
                netlink.delete_link(link.name)

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
        self._publishing.give_back_all()
        self.settle()
        if self.config.ipv6:
            self.firewall.ipv6().remove_network(self.config.bridge)
        self.firewall.remove_network(self.config.bridge)
        link = netlink.link(self.config.bridge)
        if link is not None and link.alias == self.firewall.name:
            host.remove_bridge(self.config.bridge)
        elif link is not None:
            host.sysctl(f"conf/{self.config.bridge}/route_localnet", "0")
        self._bridge = self._pool = self._pool6 = None
        self._owned.clear()

    def _collect(self, older_than_seconds: float, requested: Collection[Address | None] = ()) -> None:
        """Free the addresses of released pairs that are gone; delete those that linger or whose address is wanted."""
        with self._lock:
            limit = time.monotonic() - older_than_seconds
            due = [
                (name, addresses)
                for name, (since, addresses, _) in self._leaving.items()
                if since <= limit or any(a in requested for a in addresses) or not netlink.exists(name)
            ]
            for name, _ in due:
                del self._leaving[name]
        for name, addresses in due:
            if netlink.exists(name) and netlink.delete_link(name):
                log.info("an interface outlived its container and was removed", extra={"interface": name})
            for address in addresses:
                pool = self._pool if address.version == 4 else self._pool6
                if pool is not None:
                    pool.release(address)

    def _left_by(self, container_id: str) -> list[Address]:
        with self._lock:
            return next((found for _, found, left_by in self._leaving.values() if left_by == container_id), [])

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
