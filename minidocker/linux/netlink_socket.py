"""Netlink itself: messages, their attributes, and a socket that sends them and takes the answers.

Source  netlink(7); kernel Documentation/userspace-api/netlink/intro.rst.
Rules   - a batch is one sendmsg: the kernel works through its messages in order and answers each.
        - the kernel's own sentence about an error (NETLINK_EXT_ACK) becomes the hint of the KernelError.
"""

import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from minidocker.errors import KernelError

# struct nlmsghdr and nlattr: native byte order, aligned to 4.
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

REQUEST, ACK, DUMP, REPLACE, EXCL, CREATE = 0x01, 0x04, 0x300, 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ACK_TLVS = 0x200  # NLM_F_ACK_TLVS: attributes follow the error code


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its type, flags, body, and what it is about (for the error text).

    tolerate  errno values that are no failure of the batch
    """

    type: int
    flags: int
    body: bytes
    subject: str
    tolerate: Collection[int] = ()


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to 4 bytes (nested ones: concatenate their attributes as `value`)."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Take a run of attributes apart; of a repeated one the last stays. Flag bits of the type are cut off."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


class Netlink:
    """A netlink socket as a context manager; one thread at a time uses it.

    protocol  socket.NETLINK_ROUTE, or another family's number (12 is netfilter)
    names     the names of message types, for error texts
    """

    def __init__(self, protocol: int, names: Mapping[int, str]) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._names = names
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def batch(self, messages: Sequence[Message]) -> None:
        """Send all messages at once and take their answers.

        Raises  KernelError of the first message that failed (the later ones were tried all the same).
        """
        self._socket.send(b"".join(self._packed(messages)))
        self._settle(messages)

    def transaction(self, messages: Sequence[Message], begin: Message, end: Message) -> None:
        """Send all messages between `begin` and `end`, which are not answered: all take effect, or none does.

        Raises  KernelError of the first message that failed.
        """
        first = self._pack(begin.type, begin.flags | REQUEST, len(messages), begin.body)
        last = self._pack(end.type, end.flags | REQUEST, len(messages) + 1, end.body)
        self._socket.send(b"".join([first, *self._packed(messages), last]))
        self._settle([*messages, begin, end], answers=len(messages))

    def _packed(self, messages: Sequence[Message]) -> list[bytes]:
        return [self._pack(m.type, m.flags | REQUEST | ACK, n, m.body) for n, m in enumerate(messages)]

    def _settle(self, messages: Sequence[Message], *, answers: int | None = None) -> None:
        """Take the answers to the first messages (None: to all); one to a later message says that all failed."""
        failure: KernelError | None = None
        waiting = expected = len(messages) if answers is None else answers
        while waiting > 0:
            for kind, flags, sequence, body in self._receive():
                if kind != _ERROR:
                    continue
                waiting -= 1 if sequence < expected else waiting
                message = messages[sequence]
                error, hint = _outcome(flags, body)
                if error and error not in message.tolerate and failure is None:
                    failure = KernelError(self._names.get(message.type, "netlink"), message.subject, error, hint)
        if failure is not None:
            raise failure

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All answers to a dump request, without their headers."""
        self._socket.send(self._pack(kind, REQUEST | DUMP, 0, body))
        answers: list[bytes] = []
        while True:
            for answer, flags, _, content in self._receive():
                if answer == _DONE:
                    return answers
                if answer == _ERROR:
                    error, hint = _outcome(flags, content)
                    raise KernelError(self._names.get(kind, "netlink"), "dump", error, hint)
                answers.append(content)

    def ask(self, kind: int, body: bytes, subject: str) -> bytes:
        """The one answer to a request. Raises KernelError (ENODEV, ENOENT: no such object)."""
        self._socket.send(self._pack(kind, REQUEST, 0, body))
        while True:
            for answer, flags, _, content in self._receive():
                if answer == _ERROR:
                    error, hint = _outcome(flags, content)
                    raise KernelError(self._names.get(kind, "netlink"), subject, error, hint)
                return content

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 16)
        while len(data) >= 16:
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
            yield kind, flags, sequence, data[16:length]
            data = data[(length + 3) & ~3 :]

    @staticmethod
    def _pack(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
        return _HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body + b"\0" * (-len(body) % 4)


def _outcome(flags: int, body: bytes) -> tuple[int, str]:
    """errno (0: done) and the kernel's sentence of an NLMSG_ERROR."""
    error = -struct.unpack_from("=i", body)[0]
    text = attributes(body[20:]).get(1, b"") if flags & _ACK_TLVS else b""
    return error, text.rstrip(b"\0").decode(errors="replace")
