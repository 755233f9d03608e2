"""Bridge networks with IPv6: who reaches what, and what the kernel shows inside and on the host."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minidocker.errors import Conflict, Forbidden, InvalidArgument, Unsupported
from minidocker.linux import ipv6, netlink
from minidocker.network import firewall, host
from minidocker.network.addresses import AddressPool, choose_subnet6
from minidocker.network.bridge import BridgeConfig, BridgeNetwork
from minidocker.network.endpoint import LiveEndpoint
from minidocker.network.ports import PortBinding

if TYPE_CHECKING:
    from conftest import Machine, Stage
else:
    Machine = Stage = Any

OUTSIDE, ABROAD = "fd00:beef::1", "fd00:beef::2"
ADDRESS6 = IPv6Interface("fd00:d0c::1/64")
PROTOCOLS = ("tcp", "udp")
EVERYWHERE = [PortBinding(80, protocol, "0.0.0.0", (8080, 8080), also="::") for protocol in PROTOCOLS]


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def network6(stage: Stage, *, second: bool = False, **settings: Any) -> BridgeNetwork:
    """A network with IPv6, beside the first one's firewall."""
    first = stage.network("10.9.0.1/24")
    number = 2 if second else 1
    config = BridgeConfig(f"six{number}", f"br-six{number}", IPv4Interface(f"10.10.{number}.1/24"), ipv6=True,
                          address6=IPv6Interface(f"fd00:d0c:0:{number}::1/64"))  # fmt: skip
    made = BridgeNetwork(replace(config, **settings), first.firewall, first.ports)
    made.ensure()
    return made


def sibling(network: BridgeNetwork, number: int, **settings: Any) -> BridgeNetwork:
    config = BridgeConfig(f"six{number}", f"br-six{number}", IPv4Interface(f"10.10.{number}.1/24"), ipv6=True,
                          address6=IPv6Interface(f"fd00:d0c:0:{number}::1/64"))  # fmt: skip
    made = BridgeNetwork(replace(config, **settings), network.firewall, network.ports)
    made.ensure()
    return made


def address6(machine: Machine) -> str:
    assert machine.endpoint is not None
    return machine.endpoint.address6


def neighbour(stage: Stage) -> Machine:
    """Another machine on a wire to the host, by IPv6; it routes everything to the host."""
    return stage.neighbour(host=f"{OUTSIDE}/64", address=f"{ABROAD}/64")


def ask_here(stage: Stage, protocol: str, address: str, port: int) -> str:
    return sys.modules[type(stage).__module__].ask(protocol, address, port)  # type: ignore[no-any-return]


def test_the_gateway_and_the_routers_anycast_address_are_never_handed_out() -> None:
    pool = AddressPool(IPv6Network("fd00:1::/125"), IPv6Address("fd00:1::1"), reserved=[IPv6Address("fd00:1::3")])
    handed = [str(pool.take()) for _ in range(5)]
    assert handed == [f"fd00:1::{n}" for n in (2, 4, 5, 6, 7)]
    for taken in ("fd00:1::", "fd00:1::1", "fd00:1::3", "fd00:1::2"):
        with pytest.raises(Forbidden, match="Address already in use"):
            pool.take(IPv6Address(taken))


def test_a_daemon_has_a_unique_local_prefix_of_its_own_and_skips_what_is_used() -> None:
    first = choose_subnet6([], "minidocker-one")
    assert first.prefixlen == 64 and first.subnet_of(IPv6Network("fd00::/8"))
    assert choose_subnet6([], "minidocker-one") == first
    assert not choose_subnet6([], "minidocker-two").supernet(new_prefix=48).overlaps(first)
    second = choose_subnet6([first], "minidocker-one")
    assert not second.overlaps(first) and second.supernet(new_prefix=48).overlaps(first)


def test_a_publish_is_seen_from_everywhere_by_ipv6(stage: Stage) -> None:
    outside = neighbour(stage)
    network = network6(stage)
    web = stage.container(network, "web", EVERYWHERE)
    other = stage.container(network, "other")
    answers: dict[tuple[str, str], str] = {}
    for protocol in PROTOCOLS:
        answers |= {
            ("host", protocol): ask_here(stage, protocol, OUTSIDE, 8080),
            ("host by gateway", protocol): ask_here(stage, protocol, "fd00:d0c:0:1::1", 8080),
            ("other by the host", protocol): other.ask(protocol, OUTSIDE, 8080),
            ("other", protocol): other.ask(protocol, address6(web), 80),
            ("itself by the host", protocol): web.ask(protocol, OUTSIDE, 8080),
            ("outside", protocol): outside.ask(protocol, OUTSIDE, 8080),
        }
    assert {where: answer.startswith("web saw ") for where, answer in answers.items()} == dict.fromkeys(answers, True)
    assert answers["outside", "tcp"] == f"web saw {ABROAD}", "the client's own address is seen"


