"""The publish table: who reaches what, over which address, by which protocol."""

import os
import shutil
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minidocker.errors import Conflict
from minidocker.linux import netlink
from minidocker.network.bridge import default_network
from minidocker.network.endpoint import LiveEndpoint
from minidocker.network.ports import PortBinding, PortUnavailable

if TYPE_CHECKING:
    from conftest import Stage
else:
    Stage = Any

HOST = "203.0.113.1"
PROTOCOLS = ("tcp", "udp")
EVERYWHERE = [PortBinding(80, protocol, "0.0.0.0", (8080, 8080)) for protocol in PROTOCOLS]
LOOPBACK = [PortBinding(80, protocol, "127.0.0.1", (8080, 8080)) for protocol in PROTOCOLS]
# A machine that lets addresses of 127.0.0.0/8 out on the wire.
LOOSE = "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $f; done"


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def ask_here(stage: Stage, protocol: str, address: str, port: int) -> str:
    """From the host, in a child so that the same code serves."""
    return sys.modules[type(stage).__module__].ask(protocol, address, port)  # type: ignore[no-any-return]


def bridged_packets_pass_the_rules(value: bool) -> None:
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if switch.exists():
        switch.write_text(str(int(value)))


def drop_forwarding(how: str) -> None:
    """Other people's rules on this (own) host."""
    if how == "iptables":
        run("iptables-nft", "-P", "FORWARD", "DROP")
    elif how == "iptables rule":
        run("iptables-nft", "-A", "FORWARD", "-j", "REJECT")
    elif how == "old iptables":
        run("iptables-legacy", "-P", "FORWARD", "DROP")
    elif how == "nftables":
        gate = "{ type filter hook forward priority 10; policy drop; }"
        run("nft", f"add table inet fence; add chain inet fence gate {gate}")


DROPPERS = ("nobody", "iptables", "iptables rule", "old iptables", "nftables")


@pytest.mark.parametrize(("bridged", "dropper"), [*product((False, True), DROPPERS)])
def test_a_publish_is_seen_from_everywhere(stage: Stage, bridged: bool, dropper: str) -> None:
    if dropper.startswith("old") and not shutil.which("iptables-legacy"):
        pytest.skip("iptables-legacy is not installed")
    bridged_packets_pass_the_rules(bridged)
    drop_forwarding(dropper)
    neighbour = stage.neighbour()
    network = stage.network()
    web = stage.container(network, "web", EVERYWHERE)
    other = stage.container(network, "other")
    answers: dict[tuple[str, str], str] = {}
    for protocol in PROTOCOLS:
        answers |= {
            ("host", protocol): ask_here(stage, protocol, HOST, 8080),
            ("host by loopback", protocol): ask_here(stage, protocol, "127.0.0.1", 8080),
            ("host by gateway", protocol): ask_here(stage, protocol, "172.17.0.1", 8080),
            ("other", protocol): other.ask(protocol, HOST, 8080),
            ("other by gateway", protocol): other.ask(protocol, "172.17.0.1", 8080),
            ("other, no port published", protocol): other.ask(protocol, "172.17.0.2", 80),
            ("itself", protocol): web.ask(protocol, HOST, 8080),
            ("neighbour", protocol): neighbour.ask(protocol, HOST, 8080),
        }
    assert {key: answer.split()[0] for key, answer in answers.items()} == dict.fromkeys(answers, "web")
    assert answers["neighbour", "tcp"] == "web saw 203.0.113.2"  # the true source, as in Docker


@pytest.mark.parametrize("bridged", [False, True])
def test_a_publish_on_127_0_0_1_is_for_this_host_alone(stage: Stage, bridged: bool) -> None:
    bridged_packets_pass_the_rules(bridged)
    neighbour = stage.neighbour()
    network = stage.network()
    web = stage.container(network, "web", LOOPBACK)
    other = stage.container(network, "other")
    neighbour.run(lambda: run("sh", "-c", f"{LOOSE}; ip route add 127.0.0.1 via {HOST}"))
    for protocol in PROTOCOLS:
        assert ask_here(stage, protocol, "127.0.0.1", 8080) == "web saw 172.17.0.1"
        for machine in (neighbour, other, web):
            assert machine.ask(protocol, HOST, 8080) == "refused", (machine.name, protocol)
        assert neighbour.ask(protocol, "127.0.0.1", 8080) == "silent"


