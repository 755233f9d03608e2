"""Containers on their networks: interfaces and routes inside, peers and bridges outside, published ports.

Source  rtnetlink(7) (IFLA_LINK, IFLA_LINK_NETNSID, RTM_GETNSID), proc_pid_net(5), veth(4); Docker Engine API.
Rules   - interfaces, routes, peers and bridges are the kernel's word; names and published ports are the daemon's.
        - nothing enters a namespace for it: /proc/PID/net shows that of the process, to anybody who may look.
"""

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from minidocker.client.containers import Container
from minidocker.client.resource import document
from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted
from minidocker.linux import netlink
from minidocker.linux.netlink_socket import attribute, attributes

_GETNSID, _NETNSA_NSID, _NETNSA_PID = 90, 1, 2
_IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINK_NETNSID = 3, 5, 10, 37
_LINK_MESSAGE, _NSID_MESSAGE = bytes(16), bytes(4)  # empty struct ifinfomsg, rtgenmsg
HOST, NOTHING = "the host's own", "loopback only"
ANYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of a routing table. gateway: None, if the destination is reached directly."""

    interface: str
    destination: IPv4Network
    gateway: IPv4Address | None


@dataclass(frozen=True, slots=True)
class Plug:
    """One interface of a container, and where its other end is. peer, bridge: "" if they are not to be found."""

    name: str
    address: IPv4Interface
    peer: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Place:
    """One container as the kernel has it at this moment.

    networks   the daemon's names of the networks: bridge -> name
    published  (address and port of the host, port of the container with its protocol)
    """

    name: str
    pid: int
    is_host: bool
    plugs: tuple[Plug, ...]
    routes: tuple[Route, ...]
    networks: tuple[str, ...]
    published: tuple[tuple[str, str], ...]

    def route_to(self, address: str) -> Route | None:
        """The route that the kernel takes: the one with the longest prefix."""
        return best(self.routes, address)


def best(routes: Iterable[Route], address: str) -> Route | None:
    """The route with the longest prefix that holds the address."""
    fitting = [route for route in routes if IPv4Address(address) in route.destination]
    return max(fitting, key=lambda route: route.destination.prefixlen, default=None)


# ---------------------------------------------------------------- what the kernel says


def routes_of(pid: int | str) -> tuple[Route, ...]:
    """The routes of the network namespace of a process ("self": this one). Raises OSError: it has gone."""
    found = []
    for line in Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]:
        name, target, gateway, flags, _, _, _, mask = line.split()[:8]
        network = IPv4Network(f"{_address(target)}/{_address(mask)}")
        found.append(Route(name, network, _address(gateway) if int(flags, 16) & 2 else None))
    return tuple(found)


def _address(hexadecimal: str) -> IPv4Address:
    return IPv4Address(struct.pack("=I", int(hexadecimal, 16)))


def addresses_of(pid: int | str) -> list[IPv4Address]:
    """The addresses of the network namespace of a process, loopback's left out. Raises OSError."""
    found, last = [], ""
    for line in Path(f"/proc/{pid}/net/fib_trie").read_text().splitlines():
        if line.strip().startswith("|--"):
            last = line.split()[-1]
        elif "/32 host LOCAL" in line and not last.startswith("127."):
            found.append(IPv4Address(last))
    return list(dict.fromkeys(found))


def indices_of(pid: int | str) -> dict[str, int]:
    """The interfaces that are up in the namespace of a process, with their numbers there. Raises OSError."""
    lines = Path(f"/proc/{pid}/net/igmp").read_text().splitlines()[1:]
    return {words[1]: int(words[0]) for words in map(str.split, lines) if words[0].isdecimal()}


def peers() -> dict[tuple[int, int], tuple[str, str]]:
    """(number of a namespace, number of an interface in it) -> its peer in this namespace, and that one's bridge."""
    with netlink.route_socket() as wire:
        links = [(answer, attributes(answer[16:])) for answer in wire.dump(netlink.GETLINK, _LINK_MESSAGE)]
    names = {struct.unpack("=i", answer[4:8])[0]: _text(found[_IFLA_IFNAME]) for answer, found in links}
    return {
        (_number(found[_IFLA_LINK_NETNSID]), _number(found[_IFLA_LINK])): (
            _text(found[_IFLA_IFNAME]),
            names.get(_number(found[_IFLA_MASTER]), "") if _IFLA_MASTER in found else "",
        )
        for _, found in links
        if _IFLA_LINK in found and _IFLA_LINK_NETNSID in found
    }


def namespace_number(pid: int) -> int:
    """The number by which this network namespace knows that of a process; -1: it has never met it."""
    with netlink.route_socket() as wire:
        question = _NSID_MESSAGE + attribute(_NETNSA_PID, struct.pack("=i", pid))
        answer = wire.ask(_GETNSID, question, f"process {pid}")
    return _number(attributes(answer[4:])[_NETNSA_NSID])


def _number(value: bytes) -> int:
    return int(struct.unpack("=i", value)[0])


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


# ---------------------------------------------------------------- containers


def look(container: Container) -> Place:
    """A running container. Raises ValueError: it does not run."""
    container.reload()
    settings, state = document(container.attrs["NetworkSettings"]), document(container.attrs["State"])
    name, pid = str(container.attrs["Name"]).lstrip("/"), state.get("Pid")
    if not isinstance(pid, int) or not pid:
        raise ValueError(f"container {name} does not run, so it has no network")
    mine = os.stat("/proc/self/ns/net").st_ino == os.stat(f"/proc/{pid}/ns/net").st_ino
    networks, ports = document(settings["Networks"] or {}), document(settings["Ports"] or {})
    published = [
        (f"{bound['HostIp']}:{bound['HostPort']}", inside)
        for inside, bindings in ports.items()
        for bound in bindings or ()  # type: ignore[attr-defined]
    ]
    plugs = () if mine else _plugs(pid)
    return Place(name, pid, mine, plugs, routes_of(pid), tuple(networks), tuple(published))


