"""The host's side of a bridge network: the bridge itself, kernel settings, subnets in use.

Source  bridge in rtnetlink(7); kernel Documentation/networking/ip-sysctl.rst.
Rules   - a bridge that we made carries our mark as its alias; another's bridge is used but never removed.
        - forwarding is switched on and left on: others on the host may have come to need it. A host that forwards IPv6
          does not learn its own routes from routers any more, unless told to (accept_ra 2): those that did, still do.
        - containers are no routers of the host: their bridge takes no router's advertisement (CVE-2020-13401).
"""

import hashlib
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

from minidocker.errors import Conflict, InvalidArgument, KernelError, Unsupported
from minidocker.linux import netlink
from minidocker.network.addresses import choose_subnet, choose_subnet6

DEFAULT_EXEC_ROOT = Path("/run/minidocker")
_SYSCTL = {"ip": Path("/proc/sys/net/ipv4"), "ip6": Path("/proc/sys/net/ipv6")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")


@dataclass(frozen=True, slots=True)
class Names:
    """What one daemon calls its things on the host: the default bridge; the nftables table, which is also the mark."""

    bridge: str
    table: str


def names(exec_root: Path, bridge: str | None = None) -> Names:
    """The names of the daemon with this exec-root: pure, so a daemon finds its things again after a crash.

    bridge  from --bridge; None: `minidocker0`, or with an exec-root of its own `minidock-` and 6 hex of a hash of it
    """
    if bridge is None:
        own = hashlib.sha256(os.fsencode(os.path.abspath(exec_root))).hexdigest()[:6]
        bridge = "minidocker0" if Path(exec_root) == DEFAULT_EXEC_ROOT else f"minidock-{own}"
    return Names(bridge, f"minidocker-{bridge}")


def check_name(bridge: str) -> None:
    """Raise InvalidArgument unless `bridge` can name an interface, and is a plain word wherever it is written."""
    if not _NAME.match(bridge):
        raise InvalidArgument(
            f"invalid bridge name {bridge!r}: at most 15 letters, digits and . _ -; the first a letter or digit"
        )


def sysctl(name: str, value: str, family: str = "ip") -> None:
    """Write a setting below /proc/sys/net/ipv4 (or ipv6) unless it has that value. Raises KernelError (EROFS)."""
    path = _SYSCTL[family] / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise KernelError("write", path, error.errno or 0, f"minidocker needs {name}={value}") from None


def has_ipv6() -> bool:
    """Whether this kernel has IPv6."""
    return (_SYSCTL["ip6"] / "conf/all").is_dir()


def forward_ipv6() -> None:
    """Let the host forward IPv6; interfaces that learn routes from routers go on learning. Raises KernelError."""
    settings = _SYSCTL["ip6"] / "conf"
    if (settings / "all/forwarding").read_text().strip() == "1":
        return
    for interface in settings.iterdir():
        if interface.name != "all" and (interface / "accept_ra").read_text().strip() == "1":
            sysctl(f"conf/{interface.name}/accept_ra", "2", "ip6")
    sysctl("conf/all/forwarding", "1", "ip6")


def trust_no_router(bridge: str) -> None:
    """Take no route from who is in the bridge."""
    if has_ipv6():
        sysctl(f"conf/{bridge}/accept_ra", "0", "ip6")


def subnets_in_use() -> list[IPv4Network]:
    """The networks that the host has an address in or a route to."""
    return own_subnets() + [IPv4Network(route, strict=False) for route in netlink.routes()]


def own_subnets() -> list[IPv4Network]:
    """The networks that the host has an address in."""
    return [IPv4Interface(address).network for _, address in netlink.addresses()]


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge that is there: its index, and its address with the subnet's prefix."""

    index: int
    address: IPv4Interface
    ours: bool


def marked_bridges(mark: str) -> list[str]:
    """The names of the bridges that carry our mark."""
    return [link.name for link in netlink.links() if link.kind == "bridge" and link.alias == mark]


def remove_bridge(name: str) -> None:
    """Remove a bridge of ours with the interfaces in it; one that is gone is fine."""
    link = netlink.link(name)
    if link is None:
        return
    for port in netlink.links():
        if port.master == link.index and port.kind == "veth":
            netlink.delete_link(port.name)
    netlink.delete_link(name)


def ensure_bridge(
    name: str, wanted: IPv4Interface | None, mtu: int, mark: str, avoid: Sequence[IPv4Network] = ()
) -> Bridge:
    """Find or make the bridge, up, with an address.

    wanted  its address and prefix; None: what it has, else the first address of a free default subnet
    avoid   subnets that are not free, although the host does not use them
    Raises  Conflict: another kind of interface has the name, or the bridge has another address.
            Unavailable: no free subnet.
    """
    link = netlink.link(name)
    if link is None:
        return _create(name, wanted, mtu, mark, avoid)
    if link.kind != "bridge":
        raise Conflict(f"interface {name} is no bridge but a {link.kind or 'device'}; choose another with --bridge")
    ours = link.alias == mark
    present = [IPv4Interface(address) for index, address in netlink.addresses() if index == link.index]
    if wanted is not None and present and wanted not in present:
        if not ours or any(port.master == link.index for port in netlink.links()):
            raise Conflict(f"bridge {name} has the address {present[0]}, not {wanted}; remove it or change --bip")
        netlink.delete_link(name)
        return _create(name, wanted, mtu, mark, avoid)
    address = wanted or (present[0] if present else _free_address(avoid))
    if address not in present:
        netlink.add_address(name, str(address))
    return Bridge(link.index, address, ours)


def ensure_address6(
    bridge: str, wanted: IPv6Interface | None, seed: str, avoid: Sequence[IPv6Network] = ()
) -> IPv6Interface:
    """Give a bridge its address of IPv6, and let the host forward it.

    wanted  None: what it has, else the first address of a free /64 of `seed`'s unique local ones
    Raises  Unsupported: no IPv6 here. Conflict: the host uses the subnet already. Unavailable. KernelError.
    """
    if not has_ipv6():
        raise Unsupported("this host has no IPv6 (/proc/sys/net/ipv6 is not there); create the network without --ipv6")
    sysctl(f"conf/{bridge}/disable_ipv6", "0", "ip6")
    index = netlink.link_index(bridge)
    own = [(owner, IPv6Interface(text)) for owner, text in netlink.addresses(socket.AF_INET6)]
    present = [address for owner, address in own if owner == index and not address.is_link_local]
    if wanted is None and present:
        wanted = present[0]
    if not present:
        _settle_link_local(bridge)
    others = [address.network for owner, address in own if owner != index and not address.is_link_local]
    if wanted is None:
        routes = [IPv6Network(route, strict=False) for route in netlink.routes(socket.AF_INET6)]
        subnet = choose_subnet6([*others, *routes, *avoid], seed)
        wanted = IPv6Interface((IPv6Address(int(subnet.network_address) + 1), subnet.prefixlen))
    if wanted not in present:
        if any(wanted.network.overlaps(other) for other in others):
            raise Conflict(f"subnet {wanted.network} overlaps one that this host uses already; choose another")
        netlink.add_address(bridge, str(wanted))
    forward_ipv6()
    return wanted


def _settle_link_local(bridge: str) -> None:
    """Give a bridge its link-local address without the wait for a duplicate (2 s).

    The kernel asks for a container's MAC from it, so until then nothing from outside is forwarded. Nobody else has it.
    """
    sysctl(f"conf/{bridge}/accept_dad", "0", "ip6")
    sysctl(f"conf/{bridge}/disable_ipv6", "1", "ip6")
    sysctl(f"conf/{bridge}/disable_ipv6", "0", "ip6")


def _create(name: str, wanted: IPv4Interface | None, mtu: int, mark: str, avoid: Sequence[IPv4Network]) -> Bridge:
    """Two daemons that start at once may choose the same subnet: the younger bridge makes way.

    A subnet that was asked for may lie within a wider route of the host (10.0.0.0/8 of a company), not around one.
    """
    if wanted is not None:
        around = any(used.subnet_of(wanted.network) for used in subnets_in_use())
        if around or any(wanted.network.overlaps(own) for own in own_subnets()):
            raise Conflict(f"subnet {wanted.network} overlaps one that this host uses already; choose another")
        return Bridge(netlink.create_bridge(name, str(wanted), _mac(), mtu, mark), wanted, True)
    while True:
        address = _free_address(avoid)
        index = netlink.create_bridge(name, str(address), _mac(), mtu, mark)
        rivals = [IPv4Interface(text).network for owner, text in netlink.addresses() if owner < index]
        if not any(address.network.overlaps(rival) for rival in rivals):
            return Bridge(index, address, True)
        netlink.delete_link(name)


def _free_address(avoid: Sequence[IPv4Network]) -> IPv4Interface:
    subnet = choose_subnet([*subnets_in_use(), *avoid])
    return IPv4Interface((IPv4Address(int(subnet.network_address) + 1), subnet.prefixlen))


def _mac() -> str:
    return "02:42:" + os.urandom(4).hex(":")
