"""One network: its record on disk, and what it means for the bridge.

Source  Docker Engine API 1.44, NetworkInspect; dockerd's bridge driver options (com.docker.network.*).
Rules   - `networks/<id>.json` is the record, complete once the network exists: the next daemon needs nothing else.
        - `pools` is what was asked for and what inspect shows; `address` is what the bridge has.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

import msgspec

from minidocker.engine.values import truth
from minidocker.network.bridge import BridgeConfig

BRIDGE_OPTION = "com.docker.network.bridge."
NAME, ICC, MASQUERADE, HOST_ADDRESS = (
    BRIDGE_OPTION + word for word in ("name", "enable_icc", "enable_ip_masquerade", "host_binding_ipv4")
)
MTU = "com.docker.network.driver.mtu"
INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
DEFAULT_MTU = 1500


class Pool(msgspec.Struct, rename={"subnet": "Subnet", "ip_range": "IPRange", "gateway": "Gateway",
                                   "auxiliary": "AuxiliaryAddresses"}, omit_defaults=True):  # fmt: skip
    """A subnet in CIDR form, and how it is used."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary: dict[str, str] = {}

    @property
    def version(self) -> int:
        """Of the Internet Protocol: 4 or 6."""
        return 6 if ":" in self.subnet else 4


class Network(msgspec.Struct):
    """One network.

    driver   "bridge", "host" or "null"
    pools    as asked for; [] until the daemon has chosen a subnet
    static   the user named the subnet, so containers may ask for addresses in it
    address  of the bridge: the gateway with the subnet's prefix; "" without a bridge of its own
    ipv6     the network has IPv6 too: static6 and address6 are as those above
    builtin  one of the three that every daemon has: not on disk, never removed
    """

    name: str
    id: str
    driver: str
    created: str
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None
    pools: list[Pool] = []
    static: bool = False
    address: str = ""
    builtin: bool = False
    ipv6: bool = False
    static6: bool = False
    address6: str = ""

    @property
    def user_defined(self) -> bool:
        """A bridge network with names and, if its subnet was named, addresses on request."""
        return not self.builtin

    @property
    def bridge(self) -> str:
        """The device on the host."""
        return self.options.get(NAME) or f"br-{self.id[:12]}"

    @property
    def interface_prefix(self) -> str:
        """How the interfaces inside are called, before their number."""
        return self.options.get(INTERFACE_PREFIX) or "eth"

    @property
    def subnet(self) -> IPv4Network | None:
        """The subnet, once it is known."""
        return IPv4Interface(self.address).network if self.address else None

    @property
    def subnet6(self) -> IPv6Network | None:
        """The subnet of IPv6, once it is known; None: the network has none."""
        return IPv6Interface(self.address6).network if self.address6 else None

    def pool(self, version: int) -> Pool:
        """The subnet of IPv4 or IPv6 and how it is used; an empty one if nothing is said of it."""
        return next((pool for pool in self.pools if pool.version == version), Pool())

    def config(self, avoid: tuple[IPv4Network, ...] = (), avoid6: tuple[IPv6Network, ...] = ()) -> BridgeConfig:
        """What the bridge shall be. avoid, avoid6: subnets that are not chosen for it."""
        pool, pool6 = self.pool(4), self.pool(6) if self.ipv6 else Pool()
        return BridgeConfig(
            name=self.name,
            bridge=self.bridge,
            address=IPv4Interface(self.address) if self.address else None,
            ip_range=IPv4Network(pool.ip_range) if pool.ip_range else None,
            reserved=tuple(IPv4Address(address) for address in pool.auxiliary.values()),
            avoid=avoid,
            mtu=int(self.options.get(MTU) or 0) or DEFAULT_MTU,
            internal=self.internal,
            icc=truth(self.options.get(ICC, "true")),
            masquerade=truth(self.options.get(MASQUERADE, "true")),
            host_address=self.options.get(HOST_ADDRESS) or "0.0.0.0",
            ipv6=self.ipv6,
            address6=IPv6Interface(self.address6) if self.address6 else None,
            ip_range6=IPv6Network(pool6.ip_range) if pool6.ip_range else None,
            reserved6=tuple(IPv6Address(address) for address in pool6.auxiliary.values()),
            avoid6=avoid6,
        )
