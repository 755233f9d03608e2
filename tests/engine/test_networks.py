"""The built-in networks, on an engine that is only as much as they look at."""

from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from minidocker.engine.engine import Engine
from minidocker.engine.networks import Networks
from minidocker.errors import Forbidden, InvalidArgument, NotFound, Unsupported
from minidocker.network.bridge import BridgeConfig
from minidocker.network.endpoint import Endpoint

ENDPOINT = Endpoint(
    id="e" * 64, network="bridge", container_id="c" * 64, interface="eth0", host_interface="vetheeeeeee",
    address="10.1.0.2", prefix=24, gateway="10.1.0.1", mac="02:42:0a:01:00:02",
)  # fmt: skip


def container(name: str, mode: str, *, running: bool = True, endpoint: Endpoint | None = None) -> Any:
    record = SimpleNamespace(
        name=name,
        config=SimpleNamespace(network_disabled=False),
        host=SimpleNamespace(network_mode=mode),
        endpoint=endpoint,
    )
    return SimpleNamespace(id=name * 4, record=record, state=SimpleNamespace(running=running))


def networks(*containers: Any, identity: str = "one", bridge: bool = True) -> Networks:
    network = SimpleNamespace(
        subnet=IPv4Network("10.1.0.0/24"),
        gateway=IPv4Address("10.1.0.1"),
        config=BridgeConfig("bridge", "mini9", mtu=1400),
    )
    engine = SimpleNamespace(
        network=network if bridge else None,
        settings=SimpleNamespace(identity=identity, data_root="/nowhere"),
        containers=SimpleNamespace(all=lambda: containers, get=lambda name: name),
    )
    return Networks(cast(Engine, engine))


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


def test_an_inspect_shows_who_is_attached_and_a_list_does_not() -> None:
    one = networks(container("web", "default", endpoint=ENDPOINT), container("off", "bridge", running=False),
                   container("all", "host"))  # fmt: skip
    bridge = one.document(one.get("bridge"), containers=True)
    assert bridge["Containers"] == {
        "webwebwebweb": {
            "Name": "web", "EndpointID": "e" * 64, "MacAddress": "02:42:0a:01:00:02",
            "IPv4Address": "10.1.0.2/24", "IPv6Address": "",
        }
    }  # fmt: skip
    assert bridge["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"}]
    assert bridge["Options"]["com.docker.network.bridge.name"] == "mini9"
    assert bridge["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert one.document(one.get("bridge"), containers=False)["Containers"] == {}
    assert list(one.document(one.get("host"), containers=True)["Containers"]) == ["allallallall"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["bridge", "host", "none"]),
        ({"driver": ["bridge", "null"]}, ["bridge", "none"]),
        ({"name": ["o"]}, ["host", "none"]),
        ({"type": ["custom"]}, []),
        ({"type": ["builtin"], "name": ["host"]}, ["host"]),
        ({"label": ["a=b"]}, []),
        ({"dangling": ["true"]}, []),
    ],
)
def test_filters_choose(filters: dict[str, list[str]], names: list[str]) -> None:
    assert [network.name for network in networks().select(filters)] == names


def test_what_cannot_be_done_is_refused_with_the_reason() -> None:
    one = networks()
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        one.select({"colour": ["red"]})
    with pytest.raises(Forbidden, match="host is a pre-defined network and cannot be removed"):
        one.remove("host")
    with pytest.raises(Forbidden, match="predefined bridge network"):
        one.create("bridge")
    with pytest.raises(Unsupported, match="user-defined networks"):
        one.create("mine")
    with pytest.raises(NotFound):
        one.connect("missing", "web")


def test_without_a_bridge_there_is_no_network_of_that_name() -> None:
    assert [network.name for network in networks(bridge=False).select({})] == ["host", "none"]