def test_a_neighbour_does_not_reach_a_container_by_its_own_address(stage: Stage) -> None:
    neighbour = stage.neighbour()
    network = stage.network()
    stage.container(network, "web", LOOPBACK)
    assert {neighbour.ask(protocol, "172.17.0.2", 80) for protocol in PROTOCOLS} == {"silent"}


def test_a_service_on_the_hosts_loopback_is_closed_to_neighbours_and_containers(stage: Stage) -> None:
    neighbour = stage.neighbour()
    network = stage.network()
    web = stage.container(network, "web", LOOPBACK)
    local = stage.machine("local")
    local._enter = lambda: None  # type: ignore[method-assign]  # a server on the host itself
    local.serve(9000)
    assert ask_here(stage, "tcp", "127.0.0.1", 9000) == "local saw 127.0.0.1"
    # Only its loopback down does a machine send 127.0.0.1 out of its interface.
    lure = LOOSE + "; ip link set lo down; ip route add 127.0.0.1 via {}"
    for machine, gateway in ((neighbour, HOST), (web, "172.17.0.1")):
        machine.run(lambda gateway=gateway: run("sh", "-c", lure.format(gateway)))  # type: ignore[misc]
        assert {machine.ask(protocol, "127.0.0.1", 9000) for protocol in PROTOCOLS} == {"silent"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_restart_with_a_new_address_is_seen_at_once_by_the_same_client(stage: Stage, protocol: str) -> None:
    neighbour = stage.neighbour()
    network = stage.network()
    wish = [PortBinding(80, protocol, "0.0.0.0", (8080, 8080))]
    first = stage.container(network, "first", wish)
    assert neighbour.ask(protocol, HOST, 8080, local_port=5555).startswith("first")
    stage.stop(network, first)
    network.settle()
    squatter = stage.container(network, "squatter")
    assert squatter.endpoint is not None and squatter.endpoint.address == "172.17.0.2"
    assert neighbour.ask(protocol, HOST, 8080, local_port=5556) == "refused"
    again = stage.container(network, "again", wish)
    assert again.endpoint is not None and again.endpoint.address == "172.17.0.3"
    for source in (5555, 5556):  # the flow to the old address, and the one that the host itself refused
        assert neighbour.ask(protocol, HOST, 8080, local_port=source).startswith("again")
    for asking in (squatter, again):
        assert asking.ask(protocol, HOST, 8080).startswith("again")


def test_a_container_reaches_the_outside_with_the_hosts_address(stage: Stage) -> None:
    neighbour = stage.neighbour()
    neighbour.run(lambda: netlink.configure_interfaces({}))
    neighbour.serve(7000)
    network = stage.network()
    web = stage.container(network)
    assert web.ask("tcp", "203.0.113.2", 7000) == "neighbour saw 203.0.113.1"
    assert web.ask("udp", "203.0.113.2", 7000) == "neighbour saw 203.0.113.1"


def test_two_networks_cannot_talk_but_see_each_others_publishes(stage: Stage) -> None:
    stage.neighbour()
    one = stage.network()
    web = stage.container(one, "web", EVERYWHERE)
    stage.root = stage.root / "other-daemon"
    two = stage.network()
    assert (one.config.bridge, str(one.subnet)) != (two.config.bridge, str(two.subnet))
    stranger = stage.container(two, "stranger")
    assert web.endpoint is not None
    for protocol in PROTOCOLS:
        assert stranger.ask(protocol, web.endpoint.address, 80) == "silent"
        assert stranger.ask(protocol, HOST, 8080).startswith("web")


def test_a_port_in_use_is_refused_in_dockers_words_and_nothing_stays(stage: Stage) -> None:
    network = stage.network()
    stage.container(network, "web", EVERYWHERE)
    late = network.allocate("late")
    wishes = [PortBinding(81, "tcp", "0.0.0.0", (9000, 9000)), *EVERYWHERE]
    with pytest.raises(PortUnavailable, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"):
        network.publish(late, wishes, name="late")
    assert "9000" not in run("nft", "list", "table", "ip", network.firewall.name)
    assert network.publish(late, wishes[:1])[0].host_port == 9000


def test_remove_leaves_nothing_and_others_rules_as_they_were(stage: Stage) -> None:
    for dropper in DROPPERS[1:]:
        drop_forwarding(dropper)
    before = (run("nft", "list", "ruleset"), run("iptables-legacy", "-S"), run("ip", "-o", "link"))
    network = stage.network()
    stage.container(network, "web", EVERYWHERE)
    assert run("nft", "list", "ruleset").count(f'accept comment "{network.firewall.name}"') == 4
    assert network.firewall.name in run("iptables-nft", "-S", "FORWARD")  # its owner's tool still reads the chain
    assert run("iptables-legacy", "-S").count(network.firewall.name) == 2
    network.remove()
    assert (run("nft", "list", "ruleset"), run("iptables-legacy", "-S"), run("ip", "-o", "link")) == before


def test_a_firewall_that_comes_later_is_opened_at_the_next_attach(stage: Stage) -> None:
    network = stage.network()
    web = stage.container(network, "web", EVERYWHERE)
    neighbour = stage.neighbour()
    drop_forwarding("nftables")
    assert neighbour.ask("tcp", HOST, 8080) == "silent"
    stage.container(network, "next")
    assert neighbour.ask("tcp", HOST, 8080).startswith(web.name)


def test_a_flushed_ruleset_is_written_anew_at_the_next_attach(stage: Stage) -> None:
    network = stage.network()
    stage.container(network, "web", EVERYWHERE)
    run("nft", "flush", "ruleset")
    assert ask_here(stage, "tcp", "127.0.0.1", 8080) == "refused"
    stage.container(network, "next", [PortBinding(80, "tcp", "0.0.0.0", (8081, 8081))])
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("web")
    assert ask_here(stage, "tcp", "127.0.0.1", 8081).startswith("next")


def test_the_next_daemon_adopts_what_lives_and_sweeps_the_rest(stage: Stage) -> None:
    first = stage.network()
    web = stage.container(first, "web", EVERYWHERE)
    gone = stage.container(first, "gone", [PortBinding(80, "tcp", "0.0.0.0", (8090, 8090))])
    assert web.endpoint is not None and gone.endpoint is not None
    published = tuple(first.published(web.endpoint))
    first.ports.close()  # kill -9: sockets close, everything else stays
    second = default_network(stage.root)
    assert second is not None
    second.ensure()
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("web")  # no gap between ensure and adopt
    second.restore([LiveEndpoint(web.endpoint, published)])
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("web")
    assert ask_here(stage, "tcp", "127.0.0.1", 8090) == "refused"
    assert netlink.link(gone.endpoint.host_interface) is None
    fresh = second.allocate("fresh")
    assert fresh.address == gone.endpoint.address  # free again; web's is not
    with pytest.raises(PortUnavailable):
        second.publish(fresh, EVERYWHERE)
    second.release(web.endpoint)
    assert ask_here(stage, "tcp", "127.0.0.1", 8080) == "refused"


def test_an_address_is_not_given_again_while_the_old_interface_still_answers_on_it(stage: Stage) -> None:
    network = stage.network()
    web = stage.container(network)
    assert web.endpoint is not None
    network.release(web.endpoint)  # its namespace lives on, as with --network container:web
    assert ask_here(stage, "tcp", web.endpoint.address, 80).startswith("web")
    assert network.allocate("next").address != web.endpoint.address
    network.settle()
    assert netlink.link(web.endpoint.host_interface) is None
    assert network.allocate("later").address == web.endpoint.address


def test_an_address_that_is_asked_for_is_had_at_once(stage: Stage) -> None:
    network = stage.network()
    web = stage.container(network)
    assert web.endpoint is not None
    network.release(web.endpoint)
    assert network.allocate("again", IPv4Address(web.endpoint.address)).address == web.endpoint.address
    assert netlink.link(web.endpoint.host_interface) is None


def test_a_full_network_gives_again_what_was_released_though_its_interface_is_there(stage: Stage) -> None:
    network = stage.network(bip="172.31.9.1/30")  # one address besides the gateway
    web = stage.container(network)
    assert web.endpoint is not None
    network.release(web.endpoint)
    assert network.allocate("next").address == web.endpoint.address
    assert netlink.link(web.endpoint.host_interface) is None


def test_a_second_release_does_not_free_what_another_has(stage: Stage) -> None:
    network = stage.network()
    first = network.allocate("first")
    network.release(first)
    second = network.allocate("second")
    assert second.address == first.address
    network.release(first)
    assert network.allocate("third").address != second.address


def test_a_subnet_in_use_on_the_host_is_skipped(stage: Stage) -> None:
    stage.neighbour(host="172.17.5.1/24", address="172.17.5.2/24")
    run("ip", "route", "add", "172.18.0.0/15", "via", "172.17.5.2")
    assert str(stage.network().subnet) == "172.20.0.0/16"


def test_bip_names_the_gateway_and_may_change_while_nobody_is_attached(stage: Stage) -> None:
    first = stage.network("10.20.0.129/25")
    assert (str(first.subnet), str(first.gateway)) == ("10.20.0.128/25", "10.20.0.129")
    assert [first.allocate(name).address for name in "ab"] == ["10.20.0.130", "10.20.0.131"]
    second = stage.network("10.21.0.1/24")
    stage.container(second)
    with pytest.raises(Conflict, match=r"has the address 10\.21\.0\.1/24"):
        stage.network("10.22.0.1/24")


def test_a_bridge_of_others_is_used_and_left(stage: Stage) -> None:
    netlink.create_bridge("theirs", "10.9.0.1/24", "02:42:00:00:00:09", 1500)
    network = stage.network(bridge="theirs")
    web = stage.container(network, "web", EVERYWHERE)
    assert ask_here(stage, "tcp", "127.0.0.1", 8080).startswith("web")
    stage.stop(network, web)
    network.remove()
    assert netlink.link("theirs") is not None
    assert Path("/proc/sys/net/ipv4/conf/theirs/route_localnet").read_text().strip() == "0"


def test_counters_are_those_of_the_container(stage: Stage) -> None:
    network = stage.network()
    web = stage.container(network)
    assert web.endpoint is not None
    before = network.statistics(web.endpoint)
    web.run(lambda: send_datagram("172.17.0.1", 9, b"x" * 1000))
    after = network.statistics(web.endpoint)
    assert after["tx_bytes"] - before["tx_bytes"] >= 1000
    assert after["rx_bytes"] - before["rx_bytes"] < 1000
    network.release(web.endpoint)
    network.settle()
    assert network.statistics(web.endpoint) == {}


def test_a_container_cannot_pretend_to_be_the_hosts_loopback(stage: Stage) -> None:
    network = stage.network()
    web = stage.container(network, "web", LOOPBACK)  # route_localnet is on for the bridge
    trusting = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    trusting.bind(("0.0.0.0", 9100))
    trusting.settimeout(0.6)
    web.run(lambda: run("sh", "-c", LOOSE))
    web.run(lambda: send_datagram("172.17.0.1", 9100, b"honest"))
    assert trusting.recvfrom(100)[0] == b"honest"
    web.run(lambda: send_datagram("172.17.0.1", 9100, b"spoofed", source="127.0.0.1"))
    with pytest.raises(TimeoutError):
        trusting.recvfrom(100)


def send_datagram(address: str, port: int, content: bytes, *, source: str = "") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.sendto(content, (address, port))


def sctp(source_port: int, port: int, chunk: int, tag: int) -> bytes:
    """An SCTP packet with an INIT (1) or INIT ACK (2) chunk (RFC 9260), its CRC32c in place."""
    body = struct.pack("!BBHIIHHI", chunk, 0, 20, 0x1234, 65536, 1, 1, 1)
    packet = bytearray(struct.pack("!HHII", source_port, port, tag, 0) + body)
    crc = 0xFFFFFFFF
    for byte in packet:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    packet[8:12] = struct.pack("<I", crc ^ 0xFFFFFFFF)
    return bytes(packet)


def test_a_published_sctp_port_is_translated_both_ways_though_the_kernel_speaks_none(stage: Stage) -> None:
    neighbour = stage.neighbour()
    network = stage.network()
    web = stage.machine("web")
    endpoint = network.allocate("web")
    network.publish(endpoint, [PortBinding(80, "sctp", "0.0.0.0", (8080, 8080))], name="web")
    network.attach(endpoint, web.pid)
    web.run(lambda: netlink.configure_interfaces(endpoint.plan()))
    ready, go = os.pipe()

    def answer() -> tuple[int, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP) as raw:
            raw.settimeout(5)
            os.write(go, b"x")
            packet, peer = raw.recvfrom(200)
            ports: tuple[int, int] = struct.unpack_from("!HH", packet, 20)
            raw.sendto(sctp(80, ports[0], 2, 0x1234), peer)
        return ports

    def call() -> tuple[int, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP) as raw:
            raw.settimeout(5)
            raw.sendto(sctp(5000, 8080, 1, 0), (HOST, 0))
            packet, peer = raw.recvfrom(200)
            assert peer[0] == HOST
            ports: tuple[int, int] = struct.unpack_from("!HH", packet, 20)
        return ports

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(web.run, answer)
        os.read(ready, 1)
        seen_by_the_client = neighbour.run(call)
        assert answering.result() == (5000, 80), "the container sees its own port"
    assert seen_by_the_client == (8080, 5000), "and the client the host's"
