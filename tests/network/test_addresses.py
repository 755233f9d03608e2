"""IPAM, without a kernel."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from minidocker.errors import Forbidden, InvalidArgument, Unavailable
from minidocker.network.addresses import AddressPool, choose_subnet, mac_of


def pool(subnet: str = "10.5.0.0/29", gateway: str = "10.5.0.1") -> AddressPool:
    return AddressPool(IPv4Network(subnet), IPv4Address(gateway))


def test_every_address_but_network_gateway_and_broadcast_is_handed_out_once() -> None:
    addresses = pool()
    assert [str(addresses.take()) for _ in range(5)] == [f"10.5.0.{n}" for n in range(2, 7)]
    with pytest.raises(Unavailable, match="no available addresses"):
        addresses.take()


def test_the_lowest_free_address_comes_first_as_in_docker() -> None:
    addresses = pool()
    first, _, third = addresses.take(), addresses.take(), addresses.take()
    addresses.release(third)
    addresses.release(first)
    addresses.release(first)
    assert [addresses.take(), addresses.take()] == [first, third]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [("10.6.0.2", InvalidArgument), ("10.5.0.1", Forbidden), ("10.5.0.0", Forbidden), ("10.5.0.7", Forbidden)],
)
def test_a_requested_address_must_be_free_and_of_the_subnet(wanted: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        pool().take(IPv4Address(wanted))


def test_a_requested_address_is_not_chosen_again() -> None:
    addresses = pool()
    assert str(addresses.take(IPv4Address("10.5.0.2"))) == "10.5.0.2"
    assert str(addresses.take()) == "10.5.0.3"
    with pytest.raises(Forbidden, match="Address already in use"):
        addresses.take(IPv4Address("10.5.0.2"))


def test_an_ip_range_and_reserved_addresses_bound_what_is_chosen() -> None:
    addresses = AddressPool(
        IPv4Network("10.5.0.0/24"),
        IPv4Address("10.5.0.1"),
        allocate_from=IPv4Network("10.5.0.64/30"),
        reserved=[IPv4Address("10.5.0.65")],
    )
    assert [str(addresses.take()) for _ in range(3)] == ["10.5.0.64", "10.5.0.66", "10.5.0.67"]
    assert str(addresses.take(IPv4Address("10.5.0.9"))) == "10.5.0.9"


def test_a_subnet_that_overlaps_the_hosts_is_skipped() -> None:
    assert str(choose_subnet([])) == "172.17.0.0/16"
    assert str(choose_subnet([IPv4Network("172.17.9.0/24"), IPv4Network("172.18.0.0/15")])) == "172.20.0.0/16"
    assert str(choose_subnet([IPv4Network("172.16.0.0/12")])) == "192.168.0.0/20"
    with pytest.raises(Unavailable):
        choose_subnet([IPv4Network("0.0.0.0/0")])


def test_the_mac_follows_from_the_address() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
