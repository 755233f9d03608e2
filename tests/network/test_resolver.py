"""The DNS server of a container, asked over real sockets; other name servers are played by the test."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset
import pytest

from minidocker.network import resolver as module
from minidocker.network import upstream
from minidocker.network.resolver import Policy, Resolver

HERE = "127.0.0.1"


class Zone:
    """web is at two addresses, db at one, many at very many, and both at addresses of IPv4 and IPv6."""

    def addresses(self, name: str) -> list[str] | None:
        many = [f"10.9.{n // 250}.{n % 250}" for n in range(300)]
        return {"web": ["10.1.0.2", "10.1.0.3"], "db": ["10.2.0.2"], "many": many,
                "both": ["10.1.0.4", "fd00:1::4", "10.1.0.5", "fd00:1::5"]}.get(name.lower())

    def name_of(self, address: str) -> str | None:
        return {"10.1.0.2": "web.front", "fd00:1::4": "both.front"}.get(address)


Reply = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class Server(asyncio.DatagramProtocol):
    """A name server of the test, on UDP and TCP at one port. What `reply` gives is sent; None: silence."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.asked: list[str] = []

    async def start(self) -> "Server":
        loop = asyncio.get_running_loop()
        while True:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(HERE, 0))
            self.address: tuple[str, int] = self._udp.get_extra_info("sockname")
            try:
                self._tcp = await asyncio.start_server(self._connected, *self.address)
                return self
            except OSError:  # the number is free on UDP alone
                self._udp.close()

    def _answer(self, packet: bytes, how: str) -> bytes | None:
        query = dns.message.from_wire(packet)
        self.asked.append(f"{how} {query.question[0].name}")
        reply = self._reply(query)
        return reply.to_wire() if isinstance(reply, dns.message.Message) else reply

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data, "udp")
        if answer is not None:
            self._udp.sendto(answer, addr)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self._answer(await reader.readexactly(length), "tcp")
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    def end(self) -> None:
        self._udp.close()
        self._tcp.close()


