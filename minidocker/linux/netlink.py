"""Links, addresses and routes, by RTNETLINK messages of our own.

Source  rtnetlink(7), netlink(7), kernel Documentation/userspace-api/netlink/, include/uapi/linux/{rtnetlink,if_link}.h.
Rules   - everything here is synchronous and stateless (a socket an operation), so any thread may call it,
          and pid 1 of a container too: nothing is imported that a fork server would not want to carry.
        - what is done together goes as one batch (netlink_socket.py).
"""

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minidocker.errors import KernelError
from minidocker.linux.netlink_socket import CREATE, EXCL, REPLACE, Message, Netlink, attribute, attributes

# struct ifinfomsg, ifaddrmsg, rtmsg: native byte order.
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")

NEWLINK, DELLINK, GETLINK, NEWADDR, GETADDR, NEWROUTE, GETROUTE = 16, 17, 18, 20, 22, 24, 26
_NAMES = {NEWLINK: "RTM_NEWLINK", DELLINK: "RTM_DELLINK", GETLINK: "RTM_GETLINK", NEWADDR: "RTM_NEWADDR",
          GETADDR: "RTM_GETADDR", NEWROUTE: "RTM_NEWROUTE", GETROUTE: "RTM_GETROUTE"}  # fmt: skip

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_PID = 1, 3, 4, 10, 18, 19
_IFLA_IFALIAS, _IFLA_STATS64, _IFLA_AF_SPEC = 20, 23, 26
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER, _BRPORT_MODE, _BRPORT_ISOLATED, _INET6_ADDR_GEN_MODE = 1, 4, 33, 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_F_NODAD = 1, 2, 4, 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
IFF_UP = 1
_LOOPBACK_INDEX = 1  # in every network namespace


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel tells it; counters are those of this end of a pair."""

    index: int
    name: str
    kind: str
    up: bool
    mac: str
    mtu: int
    master: int
    alias: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


# --- messages -------------------------------------------------------------------------------------------------


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _ifinfo(index: int = 0, *, up: bool = False) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, IFF_UP if up else 0, IFF_UP if up else 0)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def veth_messages(
    host_name: str,
    bridge_index: int,
    peer_name: str,
    netns_pid: int,
    mac: str,
    mtu: int,
    *,
    hairpin: bool = False,
    isolated: bool = False,
) -> list[Message]:
    """The batch of `create_veth`, as data."""
    peer = _ifinfo() + _text(_IFLA_IFNAME, peer_name) + _number(_IFLA_NET_NS_PID, netns_pid) + _number(_IFLA_MTU, mtu)
    if mac:
        peer += attribute(_IFLA_ADDRESS, mac_bytes(mac))
    kind = _text(_INFO_KIND, "veth") + attribute(_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    body = _ifinfo(up=True) + _text(_IFLA_IFNAME, host_name) + _number(_IFLA_MTU, mtu)
    if bridge_index:
        body += _number(_IFLA_MASTER, bridge_index)
    messages = [Message(NEWLINK, CREATE | EXCL, body + attribute(_IFLA_LINKINFO, kind), host_name)]
    settings = [_BRPORT_MODE] * hairpin + [_BRPORT_ISOLATED] * isolated
    return [*messages, port_message(host_name, settings)] if settings else messages


def port_message(name: str, settings: Sequence[int]) -> Message:
    """Switch settings of a bridge's port on."""
    data = b"".join(attribute(setting, b"\1") for setting in settings)
    port = _text(_INFO_SLAVE_KIND, "bridge") + attribute(_INFO_SLAVE_DATA, data)
    body = _ifinfo() + _text(_IFLA_IFNAME, name) + attribute(_IFLA_LINKINFO, port)
    return Message(NEWLINK, 0, body, name)


def _address_message(index: int, name: str, address: str) -> Message:
    host, _, prefix = address.partition("/")
    family, bits = _family(host), int(prefix)
    packed = socket.inet_pton(family, host)
    body = _IFADDR.pack(family, bits, _IFA_F_NODAD if family == socket.AF_INET6 else 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if family == socket.AF_INET and bits < 31:
        mask = (1 << (32 - bits)) - 1
        body += attribute(_IFA_BROADCAST, (int.from_bytes(packed, "big") | mask).to_bytes(4, "big"))
    return Message(NEWADDR, CREATE | EXCL, body, f"{address} on {name}")


def _default_route_message(index: int, gateway: str, *, how: int = CREATE | EXCL) -> Message:
    family = _family(gateway)
    body = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, 0, _RTN_UNICAST, 0)
    body += attribute(_RTA_GATEWAY, socket.inet_pton(family, gateway)) + _number(_RTA_OIF, index)
    return Message(NEWROUTE, how, body, f"default via {gateway}")


