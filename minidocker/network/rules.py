"""The nftables table of a daemon, as text: what it holds, and the elements that change.

Source  nft(8); kernel Documentation/networking/ip-sysctl.rst (route_localnet); CVE-2020-8558.
Rules   - pure: text in, text out; firewall.py applies it.
        - rules are written once. What comes and goes (networks, published ports) are elements of sets and maps,
          found by their key: no rule is ever looked for by its handle.
        - a drop here is final in every table, an accept is not: see openings.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Sets and maps in the order of their declaration.
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
    "masqueraded": "set masqueraded { type ipv4_addr; flags interval; }",
    "homes": "set homes { type ipv4_addr . ifname; flags interval; }",
    "published_at": "map published_at { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }",
    "published": "map published { type inet_proto . inet_service : ipv4_addr . inet_service; }",
}

_CHAINS = """
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    # route_localnet (for publishes seen from 127.0.0.1) would let neighbours in to the host's loopback services
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }
  chain translate {
    meta l4proto { tcp, udp } dnat ip to meta l4proto . ip daddr . th dport map @published_at
    meta l4proto { tcp, udp } dnat ip to meta l4proto . th dport map @published
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump translate
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump translate
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    # a container that reaches itself or its neighbour over the host's port: the answer must come back through the host
    ip saddr . oifname @homes ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname @bridges masquerade
    ip saddr @masqueraded ip saddr . oifname != @homes masquerade
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
    protocol                   "tcp" or "udp"
    host_address               an IPv4 address of the host; "0.0.0.0" means all
    """

    container_port: int
    protocol: str
    host_address: str
    host_port: int


def table(name: str) -> str:
    """Commands that make the table, or write its rules anew while the elements stay (no published port is lost)."""
    sets = "\n".join(f"  {text}" for text in _SETS.values())
    return f"add table ip {name}\nflush table ip {name}\ntable ip {name} {{\n{sets}{_CHAINS}}}\n"


def remove_table(name: str) -> str:
    """Commands that remove the table, there or not."""
    return f"add table ip {name}\ndelete table ip {name}\n"


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
    if port.host_address == "0.0.0.0":
        return "published", f"{port.protocol} . {port.host_port}"
    return "published_at", f"{port.protocol} . {port.host_address} . {port.host_port}"


def port_element(address: str, port: Published) -> tuple[str, str]:
    """(map, element) that leads a host's port to `address`, the container's."""
    where, key = port_key(port)
    return where, f"{key} : {address} . {port.container_port}"


def change(verb: str, table_name: str, elements: Iterable[tuple[str, str]]) -> str:
    """Commands that "add" or "delete" the elements, one a set."""
    grouped: dict[str, list[str]] = {}
    for where, element in elements:
        grouped.setdefault(where, []).append(element)
    return "".join(
        f"{verb} element ip {table_name} {where} {{ {', '.join(found)} }}\n" for where, found in grouped.items()
    )


def empty(table_name: str) -> str:
    """Commands that take every element out; with `change` in one transaction nobody sees the gap."""
    return "".join(
        f"flush {'map' if text.startswith('map') else 'set'} ip {table_name} {name}\n" for name, text in _SETS.items()
    )
