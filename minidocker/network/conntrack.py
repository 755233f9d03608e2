"""Forget UDP flows that still lead to where a published port led before.

Source  include/uapi/linux/netfilter/nfnetlink_conntrack.h; conntrack(8).
Rules   - UDP has no end of a connection: a client that keeps sending keeps the flow's old translation alive, so it
          would never see the container's new address, and its datagrams would go to whoever has the old one.
"""

import errno
import socket
import struct
from collections.abc import Collection

from minidocker.errors import KernelError
from minidocker.linux.netlink_socket import Message, Netlink, attribute, attributes

_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_{GET,DELETE}
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ZONE = 1, 2, 18
_TUPLE_IP, _TUPLE_PROTO, _PROTO_NUM, _PROTO_DST_PORT = 1, 2, 1, 3
_IP_SOURCE: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_NESTED = 0x8000


def forget_udp(
    netlink: Netlink, *, ports: Collection[int] = (), address: str | None = None, family: int = socket.AF_INET
) -> int:
    """Delete the UDP flows that were sent to one of these ports of the host, or that a container at `address` answers.

    netlink  a socket to netfilter (its number is 12)
    family   whose flows: socket.AF_INET or AF_INET6
    Returns their number. A kernel without connection tracking has none.
    """
    body = struct.pack("=BBH", family, 0, 0)
    try:
        entries = netlink.dump(_GET, body)
    except KernelError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL):
            return 0
        raise
    needle = socket.inet_pton(family, address) if address else None
    deletions = [
        Message(_DELETE, 0, body + _key(found), "udp flow", tolerate=(errno.ENOENT,))
        for found in (attributes(entry[4:]) for entry in entries if needle is None or ports or needle in entry)
        if _matches(found, ports, needle, _IP_SOURCE[family])
    ]
    for start in range(0, len(deletions), 64):
        netlink.batch(deletions[start : start + 64])
    return len(deletions)


def _matches(flow: dict[int, bytes], ports: Collection[int], answering: bytes | None, source: int) -> bool:
    original, reply = attributes(flow.get(_CTA_TUPLE_ORIG, b"")), attributes(flow.get(_CTA_TUPLE_REPLY, b""))
    protocol = attributes(original.get(_TUPLE_PROTO, b""))
    if protocol.get(_PROTO_NUM, b"")[:1] != bytes([socket.IPPROTO_UDP]):
        return False
    if int.from_bytes(protocol.get(_PROTO_DST_PORT, b"\0\0")[:2], "big") in ports:
        return True
    return answering is not None and attributes(reply.get(_TUPLE_IP, b"")).get(source) == answering


def _key(flow: dict[int, bytes]) -> bytes:
    key = attribute(_CTA_TUPLE_ORIG | _NESTED, flow[_CTA_TUPLE_ORIG])
    return key + attribute(_CTA_ZONE, flow[_CTA_ZONE]) if _CTA_ZONE in flow else key
