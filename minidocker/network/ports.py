"""Host ports: what a user asks for, which port it becomes, and the socket that holds it.

Source  Docker's -p syntax and port allocator (moby daemon/libnetwork/portallocator); ip(7) ip_local_port_range.
Rules   - a published port is held by a bound socket that does not listen: a second user of the port is told at once,
          and traffic that escapes translation is refused, not swallowed.
        - IPv4 for now; sctp is refused.
"""

import errno
import itertools
import socket
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from minidocker.errors import InvalidArgument, MinidockerError, Unsupported
from minidocker.network.rules import Published

ANY = "0.0.0.0"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class PortUnavailable(MinidockerError):
    """A host port or address cannot be bound; the text is worded as Docker's."""


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A wish: this port of the container, published on the host.

    host_ports  (first, last) to choose the first free one from; None: any free port
    """

    container_port: int
    protocol: str = "tcp"
    host_address: str = ANY
    host_ports: tuple[int, int] | None = None


def parse_port(text: str) -> tuple[int, str]:
    """("80/tcp" or "80") as (80, "tcp"). Raises InvalidArgument; Unsupported: sctp."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol == "sctp":
        raise Unsupported(f"port {text}: sctp ports are not published by minidocker; use tcp or udp")
    if protocol not in _KINDS:
        raise InvalidArgument(f"invalid protocol: {protocol!r} in port {text!r}; use tcp or udp")
    return _number(number, text), protocol


def parse_binding(port: str, host_address: str, host_port: str) -> PortBinding:
    """One entry of the API's PortBindings: "80/tcp", HostIp ("" is all), HostPort ("", "0", "8080", "8080-8090").

    Raises  InvalidArgument; Unsupported: sctp, an IPv6 host address.
    """
    number, protocol = parse_port(port)
    if ":" in host_address:
        raise Unsupported(f"host address {host_address}: ports are published on IPv4 addresses only so far")
    try:
        address = str(IPv4Address(host_address or ANY))
    except AddressValueError:
        raise InvalidArgument(f"invalid host address {host_address!r} for port {port}") from None
    if host_port in ("", "0"):
        return PortBinding(number, protocol, address)
    first, dash, last = host_port.partition("-")
    low = _number(first, host_port)
    high = _number(last, host_port) if dash else low
    if high < low:
        raise InvalidArgument(f"invalid range of host ports {host_port!r}: it ends before it begins")
    return PortBinding(number, protocol, address, (low, high))


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= 65535):
        raise InvalidArgument(f"invalid port {whole!r}: a port is a number from 1 to 65535")
    return int(text)


class HostPorts:
    """The host ports that a daemon holds, by owner (an endpoint's ID). Callable from any thread."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._next = 0
        self._lock = threading.Lock()

    def reserve(self, owner: str, bindings: Sequence[PortBinding]) -> list[Published]:
        """Hold a host port for each binding, in their order; all or none.

        Raises  PortUnavailable: in use, or no address of this host.
        """
        with self._lock, ExitStack() as undo:
            bound: list[Published] = []
            sockets: list[socket.socket] = []
            for binding in bindings:
                held, port = self._bind(binding)
                undo.callback(held.close)
                sockets.append(held)
                bound.append(Published(binding.container_port, binding.protocol, binding.host_address, port))
            undo.pop_all()
            self._held.setdefault(owner, []).extend(sockets)
        return bound

    def release(self, owner: str) -> None:
        """Give the owner's ports back; none is fine."""
        with self._lock:
            for held in self._held.pop(owner, ()):
                held.close()

    def hand_over(self, owner: str, heir: str) -> None:
        """What `owner` holds is the heir's from now on."""
        with self._lock:
            self._held.setdefault(heir, []).extend(self._held.pop(owner, ()))

    def close(self) -> None:
        """Give all ports back."""
        for owner in list(self._held):
            self.release(owner)

    def _bind(self, binding: PortBinding) -> tuple[socket.socket, int]:
        problem: PortUnavailable | None = None
        for port in self._candidates(binding):
            try:
                held = hold(binding.protocol, binding.host_address, port)
            except PortUnavailable as error:
                problem = error
                continue
            if binding.host_ports is None:
                self._next = port + 1
            return held, port
        if binding.host_ports is not None and binding.host_ports[0] == binding.host_ports[1] and problem is not None:
            raise problem
        raise PortUnavailable(f"Bind for {binding.host_address} failed: all ports are allocated")

    def _candidates(self, binding: PortBinding) -> Iterable[int]:
        if binding.host_ports is not None:
            return range(binding.host_ports[0], binding.host_ports[1] + 1)
        first, last = ephemeral_range()
        start = self._next if first <= self._next <= last else first
        return itertools.chain(range(start, last + 1), range(first, start))


def ephemeral_range() -> tuple[int, int]:
    """The kernel's range of ports for clients (32768 to 60999), which Docker takes free ports from too."""
    try:
        first, last = map(int, _RANGE_FILE.read_text().split())
    except (OSError, ValueError):
        return 49153, 65535
    return first, last


def hold(protocol: str, address: str, port: int) -> socket.socket:
    """A socket bound to the host's port.

    Raises  PortUnavailable, worded as Docker words it.
    """
    held = socket.socket(socket.AF_INET, _KINDS[protocol])
    try:
        try:
            held.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or protocol != "tcp":
                raise
            # Only TIME_WAIT may be in the way: a listening socket with SO_REUSEADDR tells, and then holds the port.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((address, port))
            held.listen(1)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailable(f"Bind for {address}:{port} failed: port is already allocated") from None
        reason = (error.strerror or "").lower()
        raise PortUnavailable(f"listen {protocol}4 {address}:{port}: bind: {reason}") from None
    return held
