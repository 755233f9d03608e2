"""A stage for network tests: the test itself plays the host, in a network namespace of its own.

A test with the fixture `stage` runs in a forked process with a fresh network namespace, so neither the machine's rules
nor its links are ever touched, and everything is gone when the process ends. Containers and neighbours are processes
with network namespaces of their own.
"""

import contextlib
import ctypes
import os
import pickle
import select
import signal
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from minidocker.linux import netlink
from minidocker.network.bridge import BridgeNetwork, default_network
from minidocker.network.endpoint import Endpoint
from minidocker.network.ports import PortBinding

T = TypeVar("T")
_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
ANSWER_SECONDS = 0.6  # what a dropped packet costs a test; answers come in well under a millisecond


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "namespace")


def _fork() -> int:
    """fork; the child dies with its parent (a test that is killed leaves nobody)."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _libc.prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return pid


def _forked(work: Callable[[], T], prepare: Callable[[], None]) -> tuple[int, int]:
    """Fork; the child runs prepare and work and writes its pickled outcome into a pipe. Returns (pid, pipe)."""
    reading, writing = os.pipe()
    pid = _fork()
    if pid:
        os.close(writing)
        return pid, reading
    outcome: tuple[bool, Any]
    try:
        prepare()
        outcome = (True, work())
    except pytest.skip.Exception as skipped:
        outcome = (False, ("skip", str(skipped)))
    except BaseException:
        outcome = (False, ("fail", traceback.format_exc()))
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(outcome, pipe)
    os._exit(0)


def _collected(pid: int, reading: int) -> Any:
    with os.fdopen(reading, "rb") as pipe:
        good, value = pickle.load(pipe)  # not up to the end of the file: a grandchild may hold the pipe open
    os.waitpid(pid, 0)
    if good:
        return value
    if value[0] == "skip":
        pytest.skip(value[1])
    raise AssertionError(value[1])


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if "stage" not in pyfuncitem.fixturenames:
        return None
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    stage = pyfuncitem.funcargs["stage"]
    assert isinstance(stage, Stage)

    def play() -> None:
        try:
            netlink.configure_interfaces({})
            pyfuncitem.obj(**arguments)
        finally:
            stage.end()

    _collected(*_forked(play, lambda: _check(_libc.unshare(_NEWNET))))
    return True


class Machine:
    """A process in a network namespace of its own: a container, or another machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        ready, go = os.pipe()
        self.pid = _fork()
        if self.pid == 0:
            _check(_libc.unshare(_NEWNET))
            os.write(go, b"x")
            while True:
                signal.pause()
        os.close(go)
        os.read(ready, 1)
        os.close(ready)
        self._servers: list[int] = []
        self.endpoint: Endpoint | None = None

    def _enter(self) -> None:
        with open(f"/proc/{self.pid}/ns/net") as namespace:
            _check(_libc.setns(namespace.fileno(), _NEWNET))

    def run(self, work: Callable[[], T]) -> T:
        """Run a function inside."""
        result: T = _collected(*_forked(work, self._enter))
        return result

    def serve(self, port: int = 80) -> None:
        """Answer on tcp and udp with our name and the address that was seen."""
        ready, go = os.pipe()
        pid, pipe = _forked(lambda: _serve(self.name, port, go), self._enter)
        os.close(pipe)
        os.close(go)
        assert os.read(ready, 1) == b"x", "the server did not start"
        os.close(ready)
        self._servers.append(pid)

    def ask(self, protocol: str, address: str, port: int, *, local_port: int = 0) -> str:
        """The answer from there, or "refused", "silent" or "unreachable"."""
        return self.run(lambda: ask(protocol, address, port, local_port=local_port))

    def end(self) -> None:
        for pid in [*self._servers, self.pid]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._servers = []


def _serve(name: str, port: int, ready: int) -> None:
    tcp, udp = [], []
    for family in (socket.AF_INET, socket.AF_INET6):
        address = ("::" if family == socket.AF_INET6 else "0.0.0.0", port)
        tcp.append(socket.create_server(address, family=family))
        udp.append(socket.socket(family, socket.SOCK_DGRAM))
        if family == socket.AF_INET6:
            udp[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp[-1].bind(address)
    os.write(ready, b"x")
    while True:
        for server in select.select([*tcp, *udp], [], [])[0]:
            if server in udp:
                _, peer = server.recvfrom(100)
                server.sendto(f"{name} saw {peer[0]}".encode(), peer)
                continue
            connection, peer = server.accept()
            with connection:
                connection.sendall(f"{name} saw {peer[0]}".encode())


def ask(protocol: str, address: str, port: int, *, local_port: int = 0) -> str:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as client:
        client.settimeout(ANSWER_SECONDS)
        if local_port:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("", local_port))
        try:
            client.connect((address, port))
            if protocol == "udp":
                client.send(b"?")
            return client.recv(100).decode()
        except TimeoutError:
            return "silent"
        except ConnectionError:
            return "refused"
        except OSError:
            return "unreachable"


class Stage:
    """What a test builds on; used inside the test's own process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._machines: list[Machine] = []

    def machine(self, name: str) -> Machine:
        machine = Machine(name)
        self._machines.append(machine)
        return machine

    def network(self, bip: str | None = None, *, bridge: str | None = None) -> BridgeNetwork:
        network = default_network(self.root, bip=bip, bridge=bridge)
        assert network is not None
        network.ensure()
        return network

    def container(self, network: BridgeNetwork, name: str = "web", bindings: Sequence[PortBinding] = ()) -> Machine:
        """A container with its network attached and configured, answering on port 80."""
        machine = self.machine(name)
        endpoint = network.allocate(name)
        network.publish(endpoint, bindings, name=name)
        network.attach(endpoint, machine.pid)
        machine.endpoint = endpoint
        machine.run(lambda: netlink.configure_interfaces(endpoint.plan()))
        machine.serve()
        return machine

    def stop(self, network: BridgeNetwork, machine: Machine) -> None:
        assert machine.endpoint is not None
        machine.end()
        self._machines.remove(machine)
        network.release(machine.endpoint)

    def neighbour(self, *, host: str = "203.0.113.1/24", address: str = "203.0.113.2/24") -> Machine:
        """Another machine on a wire to the host; it routes everything to the host. Its loopback stays down."""
        machine = self.machine("neighbour")
        netlink.create_veth("uplink", 0, "eth0", machine.pid, "", 1500)
        netlink.add_address("uplink", host)
        gateway = host.partition("/")[0]
        messages = {"name": "eth0", "addresses": [address], "gateway": gateway}

        def configure() -> None:
            with netlink.route_socket() as socket_:
                socket_.batch(netlink.interface_messages(netlink.link_index("eth0"), messages))

        machine.run(configure)
        return machine

    def end(self) -> None:
        for machine in self._machines:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                machine.end()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="minidocker-network-") as root:
        yield Stage(Path(root))
