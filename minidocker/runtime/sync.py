"""Messages between the daemon, a monitor and the process that becomes the command.

Source  unix(7): SOCK_SEQPACKET keeps message borders, SCM_RIGHTS carries descriptors.
Rules   - one message is one JSON packet; an end of file is news too: after `exec` it means that execve succeeded
          (the socket is close-on-exec), before it that the peer died.
        - a socket never reaches the command: both ends are close-on-exec.
"""

import array
import errno
import socket
from typing import Any

import msgspec

from minidocker import typed

LOGGING_STEP = "initialize logging driver"
_PACKET_BYTES = 1 << 17


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message.

    kind       from pid 1: "namespaces", "console" (with the pty's master), "mounted", "exec", "warning", "error";
               from the monitor to the daemon: "created", "started", "error"; to pid 1 and from the daemon: "start".
               from a child that works in a network namespace: "network" (with DNS sockets), "error".
    step       the step that failed, for instance "mount /proc".
    text       what happened, for "error" and "warning".
    exit_code  what an exit by this error counts as: 127 not found, 126 not executable, 128 all else.
    network    the interfaces to configure, with "start"; None: leave the network alone.
    """

    kind: str
    pid: int = 0
    step: str = ""
    text: str = ""
    exit_code: int = 0
    network: dict[str, Any] | None = None


_decoder = typed.decoder(Message)
_encoder = msgspec.json.Encoder()


class Channel:
    """One end of a packet socket that carries messages."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Two connected ends."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self.socket.fileno()

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send one message. Returns False if the peer is gone: its end is noticed elsewhere (pidfd, end of file)."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self.socket.sendmsg([_encoder.encode(message)], ancillary, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                return False
            raise
        return True

    def receive(self) -> tuple[Message | None, list[int]]:
        """Wait for one message and its descriptors. None: the peer closed its end."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.socket, _PACKET_BYTES, 4)
        except ConnectionResetError:  # the peer ended with our last message unread; its own last words are still here
            packet, descriptors, _, _ = socket.recv_fds(self.socket, _PACKET_BYTES, 4)
        return (_decoder.decode(packet) if packet else None), descriptors

    def close(self) -> None:
        """Close this end."""
        self.socket.close()
