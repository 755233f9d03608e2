"""The networks of an engine that is only as much as they look at; bridges are not touched here."""

import asyncio
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from minidocker.engine.containers.config import EndpointRequest
from minidocker.engine.engine import Engine
from minidocker.engine.networks import network_views
from minidocker.engine.networks.network import Network
from minidocker.engine.networks.network_request import CreateBody
from minidocker.engine.networks.networks import Networks
from minidocker.errors import Conflict, Forbidden, InvalidArgument, NotFound
from minidocker.network.bridge import BridgeConfig, BridgeNetwork
from minidocker.network.endpoint import Endpoint

ENDPOINT = Endpoint(
    id="e" * 64, network="bridge", container_id="c" * 64, interface="eth0", host_interface="vetheeeeeee",
    address="10.1.0.2", prefix=24, gateway="10.1.0.1", mac="02:42:0a:01:00:02",
)  # fmt: skip
BRIDGE = cast(BridgeNetwork, SimpleNamespace(
    subnet=IPv4Network("10.1.0.0/24"), gateway=IPv4Address("10.1.0.1"),
    config=BridgeConfig("bridge", "mini9", mtu=1400), firewall=None, ports=None, in_use=lambda: False,
))  # fmt: skip


def test_an_id_means_more_than_a_name_and_a_name_more_than_the_beginning_of_an_id() -> None:
    known = networks()
    a, b, c = "a" * 64, "b" * 64, "c" * 64
    for name, id in (("first", a), (a[:12], b), (a, c)):
        known._networks[name] = Network(name=name, id=id, driver="bridge", created="")
    assert [known.get(text).id for text in (a, a[:12], "first", a[:11])] == [a, b, a, a]


def container(name: str, network: str, *, running: bool = True, endpoint: Endpoint | None = None) -> Any:
    record = SimpleNamespace(
        name=name, networks={network: EndpointRequest()}, attached={network: endpoint} if endpoint else {}
    )
    return SimpleNamespace(id=name * 4, record=record, state=SimpleNamespace(running=running))


def networks(*containers: Any, identity: str = "one", bridge: bool = True) -> Networks:
    engine = SimpleNamespace(
        network=BRIDGE if bridge else None,
        settings=SimpleNamespace(identity=identity, data_root="/nowhere", exec_root=Path("/nowhere")),
        containers=SimpleNamespace(all=lambda: containers, get=lambda name: name),
    )
    return Networks(cast(Engine, engine), Path("/nowhere/networks"))


def with_one(*containers: Any) -> Networks:
    one = networks(*containers)
    mine = Network("mine", "f" * 64, "bridge", "2024-01-01T00:00:00Z", labels={"tier": "front"}, address="10.7.0.1/24")
    one._networks["mine"] = mine
    return one


def test_ids_are_the_same_after_a_restart_and_differ_between_daemons() -> None:
    assert networks().id_of("bridge") == networks().id_of("bridge") != networks(identity="two").id_of("bridge")
    assert len({networks().id_of(name) for name in ("bridge", "host", "none")}) == 3
    assert networks().id_of("missing") == ""


def test_a_network_is_found_by_name_id_and_the_beginning_of_an_id() -> None:
    one = networks()
    for text in ("host", one.id_of("host"), one.id_of("host")[:12]):
        assert one.get(text).name == "host"
    for text in ("missing", ""):
        with pytest.raises(NotFound, match="not found"):
            one.get(text)


def test_the_default_network_shows_the_daemons_flags_and_who_is_attached() -> None:
    one = networks(container("web", "bridge", endpoint=ENDPOINT), container("off", "bridge", running=False),
                   container("all", "host"))  # fmt: skip
    bridge = network_views.document(one.get("bridge"), BRIDGE, one.members(one.get("bridge")))
    assert bridge["Containers"] == {
        "webwebwebweb": {
            "Name": "web", "EndpointID": "e" * 64, "MacAddress": "02:42:0a:01:00:02",
            "IPv4Address": "10.1.0.2/24", "IPv6Address": "",
        }
    }  # fmt: skip
    assert bridge["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"}]
    assert bridge["Options"]["com.docker.network.bridge.name"] == "mini9"
    assert bridge["Options"]["com.docker.network.driver.mtu"] == "1400"
    host = network_views.document(one.get("host"), None, one.members(one.get("host")))
    assert list(host["Containers"]) == ["allallallall"]
    assert len(host["Containers"]["allallallall"]["EndpointID"]) == 64


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["bridge", "host", "none", "mine"]),
        ({"driver": ["bridge", "null"]}, ["bridge", "none", "mine"]),
        ({"name": ["o"]}, ["host", "none"]),
        ({"name": ["^mi"]}, ["mine"]),
        ({"type": ["custom"]}, ["mine"]),
        ({"type": ["builtin"], "name": ["host"]}, ["host"]),
        ({"label": ["tier=front"]}, ["mine"]),
        ({"label": ["tier", "missing"]}, []),
        ({"id": ["ffff"]}, ["mine"]),
        ({"scope": ["swarm"]}, []),
        ({"dangling": ["true"]}, ["mine"]),
        ({"dangling": ["0"]}, ["bridge", "host", "none"]),
    ],
)
def test_filters_choose(filters: dict[str, list[str]], names: list[str]) -> None:
    assert [network.name for network in with_one().select(filters)] == names


def test_a_network_that_somebody_is_in_does_not_dangle() -> None:
    assert with_one(container("web", "mine")).select({"dangling": ["true"]}) == []


@pytest.mark.parametrize(("name", "value"), [("colour", "red"), ("type", "red"), ("dangling", "red")])
def test_unknown_filters_and_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        networks().select({name: [value]})


def test_what_cannot_be_done_is_refused_with_the_reason() -> None:
    one = with_one()
    with pytest.raises(Forbidden, match="host is a pre-defined network and cannot be removed"):
        asyncio.run(one.remove("host"))
    with pytest.raises(NotFound):
        asyncio.run(one.remove("missing"))
    with pytest.raises(Forbidden, match="predefined bridge network"):
        asyncio.run(one.create(CreateBody("bridge")))
    with pytest.raises(Conflict, match="network with name mine already exists"):
        asyncio.run(one.create(CreateBody("mine")))


@pytest.mark.parametrize("subnet", ["10.7.0.0/16", "10.7.0.128/25", "10.1.0.0/24"])
def test_a_subnet_that_overlaps_another_networks_is_refused(subnet: str) -> None:
    from minidocker.engine.networks.network import Pool
    from minidocker.engine.networks.network_request import IPAM

    body = CreateBody("other", ipam=IPAM(config=[Pool(subnet)]))
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        asyncio.run(with_one().create(body))


def test_a_network_with_endpoints_stays() -> None:
    one = with_one()
    one._bridges["mine"] = cast(BridgeNetwork, SimpleNamespace(in_use=lambda: True))
    with pytest.raises(Forbidden, match=f"network mine id {'f' * 64} has active endpoints"):
        asyncio.run(one.remove("mine"))


def test_without_a_bridge_there_is_no_network_of_that_name() -> None:
    assert [network.name for network in networks(bridge=False).select({})] == ["host", "none"]
