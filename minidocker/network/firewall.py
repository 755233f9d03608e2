"""The firewall of one daemon: its table holds what it should, whoever else works on the host's rules.

Source  nft(8); DESIGN of the tables: rules.py and openings.py.
Rules   - the wanted state is in memory; a change is one transaction, and if that is refused (somebody flushed the
          ruleset) the table is written anew from the wanted state.
        - callable from any thread: one lock for the table and the socket to netfilter.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Sequence

from minidocker.network import conntrack, openings, rules
from minidocker.network.nftables import Nftables, NftablesError
from minidocker.network.rules import NetworkRules, Published

log = logging.getLogger(__name__)


class Firewall:
    """The table `name` (also the mark of our rules in others' chains).

    Nothing is touched before the first network is added.
    """

    def __init__(self, name: str, library: Nftables) -> None:
        self.name = name
        self._nftables = library
        self._lock = threading.RLock()
        self._networks: dict[str, NetworkRules] = {}
        self._ports: dict[tuple[str, str], str] = {}  # (map, key) -> element
        self._installed = False
        self._generation = 0  # of the kernel's ruleset, when we last looked at all of it

    def add_network(self, network: NetworkRules) -> None:
        """Masquerade, isolate and let through what this network should; idempotent."""
        with self._lock:
            self._networks[network.bridge] = network
            self._install()
            self._change(rules.change("add", self.name, rules.network_elements(network)))
            self._open()

    def remove_network(self, bridge: str) -> None:
        """Forget a network; with the last one the table goes too."""
        with self._lock:
            network = self._networks.pop(bridge, None)
            openings.close_for(self._nftables, self.name, bridge)
            if not self._networks:
                self.remove()
            elif network is not None:
                self._change(rules.change("delete", self.name, rules.network_elements(network)))

    def publish(self, address: str, ports: Sequence[Published]) -> None:
        """Lead the host's ports to the container at `address`. Raises NftablesError: none of them is published."""
        with self._lock:
            wanted = {rules.port_key(port): rules.port_element(address, port)[1] for port in ports}
            before = dict(self._ports)
            self._ports.update(wanted)
            try:
                self._change(rules.change("add", self.name, [(key[0], element) for key, element in wanted.items()]))
            except NftablesError:
                self._ports = before
                raise

    def republish(self, address: str, ports: Sequence[Published]) -> None:
        """Lead ports that are published to another address: in one transaction, so nobody finds them closed."""
        with self._lock:
            wanted = {rules.port_key(port): rules.port_element(address, port)[1] for port in ports}
            there = [key for key in wanted if key in self._ports]
            self._ports.update(wanted)
            added = [(key[0], element) for key, element in wanted.items()]
            self._change(rules.change("delete", self.name, there) + rules.change("add", self.name, added))

    def unpublish(self, ports: Sequence[Published]) -> None:
        """Take the host's ports away; those not there are fine."""
        with self._lock:
            gone = [key for key in map(rules.port_key, ports) if self._ports.pop(key, None) is not None]
            self._change(rules.change("delete", self.name, gone))

    def forget_udp(self, ports: Collection[int], address: str | None) -> None:
        """Forget UDP flows to these host ports, or answered from `address`: they follow an old translation."""
        with self._lock:
            conntrack.forget_udp(self._nftables.netfilter, ports=ports, address=address)

    def expect(self, address: str, ports: Sequence[Published]) -> None:
        """After a daemon's restart: these ports are published already; `rewrite` says so to the kernel."""
        with self._lock:
            self._ports.update({rules.port_key(port): rules.port_element(address, port)[1] for port in ports})

    def rewrite(self) -> None:
        """Bring the table to the wanted state in one transaction; what belongs to nobody goes."""
        with self._lock:
            self._run(self._everything())

    def refresh(self) -> None:
        """If others changed the ruleset since our last look: is our table whole, does a new table drop what we forward?

        One small question to the kernel when nothing changed.
        """
        with self._lock:
            if not self._networks or self._nftables.generation() == self._generation:
                return
            ruleset = self._nftables.list("ruleset")
            if not any(item.get("table", {}).get("name") == self.name for item in ruleset):
                log.warning("the table was removed by somebody and is written anew", extra={"table": self.name})
                self._nftables.run(self._everything())
            self._open()

    def remove(self) -> None:
        """Remove the table and every marked rule, whatever state they are in."""
        with self._lock:
            self._networks, self._ports, self._installed = {}, {}, False
            openings.close_for(self._nftables, self.name)
            self._nftables.run(rules.remove_table(self.name))

    def _open(self) -> None:
        openings.open_for(self._nftables, self.name, list(self._networks))
        self._generation = self._nftables.generation()

    def _run(self, commands: str) -> None:
        """One transaction; if nobody else wrote since our last look, the new generation is ours."""
        alone = self._nftables.generation() == self._generation
        self._nftables.run(commands)
        if alone:
            self._generation = self._nftables.generation()

    def _install(self) -> None:
        if self._installed:
            return
        try:
            self._run(rules.table(self.name))
        except NftablesError as error:  # a table of an older shape
            log.info("the table is written anew", extra={"table": self.name, "reason": str(error)})
            self._run(rules.remove_table(self.name) + rules.table(self.name))
        self._installed = True

    def _change(self, commands: str) -> None:
        if not commands:
            return
        try:
            self._run(commands)
        except NftablesError as error:
            log.warning("a change was refused: table written anew", extra={"table": self.name, "reason": str(error)})
            self._run(rules.remove_table(self.name) + self._everything())

    def _everything(self) -> str:
        elements: Iterable[tuple[str, str]] = [
            *(element for network in self._networks.values() for element in rules.network_elements(network)),
            *((key[0], element) for key, element in self._ports.items()),
        ]
        return rules.table(self.name) + rules.empty(self.name) + rules.change("add", self.name, elements)
