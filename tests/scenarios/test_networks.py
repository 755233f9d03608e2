"""User-defined networks through the socket: what the kernel shows, inside containers and on the host."""

import itertools
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from minidocker.network.host import names

from ..docker_oracle import recent_client
from .conftest import Daemon, make_daemon, wait_until

SLEEP = ("busybox", "sleep", "1000")
SERVE = "mkdir -p /w && echo served by $NAME >/w/index.html && exec httpd -f -p 8080 -h /w"
_subnets = itertools.count(os.getpid() % 200 * 256)


def subnet() -> str:
    """A /24 of its own for each test: "10.211.7.0/24"; the first three numbers with [:-4]."""
    number = next(_subnets)
    return f"10.{200 + number // 256 % 50}.{number % 256}.0/24"


@pytest.fixture(scope="module")
def machine(image_root: Path) -> Iterator[Daemon]:
    yield from make_daemon(image_root, [])


@pytest.fixture
def net(machine: Daemon) -> Iterator[Daemon]:
    """The module's daemon with the default bridge; containers and networks go after each test."""
    yield machine
    if machine.process is None:
        machine.start()
    machine.remove_all()
    assert machine.cli("network", "prune", "-f").returncode == 0
    assert bridges(machine) <= {names(machine.exec_root).bridge}


def bridges(daemon: Daemon) -> set[str]:
    """The bridges on the host that carry the daemon's mark."""
    mark = names(daemon.exec_root).table
    shown = subprocess.run(["ip", "-d", "-j", "link", "show", "type", "bridge"], capture_output=True, text=True)
    return {link["ifname"] for link in json.loads(shown.stdout or "[]") if link.get("ifalias") == mark}


def ok(daemon: Daemon, *words: str) -> str:
    done = daemon.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(daemon: Daemon, *words: str) -> str:
    done = daemon.cli(*words)
    assert done.returncode != 0, done.stdout
    return done.stderr


def inside(daemon: Daemon, name: str, command: str) -> str:
    return daemon.cli("exec", name, "sh", "-c", command).stdout


def addresses(daemon: Daemon, name: str) -> dict[str, str]:
    """Interface -> IPv4 address with prefix, as the kernel has them in the container."""
    lines = inside(daemon, name, "ip -4 -o addr").splitlines()
    return {line.split()[1]: line.split()[3] for line in lines if " lo " not in line}


def default_route(daemon: Daemon, name: str) -> str:
    """Gateway and interface of the default route in the container; "" if there is none."""
    lines = [line.split() for line in inside(daemon, name, "ip route").splitlines() if line.startswith("default")]
    return f"{lines[0][2]} {lines[0][4]}" if lines else ""


def reaches(daemon: Daemon, name: str, address: str) -> bool:
    return daemon.cli("exec", name, "ping", "-c", "1", "-W", "1", address).returncode == 0