def says(address: str) -> Reply:
    def reply(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
        return answer

    return reply


def says_code(code: dns.rcode.Rcode) -> Reply:
    def reply(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.set_rcode(code)
        return answer

    return reply


class Asker:
    """A client of the resolver under test."""

    def __init__(self, udp: socket.socket, tcp: socket.socket) -> None:
        self.udp, self.tcp = udp.getsockname()[1], tcp.getsockname()[1]

    async def __call__(self, name: str, kind: str = "A", *, tcp: bool = False, edns: int = -1) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=edns if edns < 0 else 0, payload=max(edns, 0) or None)
        if tcp:
            return await dns.asyncquery.tcp(query, HERE, port=self.tcp, timeout=20)
        return await dns.asyncquery.udp(query, HERE, port=self.udp, timeout=20)


def with_resolver(
    test: Callable[[Asker, list[Server], Resolver], Awaitable[None]], *replies: Reply, plain_names: bool = True
) -> None:
    """Run `test` with a resolver that asks servers which reply like that."""

    async def run() -> None:
        servers = [await Server(reply).start() for reply in replies]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((HERE, 0))
        tcp = socket.create_server((HERE, 0))
        asker = Asker(udp, tcp)
        policy = Policy(tuple(server.address for server in servers), plain_names)
        resolver = Resolver(Zone(), policy, [udp, tcp])
        await resolver.start()
        try:
            await test(asker, servers, resolver)
        finally:
            resolver.close()
            for server in servers:
                server.end()

    asyncio.run(run())


def addresses(answer: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in answer.answer for item in rrset]


@pytest.mark.parametrize("tcp", [False, True])
def test_a_name_of_the_networks_is_answered_and_nobody_else_is_asked(tcp: bool) -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        answer = await ask("DB", tcp=tcp)
        assert addresses(answer) == ["10.2.0.2"]
        assert answer.flags & dns.flags.RA and answer.flags & dns.flags.QR
        assert servers[0].asked == []

    with_resolver(test, says("192.0.2.1"))


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV"])
def test_another_type_of_a_known_name_is_no_data(kind: str) -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        answer = await ask("web", kind)
        assert (answer.rcode(), answer.answer, servers[0].asked) == (dns.rcode.NOERROR, [], [])

    with_resolver(test, says("192.0.2.1"))


@pytest.mark.parametrize("tcp", [False, True])
def test_each_family_is_answered_with_its_own_addresses(tcp: bool) -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        assert sorted(addresses(await ask("both", "AAAA", tcp=tcp))) == ["fd00:1::4", "fd00:1::5"]
        assert sorted(addresses(await ask("both", "A", tcp=tcp))) == ["10.1.0.4", "10.1.0.5"]
        assert len(addresses(await ask("both", "ANY", tcp=tcp))) == 4
        reverse = dns.reversename.from_address("fd00:1::4").to_text()
        assert addresses(await ask(reverse, "PTR", tcp=tcp)) == ["both.front."]
        assert servers[0].asked == []

    with_resolver(test, says("192.0.2.1"))


def test_a_shared_name_begins_with_another_address_each_time() -> None:
    async def test(ask: Asker, _servers: list[Server], _: Resolver) -> None:
        seen = [addresses(await ask("web")) for _ in range(2)]
        assert sorted(seen) == [["10.1.0.2", "10.1.0.3"], ["10.1.0.3", "10.1.0.2"]]

    with_resolver(test)


def test_an_address_of_the_networks_has_a_name_and_others_are_asked_elsewhere() -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        assert addresses(await ask("2.0.1.10.in-addr.arpa", "PTR")) == ["web.front."]
        assert servers[0].asked == []
        assert (await ask("9.9.9.10.in-addr.arpa", "PTR")).rcode() == dns.rcode.NXDOMAIN
        assert servers[0].asked == ["udp 9.9.9.10.in-addr.arpa."]

    with_resolver(test, says_code(dns.rcode.NXDOMAIN))


@pytest.mark.parametrize("tcp", [False, True])
def test_other_names_are_asked_of_the_first_server_the_same_way(tcp: bool) -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        assert addresses(await ask("example.org", tcp=tcp)) == ["192.0.2.1"]
        assert servers[0].asked == [f"{'tcp' if tcp else 'udp'} example.org."]
        assert servers[1].asked == []

    with_resolver(test, says("192.0.2.1"), says("192.0.2.2"))


def test_no_such_name_is_final() -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        assert (await ask("nobody.example.org")).rcode() == dns.rcode.NXDOMAIN
        assert servers[1].asked == []

    with_resolver(test, says_code(dns.rcode.NXDOMAIN), says("192.0.2.2"))


def test_a_server_that_fails_or_refuses_is_not_the_last_word() -> None:
    async def test(ask: Asker, _servers: list[Server], _: Resolver) -> None:
        assert addresses(await ask("example.org")) == ["192.0.2.3"]

    with_resolver(test, says_code(dns.rcode.SERVFAIL), says_code(dns.rcode.REFUSED), says("192.0.2.3"))


def test_if_all_fail_the_first_failure_is_the_answer() -> None:
    async def test(ask: Asker, _servers: list[Server], _: Resolver) -> None:
        assert (await ask("example.org")).rcode() == dns.rcode.REFUSED

    with_resolver(test, says_code(dns.rcode.REFUSED), says_code(dns.rcode.SERVFAIL))


def test_silent_servers_become_servfail_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real, given = upstream.ask, []

    async def quick(server: tuple[str, int], packet: bytes, *, tcp: bool) -> bytes:
        given.append(server)
        return await real(server, packet, tcp=tcp, seconds=0.05)

    monkeypatch.setattr(module, "ask", quick)

    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        assert (await ask("example.org")).rcode() == dns.rcode.SERVFAIL
        assert given == [server.address for server in servers]

    with_resolver(test, lambda query: None, lambda query: None)
    assert upstream.ANSWER_SECONDS * 3 < 10


def test_nobody_at_the_port_of_a_server_is_noticed_at_once() -> None:
    async def test(ask: Asker, servers: list[Server], resolver: Resolver) -> None:
        dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        dead.bind((HERE, 0))
        nobody: tuple[str, int] = dead.getsockname()
        dead.close()
        resolver.policy = Policy((nobody, servers[0].address))
        assert addresses(await ask("example.org")) == ["192.0.2.1"]
        assert addresses(await ask("example.org", tcp=True)) == ["192.0.2.1"]

    with_resolver(test, says("192.0.2.1"))


def test_without_servers_other_names_are_servfail() -> None:
    async def test(ask: Asker, _servers: list[Server], _: Resolver) -> None:
        assert (await ask("example.org")).rcode() == dns.rcode.SERVFAIL

    with_resolver(test)


def test_what_does_not_fit_into_a_datagram_is_cut_and_comes_whole_by_tcp() -> None:
    async def test(ask: Asker, _servers: list[Server], _: Resolver) -> None:
        cut = await ask("many")
        assert cut.flags & dns.flags.TC and len(cut.to_wire()) <= 512
        assert len(addresses(await ask("many", tcp=True))) == 300
        roomy = await ask("many", edns=8000)
        assert not roomy.flags & dns.flags.TC and len(addresses(roomy)) == 300

    with_resolver(test)


def test_a_long_answer_of_another_server_is_cut_for_a_client_with_little_room() -> None:
    def long(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        texts = [f"192.0.2.{n}" for n in range(200)]
        answer.answer.append(dns.rrset.from_text_list(query.question[0].name, 60, "IN", "A", texts))
        return answer

    async def test(ask: Asker, _servers: list[Server], _: Resolver) -> None:
        cut = await ask("example.org")
        assert cut.flags & dns.flags.TC and not cut.answer
        assert len(addresses(await ask("example.org", tcp=True))) == 200

    with_resolver(test, long)


def test_an_answer_to_another_question_or_with_another_id_is_not_taken() -> None:
    def forged(query: dns.message.Message) -> bytes:
        honest = says("192.0.2.66")(query)
        assert isinstance(honest, dns.message.Message)
        honest.id ^= 1
        return honest.to_wire()

    def other(query: dns.message.Message) -> dns.message.Message:
        question = dns.message.make_query("evil.example.org", "A", id=query.id)
        answer = says("192.0.2.66")(question)
        assert isinstance(answer, dns.message.Message)
        return answer

    async def test(ask: Asker, _servers: list[Server], resolver: Resolver) -> None:
        query = dns.message.make_query("example.org", "A").to_wire()
        for server in resolver.policy.servers:
            with pytest.raises(TimeoutError):
                await upstream.ask(server, query, tcp=False, seconds=0.05)
        assert (await ask("example.org", tcp=True)).rcode() == dns.rcode.SERVFAIL

    with_resolver(test, forged, other)


def test_a_plain_name_is_not_asked_elsewhere_if_search_domains_come_first() -> None:
    async def test(ask: Asker, servers: list[Server], _: Resolver) -> None:
        assert (await ask("printer")).rcode() == dns.rcode.NOERROR
        assert servers[0].asked == []
        assert addresses(await ask("printer.example.org")) == ["192.0.2.1"]

    with_resolver(test, says("192.0.2.1"), plain_names=False)


@pytest.mark.parametrize(
    "packet",
    [b"", b"\0" * 5, b"\xff" * 12, b"\0\1\1\0\0\1" + b"\0" * 6, b"\0\1\1\0\xff\xff" + b"\0" * 6 + b"\xc0\x0c" * 9,
     b"\0\1\x81\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", b"\0\1\x28\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", b"\0\1\1\0" + b"\0" * 8],
)  # fmt: skip
def test_what_is_no_question_does_no_harm(packet: bytes) -> None:
    async def test(ask: Asker, servers: list[Server], resolver: Resolver) -> None:
        answer = await resolver.answer(packet, tcp=False)
        if answer is not None:
            assert dns.message.from_wire(answer).rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP)
        with socket.create_connection((HERE, ask.tcp)) as hostile:
            hostile.sendall(struct.pack("!H", len(packet)) + packet)
        assert addresses(await ask("db")) == ["10.2.0.2"]
        assert servers[0].asked == []

    with_resolver(test, says("192.0.2.1"))


def test_after_close_nobody_holds_the_sockets() -> None:
    async def test(ask: Asker, _servers: list[Server], resolver: Resolver) -> None:
        await ask("db", tcp=True)
        resolver.close()
        resolver.close()
        await asyncio.sleep(0)
        for kind, port in ((socket.SOCK_DGRAM, ask.udp), (socket.SOCK_STREAM, ask.tcp)):
            free = socket.socket(socket.AF_INET, kind)
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((HERE, port))
            free.close()

    with_resolver(test)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("cancelled", [False, True])
def test_closed_while_it_starts_it_takes_no_descriptor_from_who_comes_next(steps: int, cancelled: bool) -> None:
    """A loop that still watches a closed socket is deaf to a connection that gets its number."""

    async def run() -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((HERE, 0))
        resolver = Resolver(Zone(), Policy(), [udp, socket.create_server((HERE, 0))])
        starting = asyncio.ensure_future(resolver.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        resolver.close()
        if cancelled:
            starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        pairs = [socket.socketpair() for _ in range(3)]
        for ours, theirs in pairs:
            ours.setblocking(False)
            reading = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 1))
            await asyncio.sleep(0)
            theirs.send(b"x")
            assert await asyncio.wait_for(reading, 20) == b"x"
        for pair in pairs:
            for one in pair:
                one.close()

    asyncio.run(run())
