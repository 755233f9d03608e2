"""What a create request of a network asks for, and what is refused of it."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec
import pytest

from minidocker.engine.networks import network_request
from minidocker.engine.networks.network import Network
from minidocker.errors import Forbidden, InvalidArgument, MinidockerError, NotFound, Unavailable, Unsupported

BRIDGE = "com.docker.network.bridge."


def read(**body: Any) -> Network:
    return network_request.read(network_request.parse({"Name": "mine", **body}))


def pool(**fields: Any) -> dict[str, Any]:
    return {"Driver": "default", "Config": [fields]}


def test_nothing_asked_for_leaves_the_subnet_to_the_daemon() -> None:
    network = read()
    assert (network.driver, network.pools, network.address, network.static) == ("bridge", [], "", False)
    assert len(network.id) == 64 and network.bridge == f"br-{network.id[:12]}"
    config = network.config((IPv4Network("10.1.0.0/16"),))
    assert config.address is None and config.avoid == (IPv4Network("10.1.0.0/16"),)
    assert (config.icc, config.masquerade, config.mtu, config.host_address) == (True, True, 1500, "0.0.0.0")


def test_the_gateway_is_the_one_asked_for_or_the_first_that_is_free() -> None:
    assert read(IPAM=pool(Subnet="10.5.0.0/24", Gateway="10.5.0.9")).address == "10.5.0.9/24"
    assert read(IPAM=pool(Subnet="10.5.0.0/24")).address == "10.5.0.1/24"
    auxiliary = {"router": "10.5.0.1", "printer": "10.5.0.2"}
    assert read(IPAM=pool(Subnet="10.5.0.0/24", AuxiliaryAddresses=auxiliary)).address == "10.5.0.3/24"
    assert read(IPAM=pool(Subnet="10.9.0.0/16", IPRange="10.9.5.0/24")).address == "10.9.5.0/16"  # as dockerd does


def test_what_was_asked_for_reaches_the_bridge_and_is_shown_as_it_was() -> None:
    options = {f"{BRIDGE}name": "lan0", f"{BRIDGE}enable_icc": "false", f"{BRIDGE}enable_ip_masquerade": "0",
               f"{BRIDGE}host_binding_ipv4": "127.0.0.1", "com.docker.network.driver.mtu": "1400",
               "unknown": "kept"}  # fmt: skip
    wanted = pool(Subnet="10.5.0.0/16", IPRange="10.5.8.0/24", Gateway="10.5.8.1", AuxiliaryAddresses={"x": "10.5.8.9"})
    network = read(IPAM=wanted, Options=options, Internal=True, Labels={"a": "b"})
    config = network.config()
    assert (config.bridge, config.icc, config.masquerade, config.mtu) == ("lan0", False, False, 1400)
    assert (config.internal, config.host_address) == (True, "127.0.0.1")
    assert (config.ip_range, config.reserved) == (IPv4Network("10.5.8.0/24"), (IPv4Address("10.5.8.9"),))
    assert (network.options, network.labels, network.static) == (options, {"a": "b"}, True)
    assert msgspec.to_builtins(network.pools) == wanted["Config"]


def test_null_means_that_nothing_was_said() -> None:
    nulls = {"Driver": None, "Options": None, "Labels": None, "Internal": None, "EnableIPv6": None,
             "IPAM": {"Driver": None, "Options": None,
                      "Config": [{"Subnet": "10.5.0.0/24", "IPRange": None, "Gateway": None,
                                  "AuxiliaryAddresses": None}]}}  # fmt: skip
    assert read(**nulls).address == "10.5.0.1/24"
    assert read(IPAM=None).pools == read(IPAM={"Config": None}).pools == []


@pytest.mark.parametrize("body", [{"Name": 5}, {"Internal": "yes"}, {"IPAM": []}, {"IPAM": {"Config": [5]}}])
def test_a_wrong_type_is_named(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON: "):
        read(**body)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"Name": ""}, InvalidArgument, "invalid name"),
        ({"Name": "a/b"}, InvalidArgument, "invalid name"),
        ({"Name": "host"}, Forbidden, "predefined host network"),
        ({"Driver": "host"}, Forbidden, 'only one instance of "host"'),
        ({"Driver": "nosuch"}, NotFound, 'plugin "nosuch" not found'),
        ({"Driver": "macvlan"}, Unsupported, "macvlan"),
        ({"Driver": "overlay"}, Unavailable, "not a swarm manager"),
        ({"Ingress": True}, Forbidden, "Ingress network can only be global scope network"),
        ({"Scope": "swarm"}, Forbidden, "cannot create a swarm scoped network when swarm is not active"),
        ({"ConfigOnly": True}, Unsupported, "config-only"),
        ({"EnableIPv4": False}, Unsupported, "IPv4"),
        ({"IPAM": {"Driver": "nosuch"}}, NotFound, "nosuch"),
        ({"IPAM": pool(Subnet="10.5.0")}, InvalidArgument, "invalid CIDR address: 10.5.0"),
        ({"IPAM": pool(Subnet="")}, InvalidArgument, "Invalid subnet"),
        ({"IPAM": pool(Subnet="fd00::/64", Gateway="fd00::")}, InvalidArgument, "first or last address"),
        ({"IPAM": pool(Subnet="fd00::/64", Gateway="10.5.0.1")}, InvalidArgument, "invalid gateway 10.5.0.1"),
        ({"IPAM": pool(Subnet="fd00::/64", IPRange="10.5.0.0/24")}, InvalidArgument, "ip-range"),
        ({"IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "fd01::/64"}]}}, Forbidden, "multiple subnets"),
        ({"IPAM": pool(Subnet="10.5.0.0/32")}, InvalidArgument, "No available addresses"),
        ({"IPAM": pool(Subnet="10.5.0.0/24", Gateway="10.6.0.1")}, InvalidArgument, "invalid gateway 10.6.0.1"),
        ({"IPAM": pool(Subnet="10.5.0.0/24", Gateway="10.5.0.255")}, InvalidArgument, "first or last address"),
        ({"IPAM": pool(Subnet="10.5.0.0/24", Gateway="x")}, InvalidArgument, "no IP address"),
        ({"IPAM": pool(Subnet="10.5.0.0/24", IPRange="10.6.0.0/28")}, InvalidArgument, "ip-range"),
        ({"IPAM": pool(Subnet="10.5.0.0/24", AuxiliaryAddresses={"a": "10.6.0.1"})}, InvalidArgument, "auxiliary"),
        ({"IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}, {"Subnet": "10.6.0.0/24"}]}}, Forbidden, "multiple subnets"),
        ({"Options": {f"{BRIDGE}enable_icc": "maybe"}}, InvalidArgument, "maybe"),
        ({"Options": {f"{BRIDGE}name": "much-too-long-a-name"}}, InvalidArgument, "name of an interface"),
        ({"Options": {f"{BRIDGE}host_binding_ipv4": "::1"}}, InvalidArgument, "IPv4"),
        ({"Options": {"com.docker.network.driver.mtu": "9"}}, InvalidArgument, "MTU"),
        ({"Options": {f"{BRIDGE}gateway_mode_ipv4": "routed"}}, Unsupported, "only nat"),
    ],
)
def test_what_makes_no_network_is_refused(body: dict[str, Any], kind: type[MinidockerError], words: str) -> None:
    with pytest.raises(kind, match=words):
        read(**body)


@pytest.mark.parametrize(("said", "meant"), [("10.5.0.7/24", "10.5.0.0/24"), ("fd00::5/64", "fd00::/64")])
def test_an_address_stands_for_its_subnet(said: str, meant: str) -> None:
    assert [pool.subnet for pool in read(IPAM=pool(Subnet=said), EnableIPv6=":" in said).pools] == [meant]