def fetched(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
            return str(response.read().decode().strip())
    except OSError:
        return ""


def own(daemon: Daemon, name: str, network: str, what: str = "IPAddress") -> str:
    return ok(daemon, "inspect", name, "-f", f'{{{{(index .NetworkSettings.Networks "{network}").{what}}}}}')


# -- the networks themselves --


def test_a_network_is_a_bridge_with_the_gateway_as_its_address(net: Daemon) -> None:
    lan = subnet()
    id = ok(net, "network", "create", "--subnet", lan, "--gateway", f"{lan[:-4]}9", "--label", "a=b",
            "-o", "com.docker.network.driver.mtu=1400", "front")  # fmt: skip
    shown = subprocess.run(["ip", "-o", "addr", "show", f"br-{id[:12]}"], capture_output=True, text=True).stdout
    assert f"inet {lan[:-4]}9/24" in shown
    document = json.loads(ok(net, "network", "inspect", "front"))[0]
    assert document["IPAM"]["Config"] == [{"Subnet": lan, "Gateway": f"{lan[:-4]}9"}]
    assert (document["Labels"], document["Containers"]) == ({"a": "b"}, {})
    ok(net, "run", "-d", "--name", "box", "--network", "front", *SLEEP)
    assert addresses(net, "box") == {"eth0": f"{lan[:-4]}1/24"}
    assert default_route(net, "box") == f"{lan[:-4]}9 eth0"
    assert "mtu 1400" in inside(net, "box", "ip link show eth0")
    (member,) = json.loads(ok(net, "network", "inspect", "front"))[0]["Containers"].values()
    assert (member["Name"], member["IPv4Address"]) == ("box", f"{lan[:-4]}1/24")
    assert "has active endpoints" in refused(net, "network", "rm", "front")
    ok(net, "rm", "-f", "box")
    ok(net, "network", "rm", id[:10])
    assert not subprocess.run(["ip", "link", "show", f"br-{id[:12]}"], capture_output=True).stdout


def test_addresses_come_from_the_range_and_never_are_the_gateway_or_reserved(net: Daemon) -> None:
    lan = subnet()
    base = lan[:-4]
    ok(net, "network", "create", "--subnet", lan, "--gateway", f"{base}9", "--ip-range", f"{base}8/29",
       "--aux-address", f"router={base}10", "tight")  # fmt: skip
    got = []
    for number in range(6):  # .8 .11 .12 .13 .14 .15: without .9 and .10
        ok(net, "run", "-d", "--name", f"c{number}", "--network", "tight", *SLEEP)
        got.append(own(net, f"c{number}", "tight").removeprefix(base))
    assert got == ["8", "11", "12", "13", "14", "15"]
    assert "no available addresses" in refused(net, "run", "--network", "tight", "busybox", "true")
    ok(net, "rm", "-f", "c3")
    ok(net, "run", "-d", "--name", "again", "--network", "tight", *SLEEP)
    assert own(net, "again", "tight") == f"{base}13"
    ok(net, "run", "-d", "--name", "fixed", "--network", "tight", "--ip", f"{base}77", *SLEEP)
    assert addresses(net, "fixed") == {"eth0": f"{base}77/24"}
    assert "Address already in use" in refused(net, "run", "--network", "tight", "--ip", f"{base}77", "busybox", "true")
    assert "Address already in use" in refused(net, "run", "--network", "tight", "--ip", f"{base}9", "busybox", "true")


@recent_client
def test_fixed_addresses_and_aliases_need_a_network_that_has_them(net: Daemon) -> None:
    ok(net, "network", "create", "plain")
    assert "user configured subnets" in refused(net, "run", "--network", "plain", "--ip", "10.1.1.1", "busybox", "true")
    assert "user defined networks only" in refused(net, "run", "--ip", "10.1.1.1", "busybox", "true")
    ok(net, "create", "--name", "stopped", *SLEEP)
    assert "network-scoped alias" in refused(net, "network", "connect", "--alias", "cx", "bridge", "stopped")
    assert "network nosuch not found" in refused(net, "run", "--network", "nosuch", "busybox", "true")


def test_an_interface_has_the_further_addresses_asked_for_and_options_are_shown(net: Daemon) -> None:
    client = net.client("1.44")
    api = client.api
    place = api.create_endpoint_config(link_local_ips=["169.254.8.8"], driver_opt={"com.example.colour": "blue"})
    networking = api.create_networking_config({"bridge": place})
    host = api.create_host_config(network_mode="bridge")
    made = api.create_container("busybox", ["sleep", "1000"], name="ll", networking_config=networking, host_config=host)
    api.start(made["Id"])
    shown = api.inspect_container("ll")["NetworkSettings"]["Networks"]["bridge"]
    assert shown["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}
    assert shown["DriverOpts"] == {"com.example.colour": "blue"}
    lines = inside(net, "ll", "ip -4 -o addr show dev eth0").splitlines()
    assert [line.split()[3] for line in lines] == [f"{shown['IPAddress']}/16", "169.254.8.8/16"]
    client.close()


def test_the_mac_address_is_the_one_asked_for(net: Daemon) -> None:
    ok(net, "network", "create", "plain")
    ok(net, "run", "-d", "--name", "box", "--network", "plain", "--mac-address", "02:42:aa:bb:cc:dd", *SLEEP)
    assert "02:42:aa:bb:cc:dd" in inside(net, "box", "ip link show eth0")


def test_names_and_subnets_are_taken_once_and_filters_choose(net: Daemon) -> None:
    lan = subnet()
    ok(net, "network", "create", "--subnet", lan, "--label", "tier=1", "one")
    assert "network with name one already exists" in refused(net, "network", "create", "one")
    assert "Pool overlaps" in refused(net, "network", "create", "--subnet", f"{lan[:-4]}128/25", "two")
    assert "only one instance" in refused(net, "network", "create", "-d", "host", "two")
    ok(net, "network", "create", "two")
    ok(net, "run", "-d", "--name", "box", "--network", "two", *SLEEP)

    def listed(*filters: str) -> str:
        words = [word for text in filters for word in ("--filter", text)]
        return " ".join(sorted(ok(net, "network", "ls", *words, "--format", "{{.Name}}").split()))

    assert listed() == "bridge host none one two"
    assert (listed("label=tier=1"), listed("type=custom"), listed("driver=null")) == ("one", "one two", "none")
    assert (listed("name=tw"), listed("dangling=true"), listed("scope=swarm")) == ("two", "one", "")
    assert ok(net, "ps", "-q", "--filter", "network=two") == ok(net, "ps", "-q", "--filter", "name=box")
    assert ok(net, "network", "prune", "-f", "--filter", "label!=tier") == ""
    assert "one" in ok(net, "network", "prune", "-f")
    assert listed("type=custom") == "two"


def test_options_of_the_bridge_do_what_they_say(net: Daemon) -> None:
    device = f"md-{os.getpid() % 100000}"
    option = "com.docker.network.bridge."
    ok(net, "network", "create", "-o", f"{option}name={device}", "-o", f"{option}host_binding_ipv4=127.0.0.1",
       "-o", "com.docker.network.container_iface_prefix=lan", "named")  # fmt: skip
    assert device in bridges(net)
    ok(net, "run", "-d", "--name", "web", "-e", "NAME=web", "-p", "8080", "--network", "named", "busybox", "sh", "-c",
       SERVE)  # fmt: skip
    (place,) = json.loads(ok(net, "inspect", "web"))[0]["NetworkSettings"]["Ports"]["8080/tcp"]
    assert place["HostIp"] == "127.0.0.1"
    wait_until(lambda: inside(net, "web", "netstat -ltn | grep :8080"))
    with urllib.request.urlopen(f"http://127.0.0.1:{place['HostPort']}/", timeout=10) as answer:
        assert answer.read() == b"served by web\n"
    gateway = inside(net, "web", "ip route show default").split()[2]
    assert "refused" in net.cli("run", "--rm", "--network", "named", "busybox", "wget", "-qO-",
                                f"http://{gateway}:{place['HostPort']}/").stderr  # fmt: skip
    assert "inet " in inside(net, "web", "ip addr show dev lan0")
    ok(net, "rm", "-f", "web")
    ok(net, "network", "rm", "named")
    assert device not in bridges(net)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-d", "weave"], 'plugin "weave" not found'),
        (["-d", "macvlan"], "macvlan networks are not supported"),
        (["-d", "ipvlan"], "ipvlan networks are not supported"),
        (["-d", "overlay"], "This node is not a swarm manager"),
        (["-d", "null"], 'only one instance of "null" network is allowed'),
        (["--ingress"], "Ingress network can only be global scope network"),
        (["--scope", "swarm"], "cannot create a swarm scoped network when swarm is not active"),
        (["--config-only"], "config-only"),
        (["--ipam-driver", "dhcp"], 'plugin "dhcp" not found'),
        (["--subnet", "10.250.0.0/24", "--subnet", "10.251.0.0/24"], "bridge driver doesn't support multiple subnets"),
    ],
)
def test_networks_of_other_kinds_are_refused_with_the_reason(net: Daemon, words: list[str], reason: str) -> None:
    assert reason in refused(net, "network", "create", *words, "other")
    assert "other" not in ok(net, "network", "ls", "--format", "{{.Name}}").split()