def _no_link_local(index: int, name: str) -> Message:
    """No fe80:: address of its own for an interface that has no IPv6 address; kernels without IPv6 refuse it."""
    none = attribute(socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, b"\1"))
    return Message(
        NEWLINK, 0, _ifinfo(index) + attribute(_IFLA_AF_SPEC, none), name, tolerate=(errno.EAFNOSUPPORT, errno.EINVAL)
    )


def interface_messages(index: int, interface: Mapping[str, Any]) -> list[Message]:
    """The messages that configure one interface (an entry of the plan's "interfaces") of this index."""
    name = str(interface["name"])
    addresses = [str(address) for address in interface.get("addresses") or ()]
    gateways = [str(interface[key]) for key in ("gateway", "gateway6") if interface.get(key)]
    messages = [] if any(":" in address for address in addresses) else [_no_link_local(index, name)]
    up = _ifinfo(index, up=True)
    if interface.get("mtu"):
        up += _number(_IFLA_MTU, int(interface["mtu"]))
    if interface.get("mac"):
        up += attribute(_IFLA_ADDRESS, mac_bytes(str(interface["mac"])))
    messages.append(Message(NEWLINK, 0, up, name))
    messages += [_address_message(index, name, address) for address in addresses]
    return messages + [_default_route_message(index, gateway) for gateway in gateways]


# --- operations -----------------------------------------------------------------------------------------------


def route_socket() -> Netlink:
    """A socket for links, addresses and routes."""
    return Netlink(socket.NETLINK_ROUTE, _NAMES)


def create_veth(
    host_name: str,
    bridge_index: int,
    peer_name: str,
    netns_pid: int,
    mac: str,
    mtu: int,
    *,
    hairpin: bool = False,
    isolated: bool = False,
) -> None:
    """A pair of interfaces in one message: ours, up and in the bridge; its peer in another network namespace.

    host_name     at most 15 bytes, free in this namespace
    bridge_index  0: not put into a bridge
    netns_pid     a process of the network namespace that gets the peer, named `peer_name`, left down
    mac           of the peer ("02:42:..."); "" lets the kernel choose
    hairpin       the bridge may send a frame back out of the port that it came from
    isolated      the bridge passes no frame between this port and another isolated one
    Raises        KernelError: EEXIST a name is taken, ESRCH no such process, ENODEV no such bridge.
    """
    with route_socket() as netlink:
        options = {"hairpin": hairpin, "isolated": isolated}
        netlink.batch(veth_messages(host_name, bridge_index, peer_name, netns_pid, mac, mtu, **options))


def configure_interfaces(plan: Mapping[str, Any]) -> None:
    """Configure the interfaces of this network namespace: loopback and each of the plan's up, with address and route.

    plan    {"interfaces": [{"name": "eth0", "mac": "02:42:...", "mtu": 1500, "addresses": ["172.17.0.2/16"],
            "gateway": "172.17.0.1"}]}; mac, mtu, gateway and gateway6 may be absent. An empty plan: loopback alone.
    Raises  KernelError: ENODEV no such interface, EEXIST the address is there already.
    """
    messages = [Message(NEWLINK, 0, _ifinfo(_LOOPBACK_INDEX, up=True), "lo")]
    for interface in plan.get("interfaces") or ():
        messages += interface_messages(link_index(str(interface["name"])), interface)
    with route_socket() as netlink:
        netlink.batch(messages)


def replace_default_route(interface: str, gateway: str) -> None:
    """Let the default route of this namespace go over `interface` via `gateway`, whichever it was before.

    Raises  KernelError: ENODEV no such interface, ENETUNREACH the gateway is in none of its subnets.
    """
    with route_socket() as netlink:
        netlink.batch([_default_route_message(link_index(interface), gateway, how=CREATE | REPLACE)])


