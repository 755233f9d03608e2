"""IPAM: which subnet a network gets, and which address a container.

Source  Docker's default address pools (moby daemon/libnetwork/ipamutils); lowest free address first; MAC from address;
        RFC 4193 (unique local IPv6 addresses).
Rules   - network address, broadcast address (IPv6: the routers' anycast address) and gateway are never handed out.
        - nothing is kept on disk: after a restart the addresses of living containers are taken again, others are free.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from minidocker.errors import Forbidden, InvalidArgument, Unavailable

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

# (pool, prefix length of a network cut from it), Docker's, in the order of use.
DEFAULT_POOLS = (
    *((IPv4Network(f"172.{n}.0.0/16"), 16) for n in range(17, 32)),
    (IPv4Network("192.168.0.0/16"), 20),
)


def subnets() -> Iterator[IPv4Network]:
    """The subnets a new network may get, in order."""
    for pool, prefix in DEFAULT_POOLS:
        yield from pool.subnets(new_prefix=prefix)


def choose_subnet(used: Iterable[IPv4Network]) -> IPv4Network:
    """The first default subnet that overlaps none of `used`. Raises Unavailable: all are in use."""
    taken = list(used)
    for subnet in subnets():
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Unavailable(
        "could not find an available, non-overlapping ipv4 address pool among the defaults to assign to the network; "
        "name a free one with --subnet or --bip"
    )


def choose_subnet6(used: Iterable[IPv6Network], seed: str) -> IPv6Network:
    """The first /64 of the daemon's own unique local /48 that overlaps none of `used`.

    seed    whose /48 it is: a daemon has the same one each time, another daemon or machine another one (RFC 4193, 3.2)
    Raises  Unavailable: all 65536 are in use.
    """
    taken = list(used)
    number = int.from_bytes(b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5], "big") << 80
    for index in range(1 << 16):
        subnet = IPv6Network((number | index << 64, 64))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Unavailable("could not find an available, non-overlapping ipv6 address pool; name a free one with --subnet")


def mac_of(address: IPv4Address) -> str:
    """Docker's MAC for an address: 02:42 and its four bytes, so neighbours' ARP entries stay true when it is reused."""
    return "02:42:" + address.packed.hex(":")


class AddressPool:
    """The addresses of one subnet.

    allocate_from  part of the subnet that addresses are chosen from (Docker's --ip-range); None: all of it
    reserved       never chosen nor given on request, beside network, broadcast and gateway
    """

    def __init__(
        self,
        subnet: Subnet,
        gateway: Address,
        *,
        allocate_from: Subnet | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        self.subnet, self.gateway = subnet, gateway
        self._range = allocate_from or subnet
        self._reserved = {int(gateway), *map(int, reserved)}
        if subnet.prefixlen < subnet.max_prefixlen - 1:
            self._reserved.add(int(subnet.network_address))
            if subnet.version == 4:
                self._reserved.add(int(subnet.broadcast_address))
        self._used: set[int] = set()
        self._lock = threading.Lock()

    def take(self, requested: Address | None = None) -> Address:
        """The lowest free address, or the requested one.

        Raises  InvalidArgument: not of this subnet. Forbidden: in use. Unavailable: the subnet is full.
        """
        with self._lock:
            chosen = self._lowest() if requested is None else self._check(requested)
            self._used.add(chosen)
        return self._address(chosen)

    def release(self, address: Address) -> None:
        """Make the address free; a free one is fine."""
        with self._lock:
            self._used.discard(int(address))

    def used(self) -> frozenset[Address]:
        """The addresses that containers have now."""
        with self._lock:
            return frozenset(map(self._address, self._used))

    def _address(self, number: int) -> Address:
        return type(self.gateway)(number)

    def _lowest(self) -> int:
        for number in range(int(self._range.network_address), int(self._range.broadcast_address) + 1):
            if number not in self._used and number not in self._reserved:
                return number
        raise Unavailable(f"no available addresses in the pool {self._range}; remove containers or use a larger subnet")

    def _check(self, requested: Address) -> int:
        if requested not in self.subnet:
            raise InvalidArgument(
                f"invalid address {requested}: it does not belong to any of this network's subnets ({self.subnet})"
            )
        if int(requested) in self._reserved:
            raise Forbidden(f"Address already in use: {requested} is reserved (network, broadcast, gateway, auxiliary)")
        if int(requested) in self._used:
            raise Forbidden(f"Address already in use: {requested}")
        return int(requested)
