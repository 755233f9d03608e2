"""Networks with IPv6 through the socket: what the kernel shows inside containers, names, ports, crashes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Daemon, make_daemon, wait_until
from .test_networks import SLEEP, inside, ok, refused

NUMBER = f"fd00:{os.getpid() % 0x8000 + 0x1000:x}"  # tests that run at the same time have prefixes of their own
SERVE = "mkdir -p /w && echo served >/w/index.html && exec httpd -f -p 8080 -h /w"
SWITCHES = "for n in all default lo eth0; do cat /proc/sys/net/ipv6/conf/$n/disable_ipv6; done"


@pytest.fixture(scope="module")
def machine(image_root: Path) -> Iterator[Daemon]:
    yield from make_daemon(image_root, [])


@pytest.fixture
def net(machine: Daemon) -> Iterator[Daemon]:
    yield machine
    if machine.process is None:
        machine.start()
    machine.remove_all()
    assert machine.cli("network", "prune", "-f").returncode == 0


def endpoint(daemon: Daemon, name: str, network: str) -> dict[str, Any]:
    document = json.loads(ok(daemon, "inspect", name))[0]
    found: dict[str, Any] = document["NetworkSettings"]["Networks"][network]
    return found


def serving(daemon: Daemon, *words: str) -> None:
    """A container `web` that answers on port 8080 of both families."""
    ok(daemon, "run", "-d", "--name", "web", *words, "busybox", "sh", "-c", SERVE)
    wait_until(lambda: inside(daemon, "web", "netstat -ltn | grep :8080"))


def make(daemon: Daemon, name: str, number: int, *more: str) -> str:
    subnet = f"{NUMBER}:{number}::/64"
    ok(daemon, "network", "create", "--ipv6", "--subnet", subnet, *more, name)
    return subnet.removesuffix("/64")


def test_documents_and_files_are_dockers(net: Daemon) -> None:
    prefix = make(net, "six", 1)
    shown = json.loads(ok(net, "network", "inspect", "six"))[0]
    assert shown["EnableIPv6"] is True
    assert [pool["Subnet"] for pool in shown["IPAM"]["Config"] if ":" in pool["Subnet"]] == [f"{prefix}/64"]
    ok(net, "run", "-d", "--name", "box", "--hostname", "box", "--network", "six", "--ip6", f"{prefix}9", *SLEEP)
    found = endpoint(net, "box", "six")
    wanted = {"IPAMConfig": {"IPv6Address": f"{prefix}9"}, "GlobalIPv6Address": f"{prefix}9",
              "GlobalIPv6PrefixLen": 64, "IPv6Gateway": f"{prefix}1"}  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
    member = next(iter(json.loads(ok(net, "network", "inspect", "six"))[0]["Containers"].values()))
    assert member["IPv6Address"] == f"{prefix}9/64"
    assert inside(net, "box", "grep box /etc/hosts").split("\n")[:2] == [
        f"{found['IPAddress']}\tbox", f"{prefix}9\tbox"]  # fmt: skip
    route = inside(net, "box", "ip -6 route show default")
    assert f"via {prefix}1 dev eth0" in route


def test_ipv6_is_on_where_a_network_has_it_and_off_elsewhere(net: Daemon) -> None:
    """Recorded from dockerd 20.10; without any network that has it, it leaves ::1 out too, and later ones do not."""
    make(net, "six", 2)
    ok(net, "network", "create", "four")
    ok(net, "run", "-d", "--name", "six1", "--network", "six", *SLEEP)
    ok(net, "run", "-d", "--name", "four1", "--network", "four", *SLEEP)
    assert inside(net, "six1", SWITCHES).split() == ["1", "1", "0", "0"]
    assert inside(net, "four1", SWITCHES).split() == ["1", "1", "0", "1"]
    assert inside(net, "four1", "ip -6 addr show dev eth0") == ""
    assert "::1/128" in inside(net, "four1", "ip -6 addr show dev lo")
    switched = ok(net, "run", "--rm", "--network", "four", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "busybox",
                  "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6")  # fmt: skip
    assert switched == "0", "a setting of the user's own comes last"


def test_a_subnet_is_chosen_and_addresses_ranges_and_reserves_hold(net: Daemon) -> None:
    ok(net, "network", "create", "--ipv6", "own")
    own = next(pool for pool in json.loads(ok(net, "network", "inspect", "own"))[0]["IPAM"]["Config"]
               if ":" in pool["Subnet"])  # fmt: skip
    assert own["Subnet"].startswith("fd") and own["Gateway"].endswith("::1")
    prefix = make(net, "ranged", 3, "--gateway", f"{NUMBER}:3::fe", "--ip-range", f"{NUMBER}:3::f0/126",
                  "--aux-address", f"host={NUMBER}:3::f1")  # fmt: skip
    handed = []
    for number in range(3):
        ok(net, "run", "-d", "--name", f"r{number}", "--network", "ranged", *SLEEP)
        handed.append(endpoint(net, f"r{number}", "ranged")["GlobalIPv6Address"])
    assert handed == [f"{prefix}f0", f"{prefix}f2", f"{prefix}f3"]
    assert "no available addresses" in refused(net, "run", "--network", "ranged", "busybox")
    words = "Address already in use"
    assert words in refused(net, "run", "--network", "ranged", "--ip6", f"{prefix}fe", "busybox")
    assert "Pool overlaps with other one" in refused(net, "network", "create", "--ipv6", "--subnet",
                                                     f"{prefix}/80", "over")  # fmt: skip
    wrong = refused(net, "run", "--network", "ranged", "--ip6", "fd00::1", "busybox")
    assert "Invalid address fd00::1: It does not belong to any of this network's subnets" in wrong
    assert "user configured subnets" in refused(net, "run", "--network", "own", "--ip6", "fd00::5", "busybox")


def test_neighbours_talk_by_name_and_other_networks_do_not(net: Daemon) -> None:
    make(net, "six", 4)
    prefix = make(net, "far", 5)
    serving(net, "--network", "six", "--network-alias", "www")
    ok(net, "run", "-d", "--name", "box", "--network", "six", *SLEEP)
    ok(net, "run", "-d", "--name", "stranger", "--network", "far", *SLEEP)
    address = endpoint(net, "web", "six")["GlobalIPv6Address"]
    assert inside(net, "box", f"wget -qO- http://[{address}]:8080/") == "served\n"
    assert inside(net, "stranger", f"wget -T 1 -qO- http://[{address}]:8080/") == ""
    for name in ("web", "www"):
        assert address in inside(net, "box", f"nslookup -type=AAAA {name}. 127.0.0.11")
    assert "web.six" in inside(net, "box", f"nslookup {address} 127.0.0.11")
    missing = inside(net, "stranger", "nslookup -type=AAAA web. 127.0.0.11")
    assert address not in missing and prefix not in missing


def test_ports_are_published_on_both_and_move_with_the_way_out(net: Daemon) -> None:
    prefix = make(net, "six", 6)
    ok(net, "network", "create", "aaa")  # the first by name leads out
    serving(net, "--network", "six", "-p", "8080")
    places = json.loads(ok(net, "inspect", "web"))[0]["NetworkSettings"]["Ports"]["8080/tcp"]
    assert [place["HostIp"] for place in places] == ["0.0.0.0", "::"] and len({p["HostPort"] for p in places}) == 1
    port = places[0]["HostPort"]
    ok(net, "run", "-d", "--name", "client", *SLEEP)
    gateway = inside(net, "client", "ip route show default").split()[2]
    assert inside(net, "client", f"wget -qO- http://{gateway}:{port}/") == "served\n"
    ok(net, "run", "-d", "--name", "six2", "--network", "six", *SLEEP)
    assert inside(net, "six2", f"wget -qO- http://[{prefix}1]:{port}/") == "served\n"
    ok(net, "network", "connect", "aaa", "web")
    assert "dev eth0" in inside(net, "web", "ip -6 route show default"), "that of IPv6 has no other way"
    assert "dev eth1" in inside(net, "web", "ip route show default")
    assert inside(net, "client", f"wget -qO- http://{gateway}:{port}/") == "served\n"
    ok(net, "network", "disconnect", "six", "web")
    assert inside(net, "web", "ip -6 route show default") == ""
    assert endpoint(net, "web", "aaa")["GlobalIPv6Address"] == ""
    ok(net, "network", "connect", "--ip6", f"{prefix}77", "six", "web")
    assert endpoint(net, "web", "six")["GlobalIPv6Address"] == f"{prefix}77"
    assert f"{prefix}77\t" in inside(net, "web", "cat /etc/hosts")
    assert f"via {prefix}1" in inside(net, "web", "ip -6 route show default")


def test_a_port_of_ipv6_alone_needs_a_network_that_has_it(net: Daemon) -> None:
    words = refused(net, "run", "-p", "[::]:9:9", "busybox", "true")
    assert "the container has no IPv6 address on network bridge; create the network with --ipv6" in words
    assert "the kernel leads nothing from there" in refused(net, "run", "-p", "[::1]:9:9", "busybox", "true")


def test_after_kill_9_addresses_and_ports_are_as_they_were(net: Daemon) -> None:
    prefix = make(net, "six", 7)
    serving(net, "--network", "six", "-p", "8080")
    before = json.loads(ok(net, "inspect", "web"))[0]["NetworkSettings"]
    net.restart(9)
    assert json.loads(ok(net, "inspect", "web"))[0]["NetworkSettings"] == before
    port = before["Ports"]["8080/tcp"][1]["HostPort"]
    ok(net, "run", "-d", "--name", "next", "--network", "six", *SLEEP)
    assert endpoint(net, "next", "six")["GlobalIPv6Address"] == f"{prefix}3"
    assert inside(net, "next", f"wget -qO- http://[{prefix}1]:{port}/") == "served\n"
    assert f"{prefix}2" in inside(net, "next", "nslookup -type=AAAA web. 127.0.0.11")