def test_an_exposed_sctp_port_is_shown_and_published(net: Daemon) -> None:
    ok(net, "run", "-d", "--name", "box", "--expose", "90/sctp", "-p", "9:80/sctp", *SLEEP)
    document = json.loads(ok(net, "inspect", "box"))[0]
    assert set(document["Config"]["ExposedPorts"]) == {"90/sctp", "80/sctp"}
    ports = document["NetworkSettings"]["Ports"]
    assert (ports["90/sctp"], ports["80/sctp"]) == (None, [{"HostIp": "0.0.0.0", "HostPort": "9"}])
    assert "already allocated" in refused(net, "run", "-d", "-p", "9:81/sctp", *SLEEP)
    table = subprocess.run(["nft", "list", "table", "ip", names(net.exec_root).table], capture_output=True, text=True)
    assert "sctp . 9 : " in table.stdout


# -- isolation --


def test_two_networks_cannot_reach_each_other_and_one_can(net: Daemon) -> None:
    for name in ("left", "right"):
        ok(net, "network", "create", name)
    ok(net, "run", "-d", "--name", "ca", "--network", "left", *SLEEP)
    ok(net, "run", "-d", "--name", "cb", "--network", "left", *SLEEP)
    ok(net, "run", "-d", "--name", "cc", "--network", "right", *SLEEP)
    ok(net, "run", "-d", "--name", "cd", *SLEEP)
    assert reaches(net, "ca", own(net, "cb", "left"))
    assert not reaches(net, "ca", own(net, "cc", "right"))
    assert not reaches(net, "cd", own(net, "cc", "right"))
    assert not reaches(net, "cc", own(net, "cd", "bridge"))
    ok(net, "network", "connect", "right", "ca")
    assert reaches(net, "ca", own(net, "cc", "right"))
    ok(net, "network", "disconnect", "right", "ca")
    assert not reaches(net, "ca", own(net, "cc", "right"))


