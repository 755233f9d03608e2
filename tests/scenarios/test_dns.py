"""The embedded DNS server, asked from inside containers by busybox's nslookup and, for TCP, by a process that enters.

The name servers of the outside are played by the test, on a loopback address of the host of its own.
"""

import contextlib
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from minidocker.linux import namespaces
from minidocker.linux.namespaces import CloneFlag

from .conftest import Daemon, make_daemon, wait_until
from .test_networks import SLEEP, inside, ok, own, short

PORT = 53


@pytest.fixture(scope="module")
def machine(image_root: Path) -> Iterator[Daemon]:
    yield from make_daemon(image_root, [])


@pytest.fixture
def net(machine: Daemon) -> Iterator[Daemon]:
    yield machine
    machine.remove_all()
    assert machine.cli("network", "prune", "-f").returncode == 0


class Outside(threading.Thread):
    """A name server of the outside: `known` names have an address, others do not exist; None: it is silent."""

    def __init__(self, known: dict[str, str] | None) -> None:
        super().__init__(daemon=True)
        self.known = known
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for number in range(2, 250):
            try:
                self.address = f"127.77.{os.getpid() % 250 + 1}.{number}"
                self.socket.bind((self.address, PORT))
                return
            except OSError:
                continue
        pytest.skip("port 53 of the host's loopback is taken")

    def run(self) -> None:
        while True:
            try:
                packet, sender = self.socket.recvfrom(4096)
            except OSError:
                return
            if not packet:  # of a shutdown
                return
            query = dns.message.from_wire(packet)
            name = query.question[0].name.to_text(omit_final_dot=True)
            self.asked.append(name)
            if self.known is None:
                continue
            answer = dns.message.make_response(query)
            if name not in self.known:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif query.question[0].rdtype == 1:
                answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", self.known[name]))
            self.socket.sendto(answer.to_wire(), sender)

    def end(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # an unconnected socket says so, and wakes the reader all the same
        self.join()
        self.socket.close()


@pytest.fixture
def outside() -> Iterator[Callable[[dict[str, str] | None], Outside]]:
    servers: list[Outside] = []

    def make(known: dict[str, str] | None) -> Outside:
        server = Outside(known)
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.end()


def looked_up(daemon: Daemon, name: str, question: str, kind: str = "a") -> list[str]:
    """The addresses (or names) that nslookup shows in the container."""
    shown = inside(daemon, name, f"nslookup {question}" if kind == "ptr" else f"nslookup -type={kind} {question}")
    lines = shown.split("\n\n", 1)[-1].splitlines()
    return [line.split()[-1] for line in lines if line.startswith("Address") or "name = " in line]


def within(daemon: Daemon, name: str, work: Callable[[], Any]) -> Any:
    """What `work` gives in a process that has entered the container's network."""
    pid = int(ok(daemon, "inspect", name, "-f", "{{.State.Pid}}"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(f"/proc/{pid}/ns/net") as namespace:
                namespaces.setns(namespace.fileno(), CloneFlag.NEWNET)
            outcome = work()
        except BaseException as error:
            outcome = error
        os.write(writing, pickle.dumps(outcome))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def test_names_aliases_short_ids_and_hostnames_are_resolved(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    named = ("--name", "server", "--hostname", "srvhost", "--network-alias", "www")
    ok(net, "run", "-d", *named, "--network", "lan", *SLEEP)
    ok(net, "run", "-d", "--name", "client", "--network", "lan", *SLEEP)
    assert inside(net, "client", "cat /etc/resolv.conf").endswith("nameserver 127.0.0.11\noptions ndots:0\n")
    address = own(net, "server", "lan")
    for name in ("server", "SERVER", "www", short(net, "server"), "srvhost", "server.lan"):
        assert looked_up(net, "client", name) == [address], name
    assert looked_up(net, "client", address, "ptr") == ["server.lan"]
    shown = inside(net, "client", "nslookup -type=aaaa server")
    assert "NXDOMAIN" not in shown and "can't find" not in shown  # no data: the name is there, without such an address
    ok(net, "rename", "server", "other")
    assert looked_up(net, "client", "other") == [address]
    assert looked_up(net, "client", "server") == []
    ok(net, "rm", "-f", "other")
    assert looked_up(net, "client", "www") == []


def test_names_are_those_of_the_containers_own_networks(net: Daemon) -> None:
    for name in ("left", "right"):
        ok(net, "network", "create", name)
    ok(net, "run", "-d", "--name", "inleft", "--network", "left", *SLEEP)
    ok(net, "run", "-d", "--name", "inright", "--network", "right", *SLEEP)
    assert looked_up(net, "inleft", "inright") == []
    ok(net, "network", "connect", "--alias", "guest", "left", "inright")
    assert looked_up(net, "inleft", "inright") == looked_up(net, "inleft", "guest") == [own(net, "inright", "left")]
    assert looked_up(net, "inright", "inleft") == [own(net, "inleft", "left")]
    ok(net, "network", "disconnect", "left", "inright")
    assert looked_up(net, "inleft", "inright") == []


def test_a_container_of_the_default_network_gets_names_when_it_is_connected(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    ok(net, "run", "-d", "--name", "server", "--network", "lan", *SLEEP)
    ok(net, "run", "-d", "--name", "plain", *SLEEP)
    assert "127.0.0.11" not in inside(net, "plain", "cat /etc/resolv.conf")
    ok(net, "network", "connect", "lan", "plain")
    assert looked_up(net, "plain", "server") == [own(net, "server", "lan")]
    assert looked_up(net, "server", "plain") == [own(net, "plain", "lan")]


def test_a_shared_alias_spreads_and_a_link_is_a_name_for_one_alone(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    for name in ("one", "two"):
        ok(net, "run", "-d", "--name", name, "--network", "lan", "--network-alias", "pool", *SLEEP)
    ok(net, "run", "-d", "--name", "client", "--network", "lan", "--link", "one:mine", *SLEEP)
    both = [own(net, name, "lan") for name in ("one", "two")]
    seen = [looked_up(net, "client", "pool") for _ in range(2)]
    assert sorted(seen) == [both, both[::-1]]
    assert looked_up(net, "client", "mine") == both[:1]
    assert looked_up(net, "two", "mine") == []


def test_other_names_are_asked_of_the_hosts_servers(net: Daemon, outside: Callable[..., Outside]) -> None:
    server = outside({"example.test": "192.0.2.7"})
    ok(net, "network", "create", "lan")
    ok(net, "run", "-d", "--name", "client", "--network", "lan", "--dns", server.address, *SLEEP)
    assert looked_up(net, "client", "example.test") == ["192.0.2.7"]
    assert "NXDOMAIN" in inside(net, "client", "nslookup missing.test")
    server.asked.clear()
    assert looked_up(net, "client", "client") == [own(net, "client", "lan")]
    assert server.asked == []  # nobody outside learns of names inside


def test_search_domains_and_ndots_are_the_clients(net: Daemon, outside: Callable[..., Outside]) -> None:
    server = outside({"printer.example.test": "192.0.2.8"})
    ok(net, "network", "create", "lan")
    options = ("--dns", server.address, "--dns-search", "example.test", "--dns-option", "ndots:2")
    ok(net, "run", "-d", "--name", "client", "--network", "lan", *options, *SLEEP)
    assert inside(net, "client", "cat /etc/resolv.conf") == (
        "search example.test\nnameserver 127.0.0.11\noptions ndots:2\n"
    )
    inside(net, "client", "nslookup -type=a printer")
    assert "printer" not in server.asked and set(server.asked) <= {"printer.example.test"}
    assert looked_up(net, "client", "printer.example.test") == ["192.0.2.8"]


def test_a_dead_server_becomes_servfail_and_the_next_one_answers(net: Daemon, outside: Callable[..., Outside]) -> None:
    silent, good = outside(None), outside({"example.test": "192.0.2.9"})
    ok(net, "network", "create", "lan")
    ok(net, "run", "-d", "--name", "client", "--network", "lan", "--dns", silent.address, *SLEEP)
    ok(net, "run", "-d", "--name", "lucky", "--network", "lan", "--dns", silent.address, "--dns", good.address, *SLEEP)

    def ask() -> tuple[int, list[str]]:
        query = dns.message.make_query("example.test", "A")
        answer = dns.query.udp(query, "127.0.0.11", timeout=9)
        return int(answer.rcode()), [item.to_text() for rrset in answer.answer for item in rrset]

    assert within(net, "client", ask) == (dns.rcode.SERVFAIL, [])
    assert within(net, "lucky", ask) == (dns.rcode.NOERROR, ["192.0.2.9"])


def test_an_internal_network_has_names_and_asks_nobody(net: Daemon, outside: Callable[..., Outside]) -> None:
    server = outside({"example.test": "192.0.2.7"})
    ok(net, "network", "create", "--internal", "closed")
    ok(net, "run", "-d", "--name", "inner", "--network", "closed", "--dns", server.address, *SLEEP)
    assert looked_up(net, "inner", "inner") == [own(net, "inner", "closed")]
    assert "SERVFAIL" in inside(net, "inner", "nslookup example.test")
    assert server.asked == []


def test_by_tcp_an_answer_comes_whole_that_udp_cuts(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    client = net.client()
    for number in range(40):  # 40 addresses are 640 bytes and more
        config = client.api.create_endpoint_config(aliases=["crowd"])
        networking = client.api.create_networking_config({"lan": config})
        box = client.api.create_container("busybox", ["sleep", "1000"], networking_config=networking,
                                          host_config=client.api.create_host_config(network_mode="lan"),
                                          name=f"crowd{number}")  # fmt: skip
        client.api.start(box["Id"])

    def ask() -> tuple[bool, int, int]:
        query = dns.message.make_query("crowd", "A", use_edns=False)
        cut = dns.query.udp(query, "127.0.0.11", timeout=5)
        whole = dns.query.tcp(query, "127.0.0.11", timeout=5)
        return bool(cut.flags & dns.flags.TC), len(cut.to_wire()), sum(len(rrset) for rrset in whole.answer)

    cut, size, count = within(net, "crowd0", ask)
    assert (cut, size <= 512, count) == (True, True, 40)


def test_port_53_is_free_for_a_server_of_the_containers_own(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    ok(net, "run", "-d", "--name", "server", "--network", "lan", *SLEEP)

    def serve() -> bytes:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", PORT))
        socket.create_server(("0.0.0.0", PORT))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.sendto(b"mine", ("127.0.0.1", PORT))
        return udp.recv(10)

    assert within(net, "server", serve) == b"mine"


def test_after_kill_9_the_next_daemon_answers_also_those_connected_later(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    ok(net, "run", "-d", "--name", "server", "--network", "lan", *SLEEP)
    ok(net, "run", "-d", "--name", "plain", *SLEEP)
    ok(net, "network", "connect", "lan", "plain")
    net.restart(signal.SIGKILL)
    wait_until(lambda: looked_up(net, "plain", "server") == [own(net, "server", "lan")])
    wait_until(lambda: looked_up(net, "server", "plain") == [own(net, "plain", "lan")])


def sockets(daemon: Daemon) -> set[str]:
    """The daemon's sockets; those of the embedded server hold their network namespaces."""
    assert daemon.process is not None
    found = set()
    for fd in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(fd))
    return {name for name in found if name.startswith("socket:")}


def test_sockets_go_when_pid_1_ends_and_so_does_the_namespace(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    before = sockets(net)
    ok(net, "run", "-d", "--name", "server", "--network", "lan", *SLEEP)
    made = sockets(net) - before
    assert len(made) >= 2
    host_side = {link for link in os.listdir("/sys/class/net") if link.startswith("veth")}
    endpoint = f"veth{own(net, 'server', 'lan', 'EndpointID')[:7]}"
    assert endpoint in host_side
    ok(net, "kill", "server")
    wait_until(lambda: not made & sockets(net))
    wait_until(lambda: endpoint not in os.listdir("/sys/class/net"))


def test_a_flood_of_nonsense_does_not_stop_the_daemon(net: Daemon) -> None:
    ok(net, "network", "create", "lan")
    ok(net, "run", "-d", "--name", "rude", "--network", "lan", *SLEEP)
    ok(net, "run", "-d", "--name", "polite", "--network", "lan", *SLEEP)

    def flood() -> int:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for number in range(20_000):
            client.sendto(os.urandom(number % 60), ("127.0.0.11", PORT))
        held = [socket.create_connection(("127.0.0.11", PORT)) for _ in range(100)]
        return len(held)

    assert within(net, "rude", flood) == 100
    assert looked_up(net, "polite", "rude") == [own(net, "rude", "lan")]
    wait_until(lambda: looked_up(net, "rude", "polite") == [own(net, "polite", "lan")])
