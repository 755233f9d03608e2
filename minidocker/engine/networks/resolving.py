"""Names for containers: what each one is called on its networks, and the DNS server inside each that asks.

Source  Docker's embedded DNS; moby daemon/container_operations.go (buildEndpointDNSNames), libnetwork/resolver.go.
Rules   - names come and go with endpoints; only user-defined networks have names.
        - the sockets are closed when pid 1 ends, watched by a pidfd of its own: held open they keep the namespace.
        - used from the loop's thread.
"""

import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidocker.engine.containers import etc_files
from minidocker.engine.containers.container import Container, Record
from minidocker.engine.networks import attachments, links
from minidocker.errors import MinidockerError, NotFound
from minidocker.network.names import Names

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine
    from minidocker.network.resolver import Policy, Resolver

log = logging.getLogger(__name__)

DNS_PORT = 53
MAX_SERVERS = 3


def names_of(record: Record, network: str) -> list[str]:
    """What a container is called on a user-defined network; the first is its name in reverse."""
    request = record.networks.get(network)
    aliases = (request.aliases if request is not None else None) or []
    return list(dict.fromkeys([record.name, *aliases, record.id[:12], record.config.hostname]))


class OwnZone:
    """The names that one container may ask for: those of its networks, and its own links."""

    def __init__(self, names: Names, record: Record, user_defined: "UserDefined") -> None:
        self._names, self._record, self._user_defined = names, record, user_defined

    def _networks(self) -> list[str]:
        attached = self._record.attached
        leading = attachments.gateway_network(self._record.networks, attached)
        return sorted(filter(self._user_defined, attached), key=lambda name: (name != leading, name))

    def addresses(self, name: str) -> list[str] | None:
        networks = self._networks()
        for network in networks:
            request = self._record.networks.get(network)
            for text in (request.links if request is not None else None) or []:
                target, alias = links.parse(text)
                if alias.lower() == name.lower():
                    found = self._names.addresses([network], target)
                    if found is not None:
                        return found
        return self._names.addresses(networks, name)

    def name_of(self, address: str) -> str | None:
        return self._names.name_of(self._networks(), address)


class UserDefined:
    """Tells whether a network is a user-defined one."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def __call__(self, name: str) -> bool:
        try:
            return self._engine.networks.get(name).user_defined
        except MinidockerError:
            return False


class Resolving:
    """The names of one engine's containers, and their DNS servers."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._user_defined = UserDefined(engine)
        self._names = Names()
        self._resolvers: dict[str, Resolver] = {}

    def came(self, container: Container) -> None:
        """A container has come to networks, or is called otherwise now; twice is fine."""
        record = container.record
        for network, endpoint in record.attached.items():
            if self._user_defined(network):
                self._names.add(network, endpoint.id, names_of(record, network), endpoint.addresses)
        self._update(container)

    def left(self, container: Container, network: str) -> None:
        """A container is about to leave one of its networks."""
        endpoint = container.record.attached.get(network)
        if endpoint is not None:
            self._names.remove(network, endpoint.id)

    def left_all(self, container: Container) -> None:
        """A container has ended."""
        for network in container.record.attached:
            self.left(container, network)
        self.end(container.id)

    async def serve(self, container: Container, sockets: Sequence[socket.socket]) -> None:
        """Answer on these sockets, which are the resolver's now, until the container's pid 1 ends."""
        if not sockets:
            return
        try:
            pidfd = self._engine.runtime.open_pidfd(container.id)
        except NotFound:
            pidfd = None
        if pidfd is None:  # it has ended meanwhile
            for one in sockets:
                one.close()
            return
        from minidocker.network.resolver import Resolver  # 4 MB, for user-defined networks alone

        self.end(container.id)
        zone = OwnZone(self._names, container.record, self._user_defined)
        resolver = self._resolvers[container.id] = Resolver(zone, self._policy(container), sockets)
        self._engine.background.on_end(pidfd, lambda: self._ended(container.id, resolver))
        await resolver.start()

    async def _ended(self, id: str, resolver: "Resolver") -> None:
        if self._resolvers.get(id) is resolver:
            self.end(id)

    def end(self, id: str) -> None:
        """Close a container's DNS server; none is fine."""
        resolver = self._resolvers.pop(id, None)
        if resolver is not None:
            resolver.close()

    def close(self) -> None:
        """Close all: the next daemon makes new sockets."""
        for id in list(self._resolvers):
            self.end(id)

    def _policy(self, container: Container) -> "Policy":
        from minidocker.network.resolver import Policy

        record = container.record
        leads_out = bool(attachments.gateway_network(record.networks, record.attached))
        servers = etc_files.upstreams(record)[:MAX_SERVERS] if leads_out else []
        dots = etc_files.ndots(record.host.dns_options or [])
        return Policy(tuple((server, DNS_PORT) for server in servers), plain_names=not dots)

    def _update(self, container: Container) -> None:
        resolver = self._resolvers.get(container.id)
        if resolver is not None:
            resolver.policy = self._policy(container)
