"""Address translation of one service inside this network namespace, by netfilter messages of our own.

Source  kernel include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h, net/netfilter/nfnetlink.c; nft(8) for the words.
Rules   - run by a fork of the launcher: libnftables would cost every container's start its loading time and memory.
        - one transaction: the table is made anew each time, so doing it twice is doing it once.

    table ip NAME {
      chain output {
        type nat hook output priority dstnat;
        ip daddr ADDRESS udp dport PORT dnat to ADDRESS:OTHER
        ip daddr ADDRESS tcp dport PORT dnat to ADDRESS:OTHER
      }
    }
"""

import socket
import struct
from collections.abc import Mapping

from minidocker.linux.netlink_socket import CREATE, Message, Netlink, attribute

_NETFILTER = 12
_TABLES = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = (_TABLES << 8 | number for number in (0, 2, 3, 6))
_NAMES = {_NEW_TABLE: "NFT_MSG_NEWTABLE", _DELETE_TABLE: "NFT_MSG_DELTABLE", _NEW_CHAIN: "NFT_MSG_NEWCHAIN",
          _NEW_RULE: "NFT_MSG_NEWRULE", _BEGIN: "NFNL_MSG_BATCH_BEGIN"}  # fmt: skip
_APPEND = 0x800  # NLM_F_APPEND
_HOOK_OUTPUT, _PRIORITY_DSTNAT = 3, -100
_REGISTER, _OTHER_REGISTER = 1, 2
_META_L4PROTO = 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_DESTINATION_NAT, _IPV4 = 1, 2
_PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _expression(name: str, *parts: bytes) -> bytes:
    return attribute(1, _text(1, name) + attribute(2, b"".join(parts)))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0), attribute(3, attribute(1, value)))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, length))


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", _number(1, register), attribute(2, attribute(1, value)))


def _rule(table: str, protocol: str, address: bytes, port: int, other: int) -> bytes:
    """`ip daddr ADDRESS PROTOCOL dport PORT dnat to ADDRESS:OTHER`."""
    expressions = [
        _payload(_NETWORK_HEADER, 16, 4),  # destination address
        _equals(address),
        _expression("meta", _number(1, _REGISTER), _number(2, _META_L4PROTO)),
        _equals(bytes([_PROTOCOLS[protocol]])),
        _payload(_TRANSPORT_HEADER, 2, 2),  # destination port
        _equals(struct.pack("!H", port)),
        _immediate(_REGISTER, address),
        _immediate(_OTHER_REGISTER, struct.pack("!H", other)),
        _expression("nat", _number(1, _DESTINATION_NAT), _number(2, _IPV4), _number(3, _REGISTER),
                    _number(5, _OTHER_REGISTER)),
    ]  # fmt: skip
    return _text(1, table) + _text(2, "output") + attribute(4, b"".join(expressions))


def redirect_messages(table: str, address: str, port: int, others: Mapping[str, int]) -> list[Message]:
    """The transaction of `redirect`, as data."""
    packed, name = socket.inet_aton(address), _text(1, table)
    hook = attribute(4, _number(1, _HOOK_OUTPUT) + _number(2, _PRIORITY_DSTNAT))
    chain = name + _text(3, "output") + hook + _text(7, "nat")
    messages = [
        Message(_NEW_TABLE, CREATE, name, table),
        Message(_DELETE_TABLE, 0, name, table),
        Message(_NEW_TABLE, CREATE, name, table),
        Message(_NEW_CHAIN, CREATE, chain, f"{table} output"),
    ]
    for protocol, other in others.items():
        rule = _rule(table, protocol, packed, port, other)
        messages.append(Message(_NEW_RULE, CREATE | _APPEND, rule, f"{address}:{port}/{protocol}"))
    family = struct.pack("!BBH", _IPV4, 0, 0)  # struct nfgenmsg
    return [Message(m.type, m.flags, family + m.body, m.subject) for m in messages]


def redirect(table: str, address: str, port: int, others: Mapping[str, int]) -> None:
    """Lead what this namespace sends to `address`:`port` to another port of that address.

    table   name of the table that holds the rules; one that is there is replaced
    others  the port by protocol: {"udp": 40000, "tcp": 40001}
    Raises  KernelError: the kernel has no nftables or no address translation.
    """
    body = struct.pack("!BBH", 0, 0, _TABLES)
    with Netlink(_NETFILTER, _NAMES) as netlink:
        netlink.transaction(
            redirect_messages(table, address, port, others),
            Message(_BEGIN, 0, body, "begin"),
            Message(_END, 0, body, "end"),
        )