def test_an_internal_network_has_no_way_out(net: Daemon) -> None:
    ok(net, "network", "create", "--internal", "closed")
    ok(net, "run", "-d", "--name", "ca", "--network", "closed", *SLEEP)
    ok(net, "run", "-d", "--name", "cb", "--network", "closed", *SLEEP)
    ok(net, "run", "-d", "--name", "out", *SLEEP)
    assert default_route(net, "ca") == ""
    assert reaches(net, "ca", own(net, "cb", "closed"))
    outside = own(net, "out", "bridge")
    gateway = json.loads(ok(net, "network", "inspect", "closed"))[0]["IPAM"]["Config"][0]["Gateway"]
    ok(net, "exec", "--privileged", "ca", "ip", "route", "add", "default", "via", gateway)
    assert not reaches(net, "ca", outside)


def test_without_icc_neighbours_do_not_talk(net: Daemon) -> None:
    ok(net, "network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    ok(net, "run", "-d", "--name", "ca", "--network", "quiet", *SLEEP)
    ok(net, "run", "-d", "--name", "cb", "--network", "quiet", *SLEEP)
    assert not reaches(net, "ca", own(net, "cb", "quiet"))


# -- connect and disconnect --


def test_connect_and_disconnect_change_interfaces_routes_and_hosts_of_a_living_container(net: Daemon) -> None:
    left, right = subnet(), subnet()
    ok(net, "network", "create", "--subnet", left, "m-left")
    ok(net, "network", "create", "--subnet", right, "a-right")
    ok(net, "run", "-d", "--name", "box", "--hostname", "boxhost", "--network", "m-left", *SLEEP)
    ok(net, "network", "connect", "--ip", f"{right[:-4]}50", "a-right", "box")
    assert addresses(net, "box") == {"eth0": f"{left[:-4]}2/24", "eth1": f"{right[:-4]}50/24"}
    assert default_route(net, "box") == f"{right[:-4]}1 eth1"  # the first by name
    hosts = inside(net, "box", "cat /etc/hosts")
    assert f"{left[:-4]}2\tboxhost" in hosts and f"{right[:-4]}50\tboxhost" in hosts
    assert "already exists in network a-right" in refused(net, "network", "connect", "a-right", "box")
    ok(net, "network", "disconnect", "a-right", "box")
    assert addresses(net, "box") == {"eth0": f"{left[:-4]}2/24"}
    assert default_route(net, "box") == f"{left[:-4]}1 eth0"
    assert f"{right[:-4]}50" not in inside(net, "box", "cat /etc/hosts")
    assert "is not connected to network a-right" in refused(net, "network", "disconnect", "a-right", "box")
    ok(net, "network", "disconnect", "m-left", "box")
    assert addresses(net, "box") == {} and default_route(net, "box") == ""
    assert json.loads(ok(net, "inspect", "box"))[0]["NetworkSettings"]["Networks"] == {}
    ok(net, "network", "connect", "m-left", "box")
    assert addresses(net, "box") == {"eth0": f"{left[:-4]}2/24"}
    ok(net, "restart", "-t", "0", "box")
    assert addresses(net, "box") == {"eth0": f"{left[:-4]}2/24"}


@recent_client
def test_a_container_starts_on_several_networks_and_a_stopped_one_remembers(net: Daemon) -> None:
    for name in ("b1", "b2", "b3"):
        ok(net, "network", "create", name)
    ok(net, "create", "--name", "box", "--network", "b2", "--network", "b1", *SLEEP)
    ok(net, "network", "connect", "b3", "box")
    ok(net, "network", "disconnect", "b1", "box")
    ok(net, "start", "box")
    assert addresses(net, "box").keys() == {"eth0", "eth1"}
    assert addresses(net, "box")["eth0"].split("/")[0] == own(net, "box", "b2")
    assert addresses(net, "box")["eth1"].split("/")[0] == own(net, "box", "b3")


def test_host_none_and_shared_networks_are_not_mixed_with_others(net: Daemon) -> None:
    ok(net, "network", "create", "plain")
    for name, mode in (("ch", "host"), ("cn", "none"), ("cd", "bridge")):
        ok(net, "run", "-d", "--name", name, "--network", mode, *SLEEP)
    ok(net, "run", "-d", "--name", "cs", "--network", "container:cd", *SLEEP)
    for name in ("ch", "cs"):
        assert "sharing network namespace" in refused(net, "network", "connect", "plain", name)
    assert "private (none) mode" in refused(net, "network", "connect", "plain", "cn")
    assert "private (none) mode" in refused(net, "network", "connect", "none", "cd")
    assert "host network" in refused(net, "network", "disconnect", "host", "ch")
    ok(net, "network", "disconnect", "none", "cn")
    ok(net, "network", "connect", "plain", "cn")
    assert addresses(net, "cn").keys() == {"eth0"}


def test_who_shares_a_network_shares_its_files(net: Daemon) -> None:
    ok(net, "network", "create", "plain")
    ok(net, "run", "-d", "--name", "owner", "--hostname", "ownerhost", "--network", "plain", *SLEEP)
    ok(net, "run", "-d", "--name", "guest", "--network", "container:owner", *SLEEP)
    for path in ("/etc/hosts", "/etc/resolv.conf"):
        assert inside(net, "guest", f"cat {path}") == inside(net, "owner", f"cat {path}") != ""


def test_published_ports_move_with_the_way_out(net: Daemon) -> None:
    for name in ("p1", "p2"):
        ok(net, "network", "create", name)
    ok(net, "network", "create", "--internal", "p0")
    ok(net, "run", "-d", "--name", "web", "-e", "NAME=web", "--network", "p2", "-p", "127.0.0.1::8080",
       "busybox", "sh", "-c", SERVE)  # fmt: skip
    port = int(ok(net, "port", "web", "8080").rpartition(":")[2])
    wait_until(lambda: fetched(port) == "served by web")
    ok(net, "network", "connect", "p1", "web")  # leads out from now on
    ok(net, "network", "connect", "p0", "web")
    assert fetched(port) == "served by web"
    ok(net, "network", "disconnect", "p1", "web")
    assert fetched(port) == "served by web"
    net.restart(signal.SIGKILL)
    assert fetched(port) == "served by web"
    ok(net, "network", "disconnect", "p2", "web")
    assert (fetched(port), ok(net, "port", "web")) == ("", "")
    ok(net, "network", "connect", "p2", "web")
    again = int(ok(net, "port", "web", "8080").rpartition(":")[2])
    assert fetched(again) == "served by web"
    ok(net, "rm", "-f", "web")
    assert fetched(again) == ""


def test_a_connect_that_fails_leaves_the_container_as_it_was(net: Daemon) -> None:
    lan = subnet()
    ok(net, "network", "create", "--subnet", lan, "a-taken")
    ok(net, "network", "create", "m-home")
    ok(net, "run", "-d", "--name", "first", "--network", "a-taken", "--ip", f"{lan[:-4]}7", *SLEEP)
    ok(net, "run", "-d", "--name", "box", "--network", "m-home", *SLEEP)
    before = (addresses(net, "box"), default_route(net, "box"))
    assert "Address already in use" in refused(net, "network", "connect", "--ip", f"{lan[:-4]}7", "a-taken", "box")
    assert (addresses(net, "box"), default_route(net, "box")) == before
    assert list(json.loads(ok(net, "inspect", "box"))[0]["NetworkSettings"]["Networks"]) == ["m-home"]


# -- crashes, events, shapes --


def test_after_kill_9_everything_is_there_again_and_nothing_more(net: Daemon) -> None:
    lan = subnet()
    ok(net, "network", "create", "--subnet", lan, "kept")
    ok(net, "network", "create", "empty")
    ok(net, "run", "-d", "--name", "ca", "--network", "kept", *SLEEP)
    ok(net, "run", "-d", "--name", "cb", "--network", "kept", *SLEEP)
    ok(net, "network", "connect", "empty", "cb")
    documents = [json.loads(ok(net, "inspect", name))[0]["NetworkSettings"] for name in ("ca", "cb")]
    devices = bridges(net)
    networks = json.loads(ok(net, "network", "inspect", "kept", "empty"))
    net.restart(signal.SIGKILL)
    assert [json.loads(ok(net, "inspect", name))[0]["NetworkSettings"] for name in ("ca", "cb")] == documents
    assert (bridges(net), json.loads(ok(net, "network", "inspect", "kept", "empty"))) == (devices, networks)
    assert reaches(net, "ca", own(net, "cb", "kept"))
    ok(net, "run", "-d", "--name", "cc", "--network", "kept", *SLEEP)
    assert own(net, "cc", "kept") == f"{lan[:-4]}4"  # .2 and .3 live on
    ok(net, "network", "disconnect", "empty", "cb")
    assert addresses(net, "cb").keys() == {"eth0"}


def test_a_bridge_that_a_crash_left_without_a_record_is_swept_and_others_stay(net: Daemon) -> None:
    id = ok(net, "network", "create", "gone")
    mark = names(net.exec_root).table
    assert net.process is not None
    net.process.kill()
    net.process.wait()
    (net.data_root / "networks" / f"{id}.json").unlink()
    foreign = f"xx{os.getpid() % 10**6}"
    subprocess.run(["ip", "link", "add", foreign, "type", "bridge"], check=True)
    try:
        net.start()
        assert f"br-{id[:12]}" not in bridges(net)
        assert subprocess.run(["ip", "link", "show", foreign], capture_output=True).returncode == 0
        rules = subprocess.run(["nft", "list", "table", "ip", mark], capture_output=True, text=True).stdout
        assert f"br-{id[:12]}" not in rules
    finally:
        subprocess.run(["ip", "link", "del", foreign], check=True)


def test_networks_survive_a_daemon_that_ends_in_peace_while_the_host_is_clean(net: Daemon) -> None:
    lan = subnet()
    ok(net, "network", "create", "--subnet", lan, "kept")
    ok(net, "create", "--name", "box", "--network", "kept", *SLEEP)
    net.end()
    assert bridges(net) == set()
    net.start()
    ok(net, "start", "box")
    assert addresses(net, "box") == {"eth0": f"{lan[:-4]}2/24"}


def test_events_tell_who_came_and_left(net: Daemon) -> None:
    client = net.client()
    seen = client.events(decode=True, filters={"type": "network"})
    network = client.networks.create("told")
    box = client.containers.run(*SLEEP[:1], list(SLEEP[1:]), detach=True, network="told")
    client.networks.get("bridge").connect(box)
    client.networks.get("bridge").disconnect(box)
    box.remove(force=True)
    network.remove()
    events = [next(seen) for _ in range(6)]
    shown = [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in events]
    assert shown == [("create", "told"), ("connect", "told"), ("connect", "bridge"), ("disconnect", "bridge"),
                     ("disconnect", "told"), ("destroy", "told")]  # fmt: skip
    assert {event["Actor"]["Attributes"]["type"] for event in events} == {"bridge"}
    assert events[1]["Actor"]["Attributes"]["container"] == box.id
    assert events[0]["Actor"]["ID"] == network.id
    seen.close()


def test_shapes_follow_the_version(net: Daemon) -> None:
    ok(net, "network", "create", "shape")
    named = ("--name", "box", "--hostname", "boxhost", "--network-alias", "web")
    ok(net, "run", "-d", *named, "--network", "shape", *SLEEP)

    def shown(version: str) -> dict[str, Any]:
        document = docker.APIClient(base_url=net.url, version=version).inspect_container("box")
        endpoint: dict[str, Any] = document["NetworkSettings"]["Networks"]["shape"]
        return endpoint

    old, new = shown("1.41"), shown("1.44")
    assert old["Aliases"] == new["Aliases"] == ["web", short(net, "box")]
    assert "DNSNames" not in old
    assert new["DNSNames"] == ["box", "web", short(net, "box"), "boxhost"]
    for version, told in (("1.27", True), ("1.28", False)):
        listed = docker.APIClient(base_url=net.url, version=version).networks(names=["shape"])[0]
        assert bool(listed["Containers"]) is told
    with pytest.raises(docker.errors.APIError, match="cannot be connected to network endpoints"):
        api = docker.APIClient(base_url=net.url, version="1.41")
        both = api.create_networking_config({name: api.create_endpoint_config() for name in ("shape", "bridge")})
        api.create_container("busybox", "true", networking_config=both)


def short(daemon: Daemon, name: str) -> str:
    return ok(daemon, "inspect", name, "-f", "{{.Id}}")[:12]


# -- legacy links --


def test_a_legacy_link_is_a_line_in_hosts_and_words_in_the_environment(net: Daemon) -> None:
    ok(net, "run", "-d", "--name", "db", "--expose", "5432", "-e", "POSTGRES=yes", *SLEEP)
    ok(net, "run", "-d", "--name", "app", "--link", "db:store", *SLEEP)
    address = own(net, "db", "bridge")
    assert f"{address}\tstore {short(net, 'db')} db" in inside(net, "app", "cat /etc/hosts")
    environment = inside(net, "app", "cat /proc/1/environ | tr '\\0' '\\n'").splitlines()
    assert {f"STORE_PORT=tcp://{address}:5432", "STORE_NAME=/app/store", "STORE_ENV_POSTGRES=yes"} <= set(environment)
    assert f"STORE_PORT_5432_TCP_ADDR={address}" in inside(net, "app", "env").splitlines()
    assert json.loads(ok(net, "inspect", "app"))[0]["HostConfig"]["Links"] == ["/db:/app/store"]
    ok(net, "stop", "-t", "0", "db")
    assert "Cannot link to a non running container: /db AS /late/x" in refused(
        net, "run", "--name", "late", "--link", "db:x", "busybox", "true"
    )
    ok(net, "run", "-d", "--name", "taker", *SLEEP)  # takes the address that db had
    ok(net, "start", "db")
    moved = own(net, "db", "bridge")
    assert moved != address
    assert f"{moved}\tstore" in inside(net, "app", "cat /etc/hosts")
    assert "could not get container for nosuch" in refused(net, "run", "--link", "nosuch:x", "busybox", "true")


def test_a_legacy_link_is_a_second_name_that_can_be_removed(net: Daemon) -> None:
    ok(net, "run", "-d", "--name", "db", *SLEEP)
    ok(net, "run", "-d", "--name", "app", "--link", "db:store", *SLEEP)
    api = net.client().api
    names = {name for one in api.containers() for name in one["Names"]}
    assert names == {"/db", "/app", "/app/store"}
    assert api.inspect_container("app/store")["Name"] == "/db"
    assert "store" in inside(net, "app", "cat /etc/hosts")
    for path in ("app", "app/nosuch", "nosuch/store"):
        with pytest.raises(docker.errors.APIError):
            api.remove_container(path, link=True)
    api.remove_container("app/store", link=True)
    assert {name for one in api.containers() for name in one["Names"]} == {"/db", "/app"}
    assert "store" not in inside(net, "app", "cat /etc/hosts")
    assert api.inspect_container("app")["HostConfig"]["Links"] is None
    api.close()


def test_a_container_starts_again_when_one_that_it_had_a_link_to_is_gone(net: Daemon) -> None:
    ok(net, "run", "-d", "--name", "db", *SLEEP)
    ok(net, "run", "-d", "--name", "app", "--link", "db:store", *SLEEP)
    ok(net, "rm", "-f", "db")
    ok(net, "restart", "-t", "0", "app")
    assert "store" not in inside(net, "app", "cat /etc/hosts")
