"""Host ports: what a user asks for, which port it becomes, and the socket that holds it.

Source  Docker's -p syntax and port allocator (moby daemon/libnetwork/portallocator); ip(7) ip_local_port_range.
Rules   - a published port is held by a bound socket that does not listen: a second user of the port is told at once,
          and traffic that escapes translation is refused, not swallowed.
        - without an address a port is published on all of IPv4 and, if the container has it, all of IPv6: one number.
        - a kernel without SCTP sockets translates it all the same; then only our own containers are told of a clash.
"""

import errno
import itertools
import socket
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from minidocker.errors import InvalidArgument, MinidockerError
from minidocker.network.rules import Published, family_of

ANY, ANY6 = "0.0.0.0", "::"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}


class PortUnavailable(MinidockerError):
    """A host port or address cannot be bound; the text is worded as Docker's."""


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A wish: this port of the container, published on the host.

    host_ports  (first, last) to choose the first free one from; None: any free port
    also        another address of the host that gets the same port
    """

    container_port: int
    protocol: str = "tcp"
    host_address: str = ANY
    host_ports: tuple[int, int] | None = None
    also: str = ""

    @property
    def addresses(self) -> list[str]:
        """Where on the host."""
        return [self.host_address, self.also] if self.also else [self.host_address]


def parse_port(text: str) -> tuple[int, str]:
    """("80/tcp" or "80") as (80, "tcp"). Raises InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _KINDS:
        raise InvalidArgument(f"invalid protocol: {protocol!r} in port {text!r}; use tcp, udp or sctp")
    return _number(number, text), protocol


def parse_binding(port: str, host_address: str, host_port: str) -> PortBinding:
    """One entry of the API's PortBindings: "80/tcp", HostIp ("" is all), HostPort ("", "0", "8080", "8080-8090").

    Raises  InvalidArgument.
    """
    number, protocol = parse_port(port)
    try:
        address = str(ip_address(host_address or ANY))
    except ValueError:
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
        self._held: dict[str, list[tuple[Published, Holding]]] = {}
        self._next = 0
        self._lock = threading.Lock()

    def reserve(self, owner: str, bindings: Sequence[PortBinding]) -> list[Published]:
        """Hold a host port for each binding, in their order; all or none.

        Raises  PortUnavailable: in use, or no address of this host.
        """
        with self._lock, ExitStack() as undo:
            held: list[tuple[Published, Holding]] = []
            for binding in bindings:
                for published, holding in self._bind(binding, [one for one, _ in held]):
                    undo.callback(holding.close)
                    held.append((published, holding))
            undo.pop_all()
            self._held.setdefault(owner, []).extend(held)
        return [published for published, _ in held]

    def release(self, owner: str) -> None:
        """Give the owner's ports back; none is fine."""
        with self._lock:
            for _, holding in self._held.pop(owner, ()):
                holding.close()

    def hand_over(self, owner: str, heir: str, ports: Collection[Published]) -> None:
        """These of what `owner` holds are the heir's from now on; the others are given back."""
        with self._lock:
            for published, holding in self._held.pop(owner, ()):
                if published in ports:
                    self._held.setdefault(heir, []).append((published, holding))
                else:
                    holding.close()

    def close(self) -> None:
        """Give all ports back."""
        for owner in list(self._held):
            self.release(owner)

    def _bind(self, binding: PortBinding, beside: Sequence[Published]) -> "list[tuple[Published, Holding]]":
        """One port on each of the binding's addresses. beside: what the same call has already."""
        problem: PortUnavailable | None = None
        for port in self._candidates(binding):
            wanted = [Published(binding.container_port, binding.protocol, a, port) for a in binding.addresses]
            try:
                with ExitStack() as undo:
                    held = []
                    for one in wanted:
                        self._check_ours(one, beside)
                        held.append((one, hold(one.protocol, one.host_address, port)))
                        undo.callback(held[-1][1].close)
                    undo.pop_all()
            except PortUnavailable as error:
                problem = error
                continue
            if binding.host_ports is None:
                self._next = port + 1
            return held
        if binding.host_ports is not None and binding.host_ports[0] == binding.host_ports[1] and problem is not None:
            raise problem
        raise PortUnavailable(f"Bind for {binding.host_address} failed: all ports are allocated")

    def _check_ours(self, wanted: Published, beside: Sequence[Published]) -> None:
        """A kernel without SCTP sockets does not tell of a clash: our own list does. Raises PortUnavailable."""
        if wanted.protocol != "sctp":
            return
        ours = [one for held in self._held.values() for one, _ in held] + list(beside)
        for one in ours:
            clash = one.host_address in (wanted.host_address, ANY, ANY6) or wanted.host_address in (ANY, ANY6)
            if (one.protocol, one.host_port, one.family) == ("sctp", wanted.host_port, wanted.family) and clash:
                raise _in_use(wanted.host_address, wanted.host_port)

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


class Holding:
    """What holds a port of the host: a bound socket, or nothing where the kernel has no such sockets."""

    def __init__(self, held: socket.socket | None) -> None:
        self._held = held

    def close(self) -> None:
        """Give the port back."""
        if self._held is not None:
            self._held.close()


def shown(address: str) -> str:
    """An address before a port: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _in_use(address: str, port: int) -> PortUnavailable:
    return PortUnavailable(f"Bind for {shown(address)}:{port} failed: port is already allocated")


def hold(protocol: str, address: str, port: int) -> Holding:
    """Bind to the host's port.

    Raises  PortUnavailable, worded as Docker words it.
    """
    family = _FAMILIES[family_of(address)]
    try:
        held = socket.socket(family, _KINDS[protocol], socket.IPPROTO_SCTP if protocol == "sctp" else 0)
    except OSError as error:
        if protocol == "sctp" and error.errno == errno.EPROTONOSUPPORT:
            return Holding(None)
        raise PortUnavailable(f"listen {protocol} {shown(address)}:{port}: {(error.strerror or '').lower()}") from None
    if family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
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
            raise _in_use(address, port) from None
        reason = (error.strerror or "").lower()
        number = 6 if family == socket.AF_INET6 else 4
        raise PortUnavailable(f"listen {protocol}{number} {shown(address)}:{port}: bind: {reason}") from None
    return Holding(held)
