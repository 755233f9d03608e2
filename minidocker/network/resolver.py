"""The embedded DNS server: answers a container's questions from its own sockets inside the container's network.

Source  RFC 1035 (messages, TCP), 2308 (no data, no such name), 6891 (EDNS sizes), 5452 (forged answers); Docker's
        embedded DNS (moby daemon/libnetwork/resolver.go), what it does seen from inside.
Rules   - lives in the daemon's event loop; the sockets were made inside, questions to others leave from the host.
        - a name of the container's networks is answered here, whatever type is asked: no other server learns of it.
        - everything else goes to the servers in their order, each for a bounded time; then it is SERVFAIL.
        - packets of a container are hostile: what is no question gets FORMERR or nothing; work in flight is bounded.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from minidocker.network.upstream import ask, same_question

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"
TTL_SECONDS = 600
UDP_BYTES = 512  # what a client takes that says nothing about it
MAX_BYTES = 65535
MAX_QUESTIONS = 128  # of one container in flight
MAX_CONNECTIONS = 32  # of one container
IDLE_SECONDS = 10.0
_HEADER_BYTES = 12
# the kinds of addresses, and the types of questions that are answered with them
_ADDRESSES = {
    "A": (dns.rdatatype.A, dns.rdatatype.ANY),
    "AAAA": (dns.rdatatype.AAAA, dns.rdatatype.ANY),
}


class Zone(Protocol):
    """What the container's own networks know."""

    def addresses(self, name: str) -> list[str] | None:
        """Addresses of a name without its last dot, of IPv4 and IPv6; None: nobody has it."""

    def name_of(self, address: str) -> str | None:
        """The name of an address; None: nobody has it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Where other questions go.

    servers        (address, port), in the order of use; empty: nowhere (SERVFAIL)
    plain_names    False: names without a dot are not asked there, since the client has search domains to try
    """

    servers: tuple[tuple[str, int], ...] = ()
    plain_names: bool = True


