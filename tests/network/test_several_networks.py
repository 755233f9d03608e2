"""Several bridge networks on one firewall: ports that move, neighbours that must not talk, wider routes."""

import subprocess
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minidocker.errors import Conflict
from minidocker.linux import netlink
from minidocker.network import host
from minidocker.network.bridge import BridgeConfig, BridgeNetwork
from minidocker.network.ports import PortBinding

if TYPE_CHECKING:
    from conftest import Machine, Stage
else:
    Machine = Stage = Any

WEB = [PortBinding(80, "tcp", "0.0.0.0", (8080, 8080))]


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def beside(first: BridgeNetwork, name: str, address: str, **more: Any) -> BridgeNetwork:
    """One more network of the same daemon."""
    config = BridgeConfig(name, f"br-{name}", IPv4Interface(address), **more)
    made = BridgeNetwork(config, first.firewall, first.ports)
    made.ensure()
    return made


def held(network: BridgeNetwork) -> list[str]:
    """The endpoints for which ports of the host are held (processes of the stage have copies of the sockets)."""
    return list(network.ports._held)


def address_of(machine: Machine) -> str:
    assert machine.endpoint is not None
    return str(machine.endpoint.address)


def test_ports_move_to_another_network_and_stay_held(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    second = beside(first, "second", "10.21.0.1/24")
    web = stage.container(first, "web", WEB)
    neighbour = stage.neighbour()
    assert neighbour.ask("tcp", "203.0.113.1", 8080).startswith("web saw")
    assert web.endpoint is not None
    other = second.allocate("web", interface="eth1")
    second.attach(other, web.pid)
    web.run(lambda: netlink.configure_interfaces({"interfaces": [other.interface_plan(leads=False)]}))
    web.run(lambda: netlink.replace_default_route("eth1", "10.21.0.1"))
    moved = second.take_over_ports(other, first, web.endpoint)
    assert (moved, first.published(web.endpoint), second.published(other)) == (moved, [], moved) and moved
    first.detach(web.endpoint)
    assert neighbour.ask("tcp", "203.0.113.1", 8080).startswith("web saw")
    assert held(first) == [other.id]
    second.release(other)
    assert held(first) == []
    assert not neighbour.ask("tcp", "203.0.113.1", 8080).startswith("web saw")


def test_an_internal_network_takes_no_ports_over(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    closed = beside(first, "closed", "10.21.0.1/24", internal=True)
    web = stage.container(first, "web", WEB)
    assert web.endpoint is not None
    other = closed.allocate("web", interface="eth1")
    assert closed.take_over_ports(other, first, web.endpoint) == []
    assert (first.published(web.endpoint), held(first)) == ([], [])


def test_without_icc_neighbours_are_silent_even_where_bridged_frames_pass_no_rules(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    quiet = beside(first, "quiet", "10.21.0.1/24", icc=False)
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if setting.exists():
        setting.write_text("0")
    one, two = stage.container(quiet, "one"), stage.container(quiet, "two", WEB)
    assert one.ask("tcp", address_of(two), 80) in ("silent", "unreachable")
    assert one.ask("tcp", "10.21.0.1", 8080).startswith("two saw")  # what is published is for all
    loud = stage.container(first, "loud"), stage.container(first, "heard")
    assert loud[0].ask("tcp", address_of(loud[1]), 80).startswith("heard saw")


def test_without_masquerade_a_container_is_seen_with_its_own_address(stage: Stage) -> None:
    neighbour = stage.neighbour()
    neighbour.serve()
    first = stage.network()
    config = replace(first.config, name="bare", bridge="br-bare", masquerade=False)
    bare = BridgeNetwork(config, first.firewall, first.ports)
    bare.ensure()
    box = stage.container(bare, "box")
    assert box.endpoint is not None
    assert box.ask("tcp", "203.0.113.2", 80) == f"neighbour saw {box.endpoint.address}"


def test_a_default_route_is_replaced_whichever_interface_it_went_over(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    second = beside(first, "second", "10.21.0.1/24")
    web = stage.container(first, "web")
    other = second.allocate("web", interface="eth1")
    second.attach(other, web.pid)
    web.run(lambda: netlink.configure_interfaces({"interfaces": [other.interface_plan(leads=False)]}))
    for interface, gateway in (("eth1", "10.21.0.1"), ("eth0", "10.20.0.1"), ("eth0", "10.20.0.1")):
        web.run(lambda interface=interface, gateway=gateway: netlink.replace_default_route(interface, gateway))
        shown = web.run(lambda: run("ip", "route", "show", "default"))
        assert shown.split()[:5] == ["default", "via", gateway, "dev", interface]
        assert len(shown.splitlines()) == 1


def test_a_container_that_starts_again_at_once_has_its_address_again(stage: Stage) -> None:
    network = stage.network("10.20.0.1/24")
    web = stage.container(network, "web")
    assert web.endpoint is not None
    network.release(web.endpoint)  # its namespace, and so its pair, is still there
    assert network.allocate("other").address == "10.20.0.3"
    assert network.allocate("web").address == "10.20.0.2"


def test_a_subnet_may_lie_within_a_wider_route_but_neither_around_one_nor_on_an_address(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    stage.neighbour(host="203.0.113.1/24")
    run("ip", "route", "add", "10.64.0.0/10", "via", "203.0.113.2")
    inner = beside(first, "inner", "10.70.0.1/24")
    assert inner.subnet == IPv4Network("10.70.0.0/24")
    for address in ("10.0.0.1/8", "203.0.113.129/25"):
        with pytest.raises(Conflict, match="overlaps"):
            beside(first, "around", address)
    assert netlink.link("br-around") is None


def test_subnets_to_avoid_are_not_chosen(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    config = BridgeConfig("free", "br-free", avoid=(IPv4Network("172.17.0.0/16"), IPv4Network("172.18.0.0/15")))
    free = BridgeNetwork(config, first.firewall, first.ports)
    free.ensure()
    assert free.subnet == IPv4Network("172.20.0.0/16")
    again = BridgeNetwork(replace(config, bridge="br-again"), first.firewall, first.ports)
    again.ensure()
    assert again.subnet == IPv4Network("172.21.0.0/16")


def test_marked_bridges_are_found_and_removed_with_what_is_in_them(stage: Stage) -> None:
    first = stage.network("10.20.0.1/24")
    second = beside(first, "second", "10.21.0.1/24")
    stage.container(second, "web")
    run("ip", "link", "add", "foreign", "type", "bridge")
    assert set(host.marked_bridges(first.firewall.name)) == {first.config.bridge, "br-second"}
    host.remove_bridge("br-second")
    host.remove_bridge("br-second")
    assert host.marked_bridges(first.firewall.name) == [first.config.bridge]
    assert [link.name for link in netlink.links() if link.kind == "veth"] == []
    assert netlink.link("foreign") is not None
