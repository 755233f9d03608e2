"""Asking another name server: one question, one socket, a bounded time.

Source  RFC 1035 4.2 (UDP, TCP), RFC 5452 (a fresh port and ID for each question, answers compared with it).
Rules   - a connected UDP socket takes datagrams of that server only, and is told when nobody listens there.
        - an answer to another question is not ours: UDP waits on, TCP gives up.
"""

import asyncio
import struct

ANSWER_SECONDS = 2.5
_LONGEST = 65535


async def ask(server: tuple[str, int], packet: bytes, *, tcp: bool, seconds: float = ANSWER_SECONDS) -> bytes:
    """The server's answer to a packet.

    server  address and port
    Raises  TimeoutError, OSError (nobody listens), asyncio.IncompleteReadError (TCP cut short).
    """
    async with asyncio.timeout(seconds):
        return await (_ask_tcp if tcp else _ask_udp)(server, packet)


async def _ask_udp(server: tuple[str, int], packet: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answer(packet, answer), remote_addr=server)
    try:
        transport.sendto(packet)
        return await answer
    finally:
        transport.abort()


async def _ask_tcp(server: tuple[str, int], packet: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack("!H", len(packet)) + packet)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()


class _Answer(asyncio.DatagramProtocol):
    """Waits for the answer to one packet."""

    def __init__(self, packet: bytes, answer: "asyncio.Future[bytes]") -> None:
        self._packet, self._answer = packet, answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answer.done() and same_question(self._packet, data):
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


def same_question(query: bytes, reply: bytes) -> bool:
    """Whether `reply` is an answer with the ID and the question of `query` (names in any case).

    >>> asked = bytes.fromhex("1234 0100 0001 0000 0000 0000 0161 00 0001 0001")
    >>> same_question(asked, asked), same_question(asked, asked[:2] + b"\\x81" + asked[3:])
    (False, True)
    """
    end = _question_end(query)
    if end is None or len(reply) < end or not reply[2] & 0x80 or reply[:2] != query[:2]:
        return False
    return reply[4:6] == query[4:6] and reply[12:end].lower() == query[12:end].lower()


def _question_end(packet: bytes) -> int | None:
    """Where the first question ends; None: it is none, or has a compressed name (a question needs none)."""
    position = 12
    while position < min(len(packet), _LONGEST):
        length = packet[position]
        if length == 0:
            return position + 5 if position + 5 <= len(packet) else None
        if length > 63:
            return None
        position += length + 1
    return None
