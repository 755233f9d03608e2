"""Work in the network namespace of a container that runs: one more interface, another default route, DNS sockets.

Source  setns(2) with a pidfd; socket(2): a socket belongs for ever to the namespace that it was made in.
Rules   - done by a fork of the launcher, which ends with it: the daemon has threads and never enters a namespace.
        - pid 1 is named by a pidfd whose start time was checked; only its network namespace is entered.
        - the sockets go to whoever asked, who serves them from outside and closes them when pid 1 ends: a held socket
          keeps the namespace.
"""

import errno
import os
import socket
from typing import Any

import msgspec

from minidocker.errors import Conflict, KernelError
from minidocker.linux import ipv6, namespaces, nat, netlink
from minidocker.linux.namespaces import CloneFlag
from minidocker.runtime import records
from minidocker.runtime.records import State
from minidocker.runtime.step import FAILED
from minidocker.runtime.sync import Channel, Message

DNS_PORT = 53
NAT_TABLE = "minidocker-dns"
_BACKLOG = 128


class Route(msgspec.Struct, frozen=True):
    """A default route, of the gateway's family: over this interface, via this gateway."""

    interface: str
    gateway: str


class NetworkRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag="network"):
    """What the launcher is asked.

    network   interfaces to configure, as for pid 1 (`netlink.configure_interfaces`); loopback always
    routes    the default routes from now on; a family without one keeps what it has
    resolver  an address of loopback: open DNS sockets on it; "": none
    """

    container: State
    network: dict[str, Any] = {}
    routes: tuple[Route, ...] = ()
    resolver: str = ""


class NetworkJob:
    """One request, in the child."""

    def __init__(self, request: NetworkRequest) -> None:
        self._request = request

    def run(self, asker: Channel) -> None:
        """Do it and tell: "network" with the sockets (UDP, TCP) if they were asked for, or "error"."""
        sockets: list[socket.socket] = []
        try:
            self._enter()
            self._configure()
            for route in self._request.routes:
                netlink.replace_default_route(route.interface, route.gateway)
            if self._request.resolver:
                sockets = open_resolver(self._request.resolver)
            answer = Message("network")
        except Exception as error:
            answer = Message("error", step="change network", text=str(error) or repr(error), exit_code=FAILED)
        asker.send(answer, tuple(one.fileno() for one in sockets))

    def _configure(self) -> None:
        procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        ipv6.switch(procfs, self._request.network)
        os.close(procfs)
        netlink.configure_interfaces(self._request.network)

    def _enter(self) -> None:
        container = self._request.container
        pidfd = records.open_process(container.pid, container.start_time)
        if pidfd is None:
            raise Conflict(f"container {container.id} is not running")
        if namespaces.inode("network", container.pid) == namespaces.inode("network"):
            raise Conflict(f"container {container.id} has no network namespace of its own")
        namespaces.setns(pidfd, CloneFlag.NEWNET)
        os.close(pidfd)


def open_resolver(address: str) -> list[socket.socket]:
    """UDP and TCP sockets on free ports of `address`, which get what this namespace sends to its port 53.

    The port 53 itself stays free for a server of the container's own.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        udp.bind((address, 0))
        tcp.bind((address, 0))
        tcp.listen(_BACKLOG)
    except OSError as error:
        raise KernelError("bind", address, error.errno or errno.EADDRNOTAVAIL) from None
    ports = {"udp": udp.getsockname()[1], "tcp": tcp.getsockname()[1]}
    nat.redirect(NAT_TABLE, address, DNS_PORT, ports)
    return [udp, tcp]
