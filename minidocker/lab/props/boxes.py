"""Boxes: processes in network namespaces of their own, to be wired up by hand, and what passes on their wires.

Source  network_namespaces(7), veth(4), packet(7), icmp(7), RFC 792 (echo).
Rules   - for single-threaded processes, such as an isolated cell; never for a notebook's kernel, which has threads.
        - a box ends with the process that made it, and its interfaces end with it.
        - a failure is told in the kernel's own words ("Network is unreachable"), silence as "no answer".
"""

import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from minidocker.errors import MinidockerError
from minidocker.linux import netlink, process
from minidocker.linux.namespaces import CloneFlag, setns, unshare

ANSWERED, SILENCE = "answered", "no answer"
PATIENCE_SECONDS, SETTLE_SECONDS = 0.4, 1.0
_LINKS, _FORWARDING = Path("/sys/class/net"), "3"
_ECHO = struct.pack("!BBHHH", 8, 0, 0xF7FF - 7, 7, 0)  # an echo request with number 7; the third field is its checksum
_EVERY_PROTOCOL, _IP = 0x0003, 0x0800
_WORDS = {0: "echo reply", 3: "unreachable", 8: "echo request"}


class Box:
    """A process in a new network namespace, as a container's. `with box:` does what is in the block inside of it."""

    def __init__(self) -> None:
        self._home: list[int] = []
        self.pid = _forked(lambda: unshare(CloneFlag.NEWNET), _sleep)

    def __enter__(self) -> "Box":
        self._home.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        pidfd = process.pidfd_open(self.pid)
        setns(pidfd, CloneFlag.NEWNET)
        os.close(pidfd)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        home = self._home.pop()
        setns(home, CloneFlag.NEWNET)
        os.close(home)

    def plug(self, peer: str, address: str, *, bridge: str = "", gateway: str = "") -> None:
        """A cable to the host: `peer` is the host's end, in a bridge or in none; ours is eth0, with the address."""
        netlink.create_veth(peer, netlink.link_index(bridge) if bridge else 0, "eth0", self.pid, "", 1500)
        with self:
            plan = {"name": "eth0", "addresses": [address], "gateway": gateway}
            netlink.configure_interfaces({"interfaces": [plan]})

    def ping(self, address: str) -> str:
        """Ask once from inside: "answered", "no answer", or what the kernel says."""
        with self:
            return ping(address)

    def ask(self, address: str, port: int) -> str:
        """Connect by TCP from inside: what the server there answers, "no answer", or what the kernel says."""
        with self:
            return ask(address, port)

    def serve(self, port: int) -> None:
        """Start a server inside that tells each client which address it sees it come from."""
        with self:
            serve(port)


def ping(address: str) -> str:
    """One echo request from this namespace: "answered", "no answer", or what the kernel says."""
    settle()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as wire:
        wire.settimeout(PATIENCE_SECONDS)
        try:
            wire.connect((address, 0))  # answers of others are not ours
            wire.send(_ECHO)
            while True:
                packet = wire.recv(2048)
                header = (packet[0] & 15) * 4
                if packet[header] == 0 and packet[header + 4 : header + 6] == _ECHO[4:6]:
                    return ANSWERED
        except TimeoutError:
            return SILENCE
        except OSError as error:
            return error.strerror or str(error)


def ask(address: str, port: int) -> str:
    """Connect by TCP from this namespace: what the server there answers, "no answer", or what the kernel says."""
    settle()
    try:
        with socket.create_connection((address, port), timeout=PATIENCE_SECONDS) as wire:
            return wire.recv(100).decode()
    except TimeoutError:
        return SILENCE
    except OSError as error:
        return error.strerror or str(error)


def settle() -> None:
    """Wait until the wires of the cell are in use: the kernel takes some milliseconds from plugging in to that.

    A question that is asked too early is lost, and the kernel repeats it a second later only.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while not all(map(_in_use, _LINKS.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.002)


def _in_use(link: Path) -> bool:
    """Whether it works, or cannot work as its other end is down."""
    try:
        if (link / "carrier").read_text().strip() != "1":
            return True
        port = link / "brport/state"
        forwarding = not port.exists() or port.read_text().strip() == _FORWARDING
        return forwarding and (link / "operstate").read_text().strip() in ("up", "unknown")
    except OSError:  # it is down, or it has gone at this moment
        return True


def serve(port: int) -> None:
    """Start a server in this namespace that tells each client which address it sees it come from."""
    door = socket.create_server(("0.0.0.0", port))
    _forked(lambda: None, lambda: _tell(door))
    door.close()


def _tell(door: socket.socket) -> None:
    while True:
        client, (address, _) = door.accept()
        with client:
            client.sendall(address.encode())


def _sleep() -> None:
    while True:
        signal.pause()


def _forked(prepare: Callable[[], object], work: Callable[[], None]) -> int:
    """A child that has prepared itself and is at work now; its pid. Raises MinidockerError: it could not."""
    ready, prepared = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            process.set_parent_death_signal(signal.SIGKILL)
            prepare()
            os.write(prepared, b"!")
            os.close(prepared)
            work()
        finally:
            os._exit(1)
    os.close(prepared)
    answer = os.read(ready, 1)
    os.close(ready)
    if answer != b"!":
        raise MinidockerError("a process in a namespace of its own could not be made; root can make one")
    return pid


class Capture:
    """Listens at an interface of the present namespace, from now on, as tcpdump does."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
        self._socket.bind((interface, _EVERY_PROTOCOL))
        self._socket.setblocking(False)

    def lines(self) -> list[str]:
        """The IPv4 packets that have passed since the last call, a line each: "10.0.0.2 > 10.0.0.3 echo request"."""
        found: list[str] = []
        while True:
            try:
                packet, about = self._socket.recvfrom(2048)
            except BlockingIOError:
                return found
            if about[1] == _IP:
                found.append(describe(packet))

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()


def describe(packet: bytes) -> str:
    """One IPv4 packet in words.

    >>> describe(bytes.fromhex("4500001c000000004001000001020304050607080800"))
    '1.2.3.4 > 5.6.7.8 echo request'
    """
    source, target = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    rest, protocol = packet[(packet[0] & 15) * 4 :], packet[9]
    if protocol == socket.IPPROTO_ICMP:
        return f"{source} > {target} {_WORDS.get(rest[0], f'ICMP {rest[0]}')}"
    if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        first, second = struct.unpack("!HH", rest[:4])
        return f"{source}:{first} > {target}:{second} {'TCP' if protocol == socket.IPPROTO_TCP else 'UDP'}"
    return f"{source} > {target} protocol {protocol}"
