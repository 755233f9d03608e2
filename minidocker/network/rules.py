"""The nftables table of a daemon, as text: what it holds, and the elements that change.

Source  nft(8); kernel Documentation/networking/ip-sysctl.rst (route_localnet); CVE-2020-8558.
Rules   - pure: text in, text out; firewall.py applies it.
        - rules are written once. What comes and goes (networks, published ports) are elements of sets and maps,
          found by their key: no rule is ever looked for by its handle.
        - a drop here is final in every table, an accept is not: see openings.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Sets and maps in the order of their declaration; ADDRESS is ipv4_addr or ipv6_addr.
#   bridges       the bridges of this daemon's networks
#   internal      those of them that have no way out nor in
#   within        bridge . bridge, where containers of one network may talk to each other
#   masqueraded   subnets whose traffic leaves with the host's address
#   homes         subnet . its bridge
#   published_at  protocol . host address . host port : container address . port
#   published     protocol . host port : container address . port (published on every address of the host)
_SETS = {
    "bridges": "set bridges { type ifname; }",
    "internal": "set internal { type ifname; }",
    "within": "set within { type ifname . ifname; }",
    "masqueraded": "set masqueraded { type ADDRESS; flags interval; }",
    "homes": "set homes { type ADDRESS . ifname; flags interval; }",
    "published_at": "map published_at { type inet_proto . ADDRESS . inet_service : ADDRESS . inet_service; }",
    "published": "map published { type inet_proto . inet_service : ADDRESS . inet_service; }",
}

# IPv6 has no route_localnet: the kernel drops what comes for ::1 over a wire, answers of a container too. So ::1 leads
# nowhere, and who asks there is refused at once by the socket that holds the port.
_OWN_LOOPBACK = {"ip": "", "ip6": "ip6 daddr ::1 return"}
_LOOPBACK = {"ip": "ip saddr 127.0.0.0/8 oifname @bridges masquerade", "ip6": ""}
_GUARD = """
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    # route_localnet (for publishes seen from 127.0.0.1) would let neighbours in to the host's loopback services
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }"""
_CHAINS = """
  chain translate {
    meta l4proto { tcp, udp, sctp } dnat FAMILY to meta l4proto . FAMILY daddr . th dport map @published_at
    meta l4proto { tcp, udp, sctp } dnat FAMILY to meta l4proto . th dport map @published
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump translate
  }
  chain output {
    type nat hook output priority -100; policy accept;
    OWN_LOOPBACK
    fib daddr type local jump translate
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    # a container that reaches itself or its neighbour over the host's port: the answer must come back through the host
    FAMILY saddr . oifname @homes ct status dnat masquerade
    LOOPBACK
    FAMILY saddr @masqueraded FAMILY saddr . oifname != @homes masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @within accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges jump inward
  }
  chain inward {
    ct state established,related accept
    ct status dnat accept
    # neither another network of containers nor a neighbour that routes to the container's own address
    drop
  }
"""


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """What the firewall must know of one bridge network.

    bridge      name of the bridge
    subnet      "172.17.0.0/16"
    internal    True: nothing goes out or comes in, no port is published
    masquerade  outgoing traffic gets the host's address
    icc         containers of this network may talk to each other
    """

    bridge: str
    subnet: str
    internal: bool = False
    masquerade: bool = True
    icc: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """One published port, as it is bound.

    container_port, host_port  1 to 65535
    protocol                   "tcp", "udp" or "sctp"
    host_address               an address of the host; "0.0.0.0" means all of IPv4, "::" all of IPv6
    """

    container_port: int
    protocol: str
    host_address: str
    host_port: int

    @property
    def family(self) -> str:
        """Whose port it is: "ip" or "ip6"."""
        return family_of(self.host_address)


_ADDRESS = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
ANY = {"ip": "0.0.0.0", "ip6": "::"}


def family_of(address: str) -> str:
    """nftables' name of an address's family: "ip" or "ip6"."""
    return "ip6" if ":" in address else "ip"


def table(name: str, family: str = "ip") -> str:
    """Commands that make the table, or write its rules anew while the elements stay (no published port is lost)."""
    sets = "\n".join(f"  {text}" for text in _SETS.values()).replace("ADDRESS", _ADDRESS[family])
    chains = _CHAINS.replace("FAMILY", family)
    chains = chains.replace("OWN_LOOPBACK", _OWN_LOOPBACK[family]).replace("LOOPBACK", _LOOPBACK[family])
    guard = _GUARD if family == "ip" else ""
    begin = f"add table {family} {name}\nflush table {family} {name}\n"
    return f"{begin}table {family} {name} {{\n{sets}{guard}{chains}}}\n"


def remove_table(name: str, family: str = "ip") -> str:
    """Commands that remove the table, there or not."""
    return f"add table {family} {name}\ndelete table {family} {name}\n"


def network_elements(network: NetworkRules) -> list[tuple[str, str]]:
    """(set, element) of one network."""
    bridge, subnet = f'"{network.bridge}"', network.subnet
    elements = [("bridges", bridge), ("homes", f"{subnet} . {bridge}")]
    if network.icc:
        elements.append(("within", f"{bridge} . {bridge}"))
    if network.internal:
        elements.append(("internal", bridge))
    elif network.masquerade:
        elements.append(("masqueraded", subnet))
    return elements


def port_key(port: Published) -> tuple[str, str]:
    """(map, key) under which a published port stands."""
    if port.host_address in ANY.values():
        return "published", f"{port.protocol} . {port.host_port}"
    return "published_at", f"{port.protocol} . {port.host_address} . {port.host_port}"


def port_element(address: str, port: Published) -> tuple[str, str]:
    """(map, element) that leads a host's port to `address`, the container's."""
    where, key = port_key(port)
    return where, f"{key} : {address} . {port.container_port}"


def change(verb: str, table_name: str, elements: Iterable[tuple[str, str]], family: str = "ip") -> str:
    """Commands that "add" or "delete" the elements, one a set."""
    grouped: dict[str, list[str]] = {}
    for where, element in elements:
        grouped.setdefault(where, []).append(element)
    return "".join(
        f"{verb} element {family} {table_name} {where} {{ {', '.join(found)} }}\n" for where, found in grouped.items()
    )


def empty(table_name: str, family: str = "ip") -> str:
    """Commands that take every element out; with `change` in one transaction nobody sees the gap."""
    return "".join(
        f"flush {'map' if text.startswith('map') else 'set'} {family} {table_name} {name}\n"
        for name, text in _SETS.items()
    )