def test_a_publish_on_one_address_is_there_alone(stage: Stage) -> None:
    outside = neighbour(stage)
    network = network6(stage)
    netlink.add_address("uplink", "fd00:beef::9/64")
    stage.container(network, "web", [PortBinding(80, "tcp", "fd00:beef::9", (8080, 8080))])
    assert ask_here(stage, "tcp", "fd00:beef::9", 8080).startswith("web saw ")
    assert outside.ask("tcp", "fd00:beef::9", 8080).startswith("web saw ")
    assert ask_here(stage, "tcp", OUTSIDE, 8080) == "refused"
    assert outside.ask("tcp", OUTSIDE, 8080) == "refused"


def test_the_hosts_own_loopback_leads_nowhere_and_says_so(stage: Stage) -> None:
    network = network6(stage)
    stage.container(network, "web", EVERYWHERE)
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("web saw ")
    assert ask_here(stage, "tcp", "::1", 8080) == "refused"
    with pytest.raises(InvalidArgument, match=r"on \[::1\]: the kernel leads nothing from there"):
        network.publish(network.allocate("other"), [PortBinding(80, "tcp", "::1", (8081, 8081))])


def test_a_container_reaches_the_outside_with_the_hosts_address_unless_masquerade_is_off(stage: Stage) -> None:
    outside = neighbour(stage)
    outside.serve()
    network = network6(stage)
    plain = sibling(network, 2, masquerade=False)
    box, bare = stage.container(network, "box"), stage.container(plain, "bare")
    assert box.ask("tcp", ABROAD, 80) == f"neighbour saw {OUTSIDE}"
    assert bare.ask("tcp", ABROAD, 80) == f"neighbour saw {address6(bare)}"


def test_neighbours_and_other_networks_do_not_reach_a_container_by_its_own_address(stage: Stage) -> None:
    outside = neighbour(stage)
    network = network6(stage)
    web = stage.container(network, "web", EVERYWHERE)
    other = stage.container(sibling(network, 2), "other")
    assert outside.ask("tcp", address6(web), 80) == "silent"
    assert other.ask("tcp", address6(web), 80) == "silent"
    assert other.ask("tcp", OUTSIDE, 8080).startswith("web saw ")


def test_an_internal_network_has_no_way_out_by_ipv6(stage: Stage) -> None:
    outside = neighbour(stage)
    outside.serve()
    network = network6(stage)
    inner = sibling(network, 2, internal=True)
    one, two = stage.container(inner, "one", EVERYWHERE), stage.container(inner, "two")
    assert two.ask("tcp", address6(one), 80).startswith("one saw ")
    one.run(lambda: netlink.replace_default_route("eth0", "fd00:d0c:0:2::1"))  # even with a route of its own making
    assert one.ask("tcp", ABROAD, 80) == "silent"
    assert ask_here(stage, "tcp", OUTSIDE, 8080) == "refused", "an internal network publishes nothing"


def test_without_icc_neighbours_are_silent_by_ipv6(stage: Stage) -> None:
    network = network6(stage, icc=False)
    one, two = stage.container(network, "one"), stage.container(network, "two")
    assert two.ask("tcp", address6(one), 80) in ("silent", "unreachable")
    assert ask_here(stage, "tcp", address6(one), 80).startswith("one saw ")


def test_a_port_of_ipv6_needs_an_address_of_it(stage: Stage) -> None:
    network = stage.network("10.9.0.1/24")
    endpoint = network.allocate("web")
    with pytest.raises(InvalidArgument, match=r"cannot publish port 80/tcp on \[::\]: the container has no IPv6"):
        network.publish(endpoint, [PortBinding(80, "tcp", "::", (8080, 8080))])
    published = network.publish(endpoint, EVERYWHERE)
    assert {port.host_address for port in published} == {"0.0.0.0"}


def test_ports_of_ipv6_go_where_there_is_no_ipv6_and_move_where_there_is(stage: Stage) -> None:
    network = network6(stage)
    second, third = sibling(network, 2), stage.network("10.9.0.1/24")
    third = BridgeNetwork(replace(third.config, name="third"), network.firewall, network.ports)
    third.ensure()
    web = stage.container(network, "web", EVERYWHERE)
    assert web.endpoint is not None
    moved = stage.container(second, "moved")
    assert moved.endpoint is not None
    second.take_over_ports(moved.endpoint, network, web.endpoint)
    assert ask_here(stage, "tcp", "fd00:d0c:0:1::1", 8080).startswith("moved saw ")
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("moved saw ")
    plain = stage.container(third, "plain")
    assert plain.endpoint is not None
    assert len(third.take_over_ports(plain.endpoint, second, moved.endpoint)) == 2
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("plain saw ")
    assert ask_here(stage, "tcp", "fd00:d0c:0:1::1", 8080) == "refused"


