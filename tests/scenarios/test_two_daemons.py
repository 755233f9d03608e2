"""Two daemons with default flags but their own roots on one machine, which is a network namespace here."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

import minidocker

from .conftest import Daemon, wait_until
from .machine import Machine


@dataclass
class Neighbour(Daemon):
    """A daemon that is given its roots and nothing else."""

    machine: Machine | None = None

    @property
    def socket(self) -> Path:
        return self.exec_root / "minidocker.sock"

    def command(self, *more: str) -> list[str]:
        assert self.machine is not None
        roots = ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root)]
        return [*self.machine.prefix, sys.executable, "-m", "minidocker.daemon.main", *roots, *more]

    @property
    def mark(self) -> str:
        """Its nftables table."""
        from minidocker.network.host import names

        return names(self.exec_root).table

    @property
    def bridge(self) -> str:
        return self.mark.removeprefix("minidocker-")

    def address(self, container: str) -> str:
        return self.cli("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container).stdout.strip()


@dataclass(frozen=True)
class Pair:
    machine: Machine
    first: Neighbour
    second: Neighbour

    def __iter__(self) -> Iterator[Neighbour]:
        yield from (self.first, self.second)


@pytest.fixture
def pair(image_root: Path) -> Iterator[Pair]:
    machine = Machine()
    daemons = []
    for _ in range(2):
        root = Path(tempfile.mkdtemp(prefix="md-pair-", dir="/tmp"))
        shutil.copytree(image_root / "data", root / "data", symlinks=True)
        daemons.append(Neighbour(root, machine=machine))
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Neighbour.start, daemons))  # at the same moment: both look for a free subnet
        yield Pair(machine, *daemons)
    finally:
        for daemon in daemons:
            if daemon.process is None:
                daemon.start()
            daemon.remove_all()
            daemon.end()
            wait_until(lambda daemon=daemon: not daemon.leftovers())  # type: ignore[misc]
            shutil.rmtree(daemon.root)
        machine.end()


SERVE = ("sh", "-c", 'while true; do echo "$0" | nc -l -p 80; done')


def test_nothing_of_the_one_is_the_others(pair: Pair) -> None:
    for daemon in pair:
        done = daemon.cli("run", "-d", "--name", "web", "busybox", "sleep", "100")
        assert done.returncode == 0, done.stderr
    bridges = pair.machine.bridges()
    assert {pair.first.bridge, pair.second.bridge} == set(bridges)
    first, second = bridges.values()
    assert not first.network.overlaps(second.network)
    assert {pair.first.mark, pair.second.mark} == set(pair.machine.tables())
    for daemon in pair:
        table = pair.machine.run("nft", "list", "table", "ip", daemon.mark)
        other = pair.second if daemon is pair.first else pair.first
        assert daemon.bridge in table and other.bridge not in table
        rules = pair.machine.marked(daemon.mark)
        if shutil.which("iptables-legacy"):
            assert len(rules) == 2 and all(daemon.bridge in rule for rule in rules)
    ids = [daemon.cli("ps", "-q", "--no-trunc").stdout.split() for daemon in pair]
    assert [len(one) for one in ids] == [1, 1] and ids[0] != ids[1]
    groups = [Path(f"/proc/{daemon.cli('inspect', '-f', '{{.State.Pid}}', 'web').stdout.strip()}/cgroup").read_text()
              for daemon in pair]  # fmt: skip
    parents = [{line.split(":")[2].rpartition("/")[0] for line in text.splitlines() if one[0] in line}
               for text, one in zip(groups, ids, strict=True)]  # fmt: skip
    assert all(len(parent) == 1 for parent in parents) and parents[0] != parents[1]
    for daemon in pair:
        assert parents[list(pair).index(daemon)] == {f"/minidocker-{daemon.bridge.rpartition('-')[2]}"}


def test_a_host_port_belongs_to_the_first_who_asks(pair: Pair) -> None:
    for daemon, name in zip(pair, ("first", "second"), strict=True):
        port = ["-p", "8080:80"] if daemon is pair.first else ["-p", "8081:80"]
        assert daemon.cli("run", "-d", "--name", "web", *port, "busybox", *SERVE, name).returncode == 0
    refused = pair.second.cli("run", "-d", "-p", "8080:80", "busybox", *SERVE, "thief")
    assert refused.returncode == 125
    assert "port is already allocated" in refused.stderr
    wait_until(lambda: pair.machine.fetch("127.0.0.1", 8080) == "first\n")
    wait_until(lambda: pair.machine.fetch("127.0.0.1", 8081) == "second\n")


def test_containers_of_two_daemons_meet_at_published_ports_only(pair: Pair) -> None:
    """Both daemons' accept rules are needed here: the machine's old iptables drop forwarded packets."""
    pair.second.cli("run", "-d", "--name", "web", "-p", "8081:80", "busybox", *SERVE, "second")
    direct = pair.second.address("web")
    gateway = str(pair.machine.bridges()[pair.second.bridge].ip)
    wait_until(lambda: pair.machine.fetch(gateway, 8081) == "second\n")

    def ask(address: str, port: int) -> str:
        return pair.first.cli("run", "--rm", "busybox", "nc", "-w", "2", address, str(port)).stdout

    assert ask(gateway, 8081) == "second\n"
    assert ask(direct, 80) == ""


def test_the_end_of_the_one_leaves_the_other_whole(pair: Pair) -> None:
    for daemon in pair:
        daemon.cli("run", "-d", "--name", "web", "-p", "0:80", "busybox", *SERVE, "still here")
    pair.first.remove_all()
    pair.first.end()
    assert set(pair.machine.bridges()) == {pair.second.bridge}
    assert pair.machine.tables() == [pair.second.mark]
    assert not pair.machine.marked(pair.first.mark)
    assert bool(pair.machine.marked(pair.second.mark)) == bool(shutil.which("iptables-legacy"))
    port = int(pair.second.cli("port", "web", "80").stdout.rpartition(":")[2])
    wait_until(lambda: pair.machine.fetch("127.0.0.1", port) == "still here\n")


def test_a_killed_daemon_finds_its_own_containers_and_not_its_neighbours(pair: Pair) -> None:
    for daemon, name in zip(pair, ("first", "second"), strict=True):
        daemon.cli("run", "-d", "--name", "web", "-p", "0:80", "busybox", *SERVE, name)
    ports = [int(daemon.cli("port", "web", "80").stdout.rpartition(":")[2]) for daemon in pair]
    before = [daemon.cli("inspect", "-f", "{{.Id}} {{.State.Pid}}", "web").stdout for daemon in pair]
    pair.first.restart(signal.SIGKILL)
    assert [daemon.cli("inspect", "-f", "{{.Id}} {{.State.Pid}}", "web").stdout for daemon in pair] == before
    assert [len(daemon.cli("ps", "-aq").stdout.split()) for daemon in pair] == [1, 1]
    for port, name in zip(ports, ("first\n", "second\n"), strict=True):
        wait_until(lambda port=port, name=name: pair.machine.fetch("127.0.0.1", port) == name)  # type: ignore[misc]


def test_roots_that_are_in_use_are_refused(pair: Pair) -> None:
    rival = Neighbour(pair.first.root, machine=pair.machine)
    done = subprocess.run(rival.command(), capture_output=True, text=True, timeout=60, check=False,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == 1
    assert "is held by the running daemon" in done.stderr
    assert pair.first.answers()


@pytest.mark.parametrize("kind", ["minidocker", "docker"])
def test_one_process_talks_to_both_at_once(pair: Pair, kind: str) -> None:
    """Threads of one Python process, half of them at each daemon, with the same names on both sides."""

    def work(number: int) -> tuple[str, str]:
        daemon = (pair.first, pair.second)[number % 2]
        says = f"{daemon.root.name} {number}"
        command = ["sh", "-c", f"cat; echo {says}"]
        if kind == "docker":
            sdk = docker.DockerClient(base_url=daemon.url, timeout=60)
            out = sdk.containers.run("busybox", command, name=f"c{number // 2}", remove=False)
            sdk.close()
        else:
            with minidocker.connect(daemon.url) as client:
                out = client.containers.run("busybox", command, name=f"c{number // 2}")
        return out.decode(), f"{says}\n"

    with ThreadPoolExecutor(8) as pool:
        for said, expected in pool.map(work, range(20)):
            assert said == expected
    for daemon in pair:
        assert len(daemon.cli("ps", "-aq").stdout.split()) == 10
