"""The way of a packet from one container to another, hop by hop: whether it gets through, and where it ends if not.

Source  ip-route(8), bridge(8), nft(8); network.rules for what the engine's firewall lets through.
Rules   - pure: decided from what `diagrams.networks.look` has read. Whoever asks compares it with a real ping.
        - the first hop that stops the packet is the last one that is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from minidocker.lab.diagrams.networks import ANYWHERE, Place, Plug, Route

DEFAULT = "bridge"
GOES_ON, ARRIVES, STOPS = "goes on", "ARRIVES", "STOPS HERE"


@dataclass(frozen=True, slots=True)
class Hop:
    """One step: where it is, what happens there, and one of GOES_ON, ARRIVES, STOPS."""

    where: str
    what: str
    outcome: str = GOES_ON


@dataclass(frozen=True, slots=True)
class World:
    """What is there. bridges: name -> the host's address on it. out: the host's default route, if it has one."""

    places: Sequence[Place]
    bridges: Mapping[str, IPv4Interface]
    out: Route | None = None

    def owner(self, address: str) -> Place | None:
        """The container that has the address."""
        wanted = IPv4Address(address)
        return next((one for one in self.places if any(plug.address.ip == wanted for plug in one.plugs)), None)

    def bridge_of(self, address: str) -> str:
        """The bridge in whose subnet the address is, or ""."""
        return next((name for name, own in self.bridges.items() if IPv4Address(address) in own.network), "")

    def is_host(self, address: str) -> bool:
        """Whether a bridge of the host has the address."""
        return any(own.ip == IPv4Address(address) for own in self.bridges.values())


def shared(one: Place, other: Place) -> list[str]:
    """The networks with names that both are on: the network `bridge` has no names."""
    return [name for name in one.networks if name in other.networks and name not in (DEFAULT, "host", "none")]


def follow(source: Place, target: str, world: World) -> list[Hop]:
    """The hops of a packet from the container to an address."""
    if any(plug.address.ip == IPv4Address(target) for plug in source.plugs):
        return [Hop(source.name, f"{target} is its own address: its loopback takes it", ARRIVES)]
    route = source.route_to(target)
    if route is None:
        nothing = "it has no interface but loopback" if not source.plugs else "no line of its routes has this address"
        return [Hop(source.name, f"{nothing}: Network is unreachable", STOPS)]
    on = f"on {route.interface}"
    line = f"{on}, no gateway needed" if route.gateway is None else f"{on}, to the gateway {route.gateway}"
    first = Hop(source.name, f"its routes: {target} lies in {_shown(route)}, {line}")
    if source.is_host:
        return [first, *_host(target, world, "")]
    plug = next((plug for plug in source.plugs if plug.name == route.interface), None)
    if plug is None or not plug.bridge:
        return [first, Hop(route.interface, "its other end is in no bridge of this host", STOPS)]
    pair = Hop(
        f"{plug.name} and {plug.peer}", f"the pair: what goes in at one end comes out at the other, in {plug.bridge}"
    )
    rest = _host(target, world, plug.bridge) if route.gateway else _bridge(target, world, plug)
    return [first, pair, *rest]


def _shown(route: Route) -> str:
    return "0.0.0.0/0 (default)" if route.destination == ANYWHERE else str(route.destination)


def _bridge(target: str, world: World, plug: Plug) -> list[Hop]:
    where = f"bridge {plug.bridge}"
    if world.is_host(target):
        return [Hop(where, f"{target} is the bridge's own address: this is the host", ARRIVES)]
    owner = world.owner(target)
    if owner is None:
        return [Hop(where, f"who has {target}? Nobody answers", STOPS)]
    peer = next(one.peer for one in owner.plugs if one.address.ip == IPv4Address(target))
    return [Hop(where, f"who has {target}? The one behind {peer}"), Hop(owner.name, "it has the address", ARRIVES)]


def _host(target: str, world: World, came_from: str) -> list[Hop]:
    """What the host does with a packet that came to it as a gateway, or from a process of its own."""
    if world.is_host(target):
        return [Hop("the host", f"{target} is an address of its own", ARRIVES)]
    bridge = world.bridge_of(target)
    if not bridge:
        if world.out is None:
            return [Hop("the host", "it has no route to there itself", STOPS)]
        words = f"forwards it on {world.out.interface}" + (
            ", with its own address as the sender (NAT)" if came_from else ""
        )
        return [Hop("the host", words), Hop("outside", "this machine does not know what happens there")]
    if came_from and came_from != bridge:
        rule = f"its rules: what was not asked for from {bridge} does not go in there from {came_from}"
        return [Hop("the host", rule, STOPS)]
    owner = world.owner(target)
    words = f"its own interface {bridge} leads to {target}"
    if owner is None:
        return [Hop("the host", f"{words}, where nobody answers", STOPS)]
    return [Hop("the host", words), Hop(owner.name, "it has the address", ARRIVES)]