def exists(name: str) -> bool:
    """Whether there is such an interface. Unlike the others here it never waits for the kernel's lock of all links,
    which the end of a namespace holds for milliseconds."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def link_index(name: str) -> int:
    """Index of an interface of this namespace. Raises KernelError ENODEV."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise KernelError("if_nametoindex", name, error.errno or errno.ENODEV) from None


def set_hairpin(name: str) -> bool:
    """Let the bridge send a frame back out of this port of it. Returns False if there is no such interface."""
    return _change_link(port_message(name, [_BRPORT_MODE]))


def delete_link(name: str) -> bool:
    """Remove an interface (of a pair: both ends). Returns False if there was none."""
    return _change_link(Message(DELLINK, 0, _ifinfo() + _text(_IFLA_IFNAME, name), name))


def _change_link(message: Message) -> bool:
    with route_socket() as netlink:
        try:
            netlink.batch([message])
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
    return True


def create_bridge(name: str, address: str, mac: str, mtu: int, alias: str = "") -> int:
    """Make a bridge with an address ("172.17.0.1/16"), up. Returns its index.

    alias   a text that the interface carries (`ip link` shows it), to know one's own again
    Raises  KernelError EEXIST: an interface of that name exists (it is left as it is). If the address is refused the
            bridge is taken away again.
    """
    body = _ifinfo() + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu) + attribute(_IFLA_ADDRESS, mac_bytes(mac))
    body += attribute(_IFLA_LINKINFO, _text(_INFO_KIND, "bridge"))
    with route_socket() as netlink:
        netlink.batch([Message(NEWLINK, CREATE | EXCL, body, name)])
        index = link_index(name)
        try:
            up = _ifinfo(index, up=True) + _text(_IFLA_IFALIAS, alias)
            netlink.batch([Message(NEWLINK, 0, up, name), _address_message(index, name, address)])
        except KernelError:
            delete_link(name)
            raise
    return index


def add_address(name: str, address: str) -> None:
    """Give an interface one more address ("10.0.0.1/24"). Raises KernelError EEXIST: it has it."""
    with route_socket() as netlink:
        netlink.batch([_address_message(link_index(name), name, address)])


def link(name: str) -> Link | None:
    """The interface of that name, with its counters, or None."""
    with route_socket() as netlink:
        try:
            return _link(netlink.ask(GETLINK, _ifinfo() + _text(_IFLA_IFNAME, name), name))
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return None
            raise


def links() -> list[Link]:
    """All interfaces of this network namespace."""
    with route_socket() as netlink:
        return [_link(answer) for answer in netlink.dump(GETLINK, _ifinfo())]


def _link(answer: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(answer)
    found = attributes(answer[16:])
    kind = attributes(found.get(_IFLA_LINKINFO, b"")).get(_INFO_KIND, b"")
    counters = struct.unpack_from("=8Q", found.get(_IFLA_STATS64, b"").ljust(64, b"\0"))
    return Link(
        index,
        os.fsdecode(found[_IFLA_IFNAME].rstrip(b"\0")),
        kind.rstrip(b"\0").decode(),
        bool(flags & IFF_UP),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
        struct.unpack("=I", found[_IFLA_MTU])[0],
        struct.unpack("=I", found.get(_IFLA_MASTER, b"\0" * 4))[0],
        found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        *counters,
    )


def addresses(family: int = socket.AF_INET) -> list[tuple[int, str]]:
    """(interface index, "address/prefix") of every address of this namespace."""
    with route_socket() as netlink:
        answers = netlink.dump(GETADDR, _IFADDR.pack(family, 0, 0, 0, 0))
    return [(_IFADDR.unpack_from(answer)[4], _cidr(family, _address_of(answer), answer[1])) for answer in answers]


def _address_of(answer: bytes) -> bytes:
    found = attributes(answer[8:])
    return found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]


def routes(family: int = socket.AF_INET) -> list[str]:
    """Destinations ("10.0.0.0/8") of all unicast routes of this namespace, the default routes left out."""
    with route_socket() as netlink:
        answers = netlink.dump(GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    found = []
    for answer in answers:
        prefix, kind = answer[1], answer[7]
        if prefix and kind == _RTN_UNICAST:
            found.append(_cidr(family, attributes(answer[12:])[_RTA_DST], prefix))
    return found


def _cidr(family: int, address: bytes, prefix: int) -> str:
    return f"{socket.inet_ntop(family, address)}/{prefix}"
