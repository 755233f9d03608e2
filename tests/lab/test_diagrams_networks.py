"""The map of networks says what the kernel and the daemon say: pairs, bridges, addresses, routes, published ports."""

import os
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.client.container_body import ContainerOptions, PortTarget
from minidocker.client.containers import Container
from minidocker.lab.diagrams.networks import (
    ANYWHERE,
    Route,
    best,
    firewall_sets,
    look,
    network_map,
    routes_of,
)
from minidocker.linux import netlink
from minidocker.network import host
from minidocker.network.nftables import Nftables


def settings(container: Container) -> dict[str, Any]:
    """What the daemon says of its networks."""
    container.reload()
    found = container.attrs["NetworkSettings"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, Container]]:
    """Two networks: web and shop on the first, db on both; a container in the host's network, one in none."""
    client, tag = connect(), uuid.uuid4().hex[:8]
    front, back = (client.networks.create(f"test-{name}-{tag}") for name in ("front", "back"))
    made: dict[str, Container] = {}
    plans = {"web": front.name, "shop": front.name, "db": back.name, "host": "host", "none": "none"}
    try:
        for name, network in plans.items():
            ports: dict[str, PortTarget] = {"80/tcp": ("127.0.0.1", 0)} if name == "web" else {}
            options: ContainerOptions = {"network": network, "ports": ports, "name": f"{name}-{tag}"}
            made[name] = client.containers.run("busybox", ["sleep", "600"], detach=True, **options)
        front.connect(made["db"])
        yield made
    finally:
        for container in made.values():
            container.remove(force=True)
        front.remove()
        back.remove()


@pytest.mark.needs_daemon
def test_each_plug_has_the_address_that_the_daemon_gave_and_a_peer_in_its_bridge(world: dict[str, Container]) -> None:
    for name in ("web", "shop", "db"):
        place = look(world[name])
        given = settings(world[name])["Networks"]
        assert {str(plug.address) for plug in place.plugs} == {
            f"{one['IPAddress']}/{one['IPPrefixLen']}" for one in given.values()
        }
        for plug in place.plugs:
            assert os.readlink(f"/sys/class/net/{plug.peer}/master").endswith(f"/{plug.bridge}")
            inside = world[name].exec_run(["cat", f"/sys/class/net/{plug.name}/iflink"]).output
            assert int(inside) == netlink.link_index(plug.peer)
    assert len(look(world["db"]).plugs) == 2
    assert look(world["web"]).plugs[0].bridge == look(world["shop"]).plugs[0].bridge


@pytest.mark.needs_daemon
def test_the_map_has_every_container_bridge_route_and_published_port(world: dict[str, Container]) -> None:
    picture = network_map(world.values(), "the test")
    names = {name: str(container.attrs["Name"]).lstrip("/") for name, container in world.items()}
    rows = {(row[0], row[1]): row[2:] for row in picture.rows}
    assert len(rows) == 6  # db has two interfaces
    web = rows[names["web"], "eth0"]
    bound = settings(world["web"])["Ports"]["80/tcp"][0]
    assert web[4] == f"127.0.0.1:{bound['HostPort']} to 80/tcp" and f"127.0.0.1:{bound['HostPort']}" in picture.dot
    assert web[1].startswith("via ") and rows[names["none"], "loopback only"][1] == "none"
    assert (names["host"], "the host's own") in rows
    assert picture.alt.startswith("the test: 5 containers on 2 bridges;") and picture.alt.endswith("1 published port")
    for place in (look(world["web"]), look(world["db"])):
        assert all(plug.bridge in picture.dot and plug.peer in picture.dot for plug in place.plugs)


@pytest.mark.needs_daemon
def test_the_firewalls_sets_name_the_published_port_and_who_may_talk(world: dict[str, Container]) -> None:
    sets = firewall_sets(Nftables().list(f"table ip {host.names(Path('/run/minidocker')).table}"))
    place = look(world["web"])
    port = place.published[0][0].rpartition(":")[2]
    address, bridge = place.plugs[0].address.ip, place.plugs[0].bridge
    assert f"tcp . 127.0.0.1 . {port} leads to {address} . 80" in sets["published_at"]
    assert f"{bridge} . {bridge}" in sets["within"]


@pytest.mark.needs_daemon
def test_a_container_that_does_not_run_has_no_place() -> None:
    container = connect().containers.create("busybox", ["true"])
    try:
        with pytest.raises(ValueError, match="does not run"):
            look(container)
    finally:
        container.remove()
    with pytest.raises(ValueError, match="no container"):
        network_map([])


def test_this_machines_routes_are_those_of_netlink() -> None:
    found = {str(route.destination) for route in routes_of("self") if route.destination != ANYWHERE}
    assert found <= set(netlink.routes())


def test_the_longest_prefix_wins() -> None:
    routes = [Route("eth0", ANYWHERE, IPv4Address("10.0.0.1")), Route("eth1", IPv4Network("10.1.0.0/16"), None)]
    assert best(routes, "10.1.2.3") is routes[1] and best(routes, "10.2.2.3") is routes[0]
    assert best(routes[1:], "10.2.2.3") is None
