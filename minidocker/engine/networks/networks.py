"""Networks: the three that every daemon has (bridge, host, none) and those that users make.

Source  Docker Engine API 1.44: NetworkList, NetworkInspect, NetworkCreate, NetworkDelete, NetworkPrune; texts and
        documents recorded from dockerd.
Rules   - writing the record is the true point at which a network exists, removing it the one at which it is gone: what
          a crash leaves on the host beside the records is swept by the next daemon.
        - a built-in network's ID is made from the daemon's identity and its name, so it is the same after a restart.
        - what is attached is read off the running containers: no list of its own that could be wrong.
        - one lock for what changes the set of networks; a start that races with a remove finds no network, or keeps it.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from minidocker.engine import clock
from minidocker.engine.containers.container import Container
from minidocker.engine.containers.listing import has_label
from minidocker.engine.networks import network_request
from minidocker.engine.networks.network import Network, Pool
from minidocker.engine.networks.network_request import CreateBody
from minidocker.errors import Conflict, Forbidden, InvalidArgument, MinidockerError, NotFound, Unavailable
from minidocker.network import host
from minidocker.network.bridge import BridgeNetwork
from minidocker.network.endpoint import LiveEndpoint
from minidocker.network.firewall import Firewall
from minidocker.network.nftables import Nftables
from minidocker.network.ports import HostPorts
from minidocker.storage import records

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

log = logging.getLogger(__name__)

_FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}
_PRUNE_FILTERS = {"until", "label", "label!"}
_TRUE, _FALSE = ("1", "true", "t"), ("0", "false", "f")


class Networks:
    """The networks of an engine."""

    def __init__(self, engine: "Engine", directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._lock = asyncio.Lock()
        self._networks: dict[str, Network] = {network.name: network for network in self._built_in()}
        self._bridges: dict[str, BridgeNetwork] = {} if engine.network is None else {"bridge": engine.network}
        self._down: dict[str, str] = {}  # networks that could not be brought up, and why
        self._firewall = engine.network.firewall if engine.network is not None else None
        self._ports = engine.network.ports if engine.network is not None else HostPorts()

    def _built_in(self) -> list[Network]:
        created, settings = clock.now(), self._engine.settings
        drivers = {"bridge": "bridge"} if self._engine.network is not None else {}
        drivers |= {"host": "host", "none": "null"}
        root = f"{settings.identity or settings.data_root}"
        return [
            Network(name, hashlib.sha256(f"{root}/{name}".encode()).hexdigest(), driver, created, builtin=True)
            for name, driver in drivers.items()
        ]

    # -- find --

    def id_of(self, name: str) -> str:
        """The ID of the network of that name; "" if there is none."""
        network = self._networks.get(name)
        return network.id if network is not None else ""

    def get(self, text: str) -> Network:
        """The network of an ID, a name, or the beginning of an ID. Raises NotFound; InvalidArgument: several.

        A name may look like the ID of another network: the ID means more than the name, and the name more than the
        beginning of an ID.
        """
        networks = list(self._networks.values())
        exact = [network for network in networks if text == network.id] or [n for n in networks if text == n.name]
        found = exact or [network for network in networks if text and network.id.startswith(text)]
        if len(found) > 1:
            raise InvalidArgument(f"network {text} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {text} not found")
        return found[0]

    def bridge(self, name: str) -> BridgeNetwork:
        """The living bridge network of that name. Raises NotFound; Unavailable: it could not be brought up."""
        found = self._bridges.get(name)
        if found is None and name in self._down:
            raise Unavailable(f"network {name} is not up: {self._down[name]}; the next start of the daemon tries again")
        if found is None:
            raise NotFound(f"network {name} not found")
        return found

    def members(self, network: Network) -> list[Container]:
        """The running containers that are in it."""
        return [c for c in self._engine.containers.all() if c.state.running and network.name in c.record.networks]

    def select(self, filters: dict[str, list[str]]) -> list[Network]:
        """The networks that pass all filters. Raises InvalidArgument: an unknown filter or value."""
        for name, values in filters.items():
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
            if name == "dangling" and len(values) > 1:
                raise InvalidArgument('got more than one value for filter key "dangling"')
            for value in values:
                _check_filter(name, value)
        return [network for network in self._networks.values() if self._passes(network, filters)]

    def _passes(self, network: Network, filters: dict[str, list[str]]) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "dangling": lambda value: (not network.builtin and not self.members(network)) == (value.lower() in _TRUE),
            "driver": lambda value: network.driver == value,
            "id": lambda value: network.id.startswith(value),
            "name": lambda value: _matches(value, network.name),
            "scope": lambda value: value == "local",
            "type": lambda value: network.builtin == (value == "builtin"),
        }
        labels = all(has_label(network.labels, value) for value in filters.get("label", []))
        others = ((name, values) for name, values in filters.items() if values and name != "label")
        return labels and all(any(tests[name](value) for value in values) for name, values in others)

    # -- change --

    async def create(self, body: CreateBody) -> Network:
        """Make a network. Raises see `network_request.read`; Conflict: the name is in use; Forbidden: its subnet is."""
        network = network_request.read(body)
        async with self._lock:
            if network.name in self._networks:
                raise Conflict(f"network with name {network.name} already exists")
            self._check_free(network)
            self._check_free6(network)
            bridge = await asyncio.to_thread(self._make, network)
            self._networks[network.name], self._bridges[network.name] = network, bridge
        self._emit("create", network)
        return network

    def _check_free(self, network: Network) -> None:
        others = [other for other in self._networks.values() if other.user_defined]
        default = self._engine.network
        subnets = [other.subnet for other in others] + [default.subnet if default is not None else None]
        wanted = network.subnet
        if wanted is not None and any(wanted.overlaps(subnet) for subnet in subnets if subnet is not None):
            raise Forbidden("Pool overlaps with other one on this address space")
        for other in others:
            if other.bridge == network.bridge:
                raise Forbidden(
                    f"cannot create network {network.id} ({network.bridge}): conflicts with network {other.id} "
                    f"({other.bridge}): networks have same bridge name"
                )
        if default is not None and default.config.bridge == network.bridge:
            raise Forbidden(f"cannot create network {network.id}: {network.bridge} is the default network's bridge")

    def _check_free6(self, network: Network) -> None:
        wanted = network.subnet6
        taken = [other.subnet6 for other in self._networks.values() if other.subnet6 is not None]
        if wanted is not None and any(wanted.overlaps(subnet) for subnet in taken):
            raise Forbidden("Pool overlaps with other one on this address space")

    def _make(self, network: Network) -> BridgeNetwork:
        """In a thread: the bridge, then the record. On failure nothing stays."""
        bridge = self._bridge_of(network)
        try:
            bridge.ensure()
            network.address = f"{bridge.gateway}/{bridge.subnet.prefixlen}"
            if not network.pool(4).subnet:
                network.pools = [Pool(subnet=str(bridge.subnet), gateway=str(bridge.gateway)), *network.pools]
            if bridge.address6 is not None:
                network.address6 = str(bridge.address6)
                if not network.pool(6).subnet:
                    chosen = Pool(subnet=str(bridge.address6.network), gateway=str(bridge.address6.ip))
                    network.pools = [*network.pools, chosen]
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            records.write(self._path(network), network)  # the true point at which the network exists
        except BaseException:
            bridge.remove()
            raise
        return bridge

    def _bridge_of(self, network: Network) -> BridgeNetwork:
        avoid = [other.subnet for other in self._networks.values() if other.subnet is not None]
        avoid6 = [other.subnet6 for other in self._networks.values() if other.subnet6 is not None]
        if self._firewall is None:  # first need of it: without networks no library is loaded, no table made
            self._firewall = Firewall(host.names(self._engine.settings.exec_root).table, Nftables())
        return BridgeNetwork(network.config(tuple(avoid), tuple(avoid6)), self._firewall, self._ports)

    def _path(self, network: Network) -> Path:
        return self._directory / f"{network.id}.json"

    async def remove(self, text: str) -> None:
        """Raises NotFound. Forbidden: a built-in network, or containers are in it."""
        async with self._lock:
            network = self.get(text)
            if network.builtin:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            bridge = self._bridges.get(network.name)
            if bridge is not None and bridge.in_use():
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints"
                )
            del self._networks[network.name]
            self._bridges.pop(network.name, None)
            self._down.pop(network.name, None)
            try:
                await asyncio.to_thread(self._destroy, network, bridge)
            except BaseException:
                if self._path(network).exists():
                    self._networks[network.name] = network
                    if bridge is not None:
                        self._bridges[network.name] = bridge
                raise
        self._emit("destroy", network)

    def _destroy(self, network: Network, bridge: BridgeNetwork | None) -> None:
        records.remove_if_there(self._path(network))  # the true point at which the network is gone
        records.sync_directory(self._directory)
        if bridge is not None:
            bridge.remove()

    async def prune(self, filters: dict[str, list[str]]) -> list[str]:
        """Remove the networks that nobody is in. Returns their names. Filters: until, label, label!."""
        for name in filters:
            if name not in _PRUNE_FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        until = clock.parse_moment(filters["until"][0]) if filters.get("until") else None
        removed = []
        for network in list(self._networks.values()):
            if network.builtin or not _prunable(network, filters, until):
                continue
            try:
                await self.remove(network.id)
            except (Forbidden, NotFound):
                continue
            removed.append(network.name)
        self._engine.events.emit("network", "prune", "", {"reclaimed": "0"})
        return removed

    def _emit(self, action: str, network: Network, **more: str) -> None:
        attributes = {**more, "name": network.name, "type": network.driver}
        self._engine.events.emit("network", action, network.id, attributes)

    def tell(self, action: str, container: Container, names: Iterable[str]) -> None:
        """Emit "connect" or "disconnect" of a container for some of its networks."""
        for name in names:
            if name in self._networks:
                self._emit(action, self._networks[name], container=container.id)

    # -- the daemon's start and end --

    def restore(self, live: list[LiveEndpoint]) -> None:
        """In a thread, once: read the records, bring every network up with what lives on, sweep the rest."""
        for path in sorted(self._directory.glob("*.json")) if self._directory.is_dir() else ():
            try:
                network = records.read(path, Network)
            except MinidockerError as error:
                log.error("network is damaged and left out", extra={"path": str(path), "reason": str(error)})
                continue
            self._networks.setdefault(network.name, network)
        for network in self._networks.values():
            if network.user_defined:
                self._restore_one(network)
        if self._engine.network is not None:
            self._engine.network.ensure()  # last: it may choose a subnet, and must not choose one of theirs
        for name, bridge in self._bridges.items():
            bridge.adopt([one for one in live if one.endpoint.network == name])
        self._sweep()
        if self._firewall is not None and self._bridges:
            self._firewall.rewrite()

    def _restore_one(self, network: Network) -> None:
        """A network that cannot be brought up stays known: it can be removed, and its containers say what is wrong."""
        try:
            bridge = self._bridge_of(network)
            bridge.ensure()
        except MinidockerError as error:
            log.error("network is not up", extra={"network": network.name, "reason": str(error)})
            self._down[network.name] = str(error)
            return
        self._bridges[network.name] = bridge

    def _sweep(self) -> None:
        """Bridges of ours that no record tells of: a create or remove that a crash cut short."""
        mark = self._firewall.name if self._firewall is not None else host.names(self._engine.settings.exec_root).table
        wanted = {bridge.config.bridge for bridge in self._bridges.values()}
        wanted |= {network.bridge for network in self._networks.values() if network.user_defined}
        for name in host.marked_bridges(mark):
            if name not in wanted:
                log.info("a bridge of nobody is removed", extra={"bridge": name})
                if self._firewall is None:
                    self._firewall = Firewall(mark, Nftables())
                self._firewall.remove_network(name)
                host.remove_bridge(name)

    def close(self) -> None:
        """Nothing lives any more: take all bridges and rules off the host. The records stay."""
        for bridge in list(self._bridges.values()):
            bridge.remove()


def _check_filter(name: str, value: str) -> None:
    if name == "type" and value not in ("builtin", "custom"):
        raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    if name == "dangling" and value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidArgument('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text


def _prunable(network: Network, filters: dict[str, list[str]], until: int | None) -> bool:
    return (
        (until is None or clock.nanoseconds_of(network.created) < until)
        and all(has_label(network.labels, value) for value in filters.get("label", []))
        and not any(has_label(network.labels, value) for value in filters.get("label!", []))
    )