def test_the_next_daemon_adopts_addresses_and_ports_of_ipv6(stage: Stage) -> None:
    network = network6(stage)
    web = stage.container(network, "web", EVERYWHERE)
    assert web.endpoint is not None
    live = LiveEndpoint(web.endpoint, tuple(network.published(web.endpoint)))
    network.ports.close()
    first = stage.network("10.9.0.1/24")
    again = BridgeNetwork(network.config, first.firewall, first.ports)
    again.ensure()
    again.adopt([live])
    again.firewall.rewrite()
    assert ask_here(stage, "tcp", "fd00:d0c:0:1::1", 8080).startswith("web saw ")
    assert again.allocate("next").address6 == "fd00:d0c:0:1::3"
    with pytest.raises(Forbidden, match="Address already in use"):
        again.allocate("thief", requested6=IPv6Address(address6(web)))


def test_remove_leaves_no_table_and_a_crashs_table_is_swept(stage: Stage) -> None:
    network = network6(stage)
    name = network.firewall.name
    assert f"table ip6 {name}" in run("nft", "list", "tables")
    network.remove()
    assert f"table ip6 {name}" not in run("nft", "list", "tables")
    network.ensure()
    other = stage.network("10.9.0.1/24")  # the next daemon, whose networks have no IPv6
    other.firewall.rewrite()
    assert f"table ip6 {name}" not in run("nft", "list", "tables")


@pytest.mark.parametrize("how", ["ip6tables", "inet"])
def test_a_firewall_of_others_that_drops_ipv6_is_opened_and_closed_again(stage: Stage, how: str) -> None:
    if how == "ip6tables":
        run("ip6tables-nft", "-P", "FORWARD", "DROP")
    else:
        gate = "{ type filter hook forward priority 10; policy drop; }"
        run("nft", f"add table inet fence; add chain inet fence gate {gate}")
    outside = neighbour(stage)
    network = network6(stage)
    stage.container(network, "web", EVERYWHERE)
    assert outside.ask("tcp", OUTSIDE, 8080).startswith("web saw ")
    mark = network.firewall.name
    network.remove()
    assert "br-six1" not in run("nft", "list", "ruleset") and mark


def test_forwarding_is_on_and_a_host_that_learns_routes_goes_on_learning(stage: Stage) -> None:
    settings = Path("/proc/sys/net/ipv6/conf")
    netlink.create_veth("uplink", 0, "far", stage.machine("far").pid, "", 1500)
    (settings / "all/forwarding").write_text("0")
    (settings / "uplink/accept_ra").write_text("1")
    network6(stage)
    assert (settings / "all/forwarding").read_text() == "1\n"
    assert (settings / "uplink/accept_ra").read_text() == "2\n"
    assert (settings / "br-six1/accept_ra").read_text() == "0\n", "a container is no router of the host"


def test_an_interface_has_ipv6_only_where_its_network_has(stage: Stage) -> None:
    network = network6(stage)
    box = stage.container(network, "box")

    def look() -> tuple[str, list[dict[str, Any]]]:
        shown = json.loads(run("ip", "-j", "-6", "address", "show", "dev", "eth0"))
        return Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").read_text(), shown[0]["addr_info"] if shown else []

    disabled, addresses = box.run(look)
    assert disabled == "0\n"
    assert ("fd00:d0c:0:1::2", 64) in [(one["local"], one["prefixlen"]) for one in addresses]
    plain = stage.machine("plain")
    endpoint = stage.network("10.9.0.1/24").allocate("plain")
    stage.network("10.9.0.1/24").attach(endpoint, plain.pid)

    def configure() -> tuple[str, list[dict[str, Any]]]:
        ipv6.switch(os.open("/proc", os.O_PATH), endpoint.plan())
        netlink.configure_interfaces(endpoint.plan())
        return look()

    assert plain.run(configure) == ("1\n", [])


def test_a_kernel_without_translation_of_ipv6_is_named_and_nothing_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = firewall.rules.table
    broken = "add rule ip6 nowhere nowhere accept\n"
    monkeypatch.setattr(firewall.rules, "table", lambda n, f="ip": table(n, f) + (broken if f == "ip6" else ""))
    with pytest.raises(Unsupported, match="this kernel cannot translate addresses of IPv6"):
        network6(stage)


def test_a_host_without_ipv6_is_told_so(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(host._SYSCTL, "ip6", tmp_path)
    with pytest.raises(Unsupported, match="this host has no IPv6"):
        network6(stage)


def test_a_subnet_of_ipv6_that_the_host_uses_is_refused(stage: Stage) -> None:
    neighbour(stage)
    with pytest.raises(Conflict, match="overlaps one that this host uses already"):
        network6(stage, address6=IPv6Interface("fd00:beef::5/48"))


def test_a_kernel_without_ipv6_has_nothing_to_switch(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_PATH)
    ipv6.switch_namespace(folder, {"interfaces": [{"name": "eth0", "addresses": ["10.0.0.2/24"]}]})
    os.close(folder)
