"""Where a packet stops is told by the facts alone: each wall of the engine's networks has a case."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from minidocker.lab.diagrams.networks import ANYWHERE, Place, Plug, Route
from minidocker.lab.props.paths import ARRIVES, GOES_ON, STOPS, World, follow, shared

BRIDGES = {"br-a": IPv4Interface("10.1.0.1/24"), "br-b": IPv4Interface("10.2.0.1/24")}
OUT = Route("uplink", ANYWHERE, IPv4Address("192.0.2.1"))


def place(name: str, *addresses: str, gateway: str = "", networks: tuple[str, ...] = ()) -> Place:
    plugs, routes = [], []
    for number, text in enumerate(addresses):
        address = IPv4Interface(text)
        bridge = next((bridge for bridge, own in BRIDGES.items() if own.network == address.network), "")
        plugs.append(Plug(f"eth{number}", address, f"veth-{name}{number}", bridge))
        routes.append(Route(f"eth{number}", IPv4Network(address.network), None))
    if gateway:
        routes.append(Route("eth0", ANYWHERE, IPv4Address(gateway)))
    return Place(name, 1, False, tuple(plugs), tuple(routes), networks, ())


WEB = place("web", "10.1.0.2/24", gateway="10.1.0.1", networks=("front",))
SHOP = place("shop", "10.1.0.3/24", "10.2.0.3/24", gateway="10.1.0.1", networks=("front", "back"))
DB = place("db", "10.2.0.2/24", gateway="10.2.0.1", networks=("back",))
INNER = place("inner", "10.1.0.4/24")
NONE = place("none")
HOST = Place("host", 1, True, (), (Route("br-a", IPv4Network("10.1.0.0/24"), None), OUT), ("host",), ())
WORLD = World([WEB, SHOP, DB, INNER, NONE, HOST], BRIDGES, OUT)


def end(source: Place, target: str, world: World = WORLD) -> tuple[str, str]:
    hops = follow(source, target, world)
    assert all(hop.outcome == GOES_ON for hop in hops[:-1])
    return hops[-1].where, hops[-1].outcome


def test_on_one_network_the_bridge_carries_it() -> None:
    assert end(WEB, "10.1.0.3") == ("shop", ARRIVES)
    assert end(SHOP, "10.2.0.2") == ("db", ARRIVES)  # by its second interface


def test_between_networks_the_hosts_rules_stop_it() -> None:
    assert end(WEB, "10.2.0.2") == ("the host", STOPS)
    assert "br-b" in follow(WEB, "10.2.0.2", WORLD)[-1].what


def test_without_a_route_it_never_leaves() -> None:
    assert end(NONE, "10.1.0.2") == ("none", STOPS)
    assert end(INNER, "10.2.0.2") == ("inner", STOPS)  # an internal network: neighbours only
    assert end(INNER, "10.1.0.2") == ("web", ARRIVES)


def test_an_address_of_nobody_is_asked_for_in_vain() -> None:
    assert end(WEB, "10.1.0.99") == ("bridge br-a", STOPS)
    assert end(HOST, "10.1.0.99") == ("the host", STOPS)


def test_the_host_is_reached_by_its_address_on_any_bridge() -> None:
    assert end(WEB, "10.1.0.1") == ("bridge br-a", ARRIVES)
    assert end(WEB, "10.2.0.1") == ("the host", ARRIVES)
    assert end(HOST, "10.1.0.2") == ("web", ARRIVES)


def test_outside_goes_with_the_hosts_address_if_the_host_has_a_way() -> None:
    assert end(WEB, "203.0.113.1") == ("outside", GOES_ON)
    assert any("NAT" in hop.what for hop in follow(WEB, "203.0.113.1", WORLD))
    assert not any("NAT" in hop.what for hop in follow(HOST, "203.0.113.1", WORLD))
    assert end(WEB, "203.0.113.1", World(WORLD.places, BRIDGES, None)) == ("the host", STOPS)


def test_its_own_address_is_reached_by_loopback_and_a_plug_in_no_bridge_leads_nowhere() -> None:
    assert end(WEB, "10.1.0.2") == ("web", ARRIVES)
    loose = place("loose", "10.7.0.2/24")
    assert end(loose, "10.7.0.3") == ("eth0", STOPS)


def test_names_are_known_on_shared_networks_other_than_the_default_one() -> None:
    assert shared(WEB, SHOP) == ["front"] and shared(WEB, DB) == []
    plain = place("plain", networks=("bridge",))
    assert shared(plain, plain) == []