class Resolver:
    """The DNS server of one container. `start`, then it answers until `close`."""

    def __init__(self, zone: Zone, policy: Policy, sockets: Sequence[socket.socket]) -> None:
        self._zone, self.policy = zone, policy
        self._udp, self._tcp = sockets
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._turn = itertools.count()
        self._starting = self._closed = False

    async def start(self) -> None:
        """Serve on the sockets, which are this resolver's from here on. It may be closed meanwhile."""
        loop = asyncio.get_running_loop()
        if self._closed:
            return
        for one in (self._udp, self._tcp):
            one.setblocking(False)
        self._starting = True
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=self._udp)
            self._server = await asyncio.start_server(self._connected, sock=self._tcp)
        finally:
            self._starting = False
            if self._closed:
                self._release()

    def close(self) -> None:
        """Close the sockets and give up what is in flight; twice is fine."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        if not self._starting:
            self._release()

    def _release(self) -> None:
        """Close the sockets, the loop first: what it still watches would be deaf to whoever gets the number next."""
        if self._transport is not None:
            self._transport.abort()
        if self._server is not None:
            self._server.close()
        if self._tcp.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._tcp)
        for one in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                one.close()

    # -- UDP --

    def received(self, packet: bytes, sender: tuple[str, int]) -> None:
        """A datagram came; when too much is in flight it is dropped, and the client asks again."""
        if len(self._tasks) >= MAX_QUESTIONS:
            return
        task = asyncio.get_running_loop().create_task(self._answer_datagram(packet, sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, packet: bytes, sender: tuple[str, int]) -> None:
        answer = await self.answer(packet, tcp=False)
        if answer is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, sender)

    # -- TCP --

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._connections >= MAX_CONNECTIONS or task is None:
            writer.transport.abort()
            return
        self._connections += 1
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        except asyncio.CancelledError:
            pass  # closed: nobody waits for this task's outcome
        finally:
            self._connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                packet = await reader.readexactly(length)
            answer = await self.answer(packet, tcp=True)
            if answer is None:
                return
            writer.write(struct.pack("!H", len(answer)) + answer)
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.drain()

    # -- answers --

    async def answer(self, packet: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a packet; None: it deserves none."""
        if len(packet) < _HEADER_BYTES or packet[2] & 0x80:  # an answer of somebody
            return None
        try:
            query = dns.message.from_wire(packet)
            if query.opcode() != dns.opcode.QUERY:
                return _failure(query, dns.rcode.NOTIMP)
            if len(query.question) != 1:
                return _failure(query, dns.rcode.FORMERR)
            local = self._local(query)
        except Exception as error:  # of a library that reads what a hostile client wrote
            log.debug("not a question", extra={"reason": str(error)})
            return packet[:2] + struct.pack("!H8x", 0x8000 | dns.rcode.FORMERR)
        if local is not None:
            return _packed(local, _room(query, tcp=tcp))
        return await self._forward(packet, query, tcp=tcp)

    def _local(self, query: dns.message.Message) -> dns.message.Message | None:
        """The answer, if the question is about the container's networks."""
        question = query.question[0]
        if question.rdclass != dns.rdataclass.IN:
            return None
        name = question.name.to_text(omit_final_dot=True)
        if question.rdtype == dns.rdatatype.PTR:
            return self._reverse(query, question)
        found = self._zone.addresses(name)
        if found is None:
            return None
        answer = _response(query)
        for kind, wanted in _ADDRESSES.items():
            addresses = [address for address in found if (":" in address) == (kind == "AAAA")]
            if question.rdtype in wanted and addresses:
                start = next(self._turn) % len(addresses)  # another one is the first each time: clients take that
                turned = addresses[start:] + addresses[:start]
                answer.answer.append(dns.rrset.from_text_list(question.name, TTL_SECONDS, "IN", kind, turned))
        return answer

    def _reverse(self, query: dns.message.Message, question: dns.rrset.RRset) -> dns.message.Message | None:
        try:
            address = dns.reversename.to_address(question.name)
        except (dns.exception.DNSException, ValueError):
            return None
        name = self._zone.name_of(address)
        if name is None:
            return None
        answer = _response(query)
        answer.answer.append(dns.rrset.from_text_list(question.name, TTL_SECONDS, "IN", "PTR", [f"{name}."]))
        return answer

    async def _forward(self, packet: bytes, query: dns.message.Message, *, tcp: bool) -> bytes:
        question = query.question[0]
        plain = len(question.name.labels) <= 2  # one label and the root
        if plain and not self.policy.plain_names and question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            return _packed(_response(query), UDP_BYTES)
        spare: bytes | None = None  # a server's own SERVFAIL or REFUSED, if no other one knows better
        for server in self.policy.servers:
            disguised = secrets.token_bytes(2) + packet[2:]
            try:
                reply = await ask(server, disguised, tcp=tcp)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                log.debug("a name server did not answer", extra={"server": server, "reason": str(error)})
                continue
            if not same_question(disguised, reply):
                continue
            reply = packet[:2] + reply[2:]
            if reply[3] & 0x0F in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):
                spare = spare or reply
                continue
            return reply if tcp else _fitted(reply, _room(query, tcp=False), query)
        return spare or _failure(query, dns.rcode.SERVFAIL)


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams to the resolver."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.received(data, addr)


def _response(query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> dns.message.Message:
    answer = dns.message.make_response(query, recursion_available=True, our_payload=1232)
    answer.set_rcode(rcode)
    return answer


def _failure(query: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
    return _packed(_response(query, rcode), UDP_BYTES)


def _room(query: dns.message.Message, *, tcp: bool) -> int:
    if tcp:
        return MAX_BYTES
    return max(UDP_BYTES, query.payload) if query.edns >= 0 else UDP_BYTES


def _packed(answer: dns.message.Message, room: int) -> bytes:
    """As bytes; what does not fit is left out and the answer says so: the client asks again by TCP."""
    wire = answer.to_wire(
        max_size=room,
        prefer_truncation=True,
        want_shuffle=False,  # type: ignore[arg-type, unused-ignore]  # untyped before dnspython 2.9
    )
    return bytes(wire)


def _fitted(reply: bytes, room: int, query: dns.message.Message) -> bytes:
    if len(reply) <= room:
        return reply
    answer = _response(query)
    answer.flags |= dns.flags.TC
    return _packed(answer, room)