def _plugs(pid: int) -> tuple[Plug, ...]:
    found, known, number = [], peers(), namespace_number(pid)
    directly = [route for route in routes_of(pid) if route.gateway is None and route.destination != ANYWHERE]
    indices = indices_of(pid)
    for address in addresses_of(pid):
        route = best(directly, str(address))
        if route is not None:
            peer, bridge = known.get((number, indices.get(route.interface, -1)), ("", ""))
            interface = IPv4Interface(f"{address}/{route.destination.prefixlen}")
            found.append(Plug(route.interface, interface, peer, bridge))
    return tuple(sorted(found, key=lambda plug: plug.name))


def bridge_addresses() -> dict[str, IPv4Interface]:
    """The bridges of this namespace that have an address, with it."""
    names = {link.index: link.name for link in netlink.links() if link.kind == "bridge"}
    return {names[index]: IPv4Interface(text) for index, text in netlink.addresses() if index in names}


def network_map(containers: Iterable[Container], title: str = "") -> Picture:
    """Each container's interfaces, their peers in bridges, the host behind them, and the ports that lead in.

    Raises  ValueError: none is given, or one does not run.
    """
    places = [look(container) for container in containers]
    if not places:
        raise ValueError("no container is given: there is no network to draw")
    bridges = bridge_addresses()
    used = dict.fromkeys(plug.bridge for place in places for plug in place.plugs if plug.bridge)
    lines = ['ranksep="0.6"', f'host [label={quoted("the host", *_out())} fillcolor="{OWN}" shape="box3d"]']
    for place in places:
        lines += _drawn(place)
    for bridge in used:
        words = [f"bridge {bridge}", *([f"{bridges[bridge]}"] if bridge in bridges else ["no address"])]
        lines.append(f'{quoted("bridge " + bridge)} [label={quoted(*words)} fillcolor="{SHARED}"]')
        lines.append(f'{quoted("bridge " + bridge)} -> host [dir="both" label="routes, rules"]')
    rows = tuple(row for place in places for row in _rows(place))
    led = sum(len(place.published) for place in places)
    alt = f"{title or 'networks'}: {count(len(places), 'container')} on {count(len(used), 'bridge')}; "
    alt += "; ".join(f"{place.name} has {_where(place)}" for place in places)
    alt += f"; {count(led, 'published port')}" if led else "; no published port"
    columns = ("container", "interface", "address", "default route", "peer on the host", "bridge", "published")
    return Picture("\n".join(lines), alt, columns, rows)


def _out() -> list[str]:
    default = next((route for route in routes_of("self") if route.destination == ANYWHERE), None)
    return [f"way out: {default.interface}"] if default else ["no way out"]


def _default(place: Place) -> str:
    route = next((route for route in place.routes if route.destination == ANYWHERE), None)
    return "none" if route is None else f"via {route.gateway} on {route.interface}"


def _where(place: Place) -> str:
    if place.is_host:
        return f"{HOST} interfaces"
    return " and ".join(f"{plug.address.ip} on {plug.bridge or plug.name}" for plug in place.plugs) or NOTHING


def _drawn(place: Place) -> list[str]:
    words = [place.name, *(f"{plug.name}  {plug.address}" for plug in place.plugs)]
    words += [f"{HOST} interfaces"] if place.is_host else [NOTHING] * (not place.plugs)
    words += [] if place.is_host else [f"default route: {_default(place)}"]
    me = quoted("container " + place.name)
    lines = [f"{me} [label={quoted(*words)}]"]
    lines += [f'{me} -> host [dir="both" label="the same namespace" style="dotted"]'] if place.is_host else []
    for plug in place.plugs:
        if plug.bridge:
            label = quoted(f"{plug.name}, a pair with", plug.peer)
            lines.append(f'{me} -> {quoted("bridge " + plug.bridge)} [dir="none" label={label}]')
    for outside, inside in place.published:
        label = quoted(f"published: {outside}", f"leads to {inside}")
        lines.append(f'{me} -> host [dir="back" style="dashed" constraint="false" label={label}]')
    return lines


def _rows(place: Place) -> list[tuple[str, ...]]:
    led = ", ".join(f"{outside} to {inside}" for outside, inside in place.published) or "-"
    if not place.plugs:
        return [(place.name, HOST if place.is_host else NOTHING, "-", _default(place), "-", "-", led)]
    return [
        (place.name, plug.name, str(plug.address), _default(place), plug.peer or "-", plug.bridge or "-", led)
        for plug in place.plugs
    ]


def firewall_sets(items: Iterable[Mapping[str, object]]) -> dict[str, list[str]]:
    """The sets and maps of a table, as `Nftables.list("table ip NAME")` gives them: name -> elements in words."""
    found: dict[str, list[str]] = {}
    for item in items:
        for kind in ("set", "map"):
            if isinstance(about := item.get(kind), Mapping):
                elements = about.get("elem") or ()
                assert isinstance(elements, list | tuple)
                found[str(about["name"])] = sorted(_element(element) for element in elements)
    return found


def _element(value: object) -> str:
    if isinstance(value, list | tuple):
        return " leads to ".join(_element(part) for part in value)
    if isinstance(value, Mapping):
        if "concat" in value:
            return " . ".join(_element(part) for part in value["concat"])
        if "prefix" in value:
            return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)
