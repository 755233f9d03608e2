"""The firewall of one daemon: its table holds what it should, whoever else works on the host's rules.

Source  nft(8); DESIGN of the tables: rules.py and openings.py.
Rules   - the wanted state is in memory; a change is one transaction, and if that is refused (somebody flushed the
          ruleset) the table is written anew from the wanted state.
        - callable from any thread: one lock for the table and the socket to netfilter.
        - one table a family: that of IPv6 is made with the first network that has it.
"""

import logging
import socket
import threading
from collections.abc import Collection, Iterable, Sequence

from minidocker.errors import Unsupported
from minidocker.network import conntrack, openings, rules
from minidocker.network.nftables import Nftables, NftablesError
from minidocker.network.rules import NetworkRules, Published

log = logging.getLogger(__name__)


class Firewall:
    """The table `name` (also the mark of our rules in others' chains).

    Nothing is touched before the first network is added.

    family  of its table: "ip"; or "ip6", which `ipv6` makes
    """

    def __init__(self, name: str, library: Nftables, family: str = "ip") -> None:
        self.name = name
        self.family = family
        self._six: Firewall | None = None
        self._nftables = library
        self._lock = threading.RLock()
        self._networks: dict[str, NetworkRules] = {}
        self._ports: dict[tuple[str, str], str] = {}  # (map, key) -> element
        self._installed = False
        self._generation = 0  # of the kernel's ruleset, when we last looked at all of it

    def ipv6(self) -> "Firewall":
        """The same for IPv6, made at the first call."""
        with self._lock:
            if self._six is None:
                self._six = Firewall(self.name, self._nftables, "ip6")
            return self._six

    def of(self, family: str) -> "Firewall":
        """This one, or `ipv6`."""
        return self if family == self.family else self.ipv6()

    def add_network(self, network: NetworkRules) -> None:
        """Masquerade, isolate and let through what this network should; idempotent."""
        with self._lock:
            self._networks[network.bridge] = network
            self._install()
            self._change(rules.change("add", self.name, rules.network_elements(network), self.family))
            self._open()

    def remove_network(self, bridge: str) -> None:
        """Forget a network; with the last one the table goes too."""
        with self._lock:
            network = self._networks.pop(bridge, None)
            openings.close_for(self._nftables, self.name, bridge, self.family)
            if not self._networks:
                self.remove()
            elif network is not None:
                self._change(rules.change("delete", self.name, rules.network_elements(network), self.family))

    def publish(self, address: str, ports: Sequence[Published]) -> None:
        """Lead the host's ports to the container at `address`. Raises NftablesError: none of them is published."""
        with self._lock:
            wanted = {rules.port_key(port): rules.port_element(address, port)[1] for port in ports}
            before = dict(self._ports)
            self._ports.update(wanted)
            added = [(key[0], element) for key, element in wanted.items()]
            try:
                self._change(rules.change("add", self.name, added, self.family))
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
            gone = rules.change("delete", self.name, there, self.family)
            self._change(gone + rules.change("add", self.name, added, self.family))

    def unpublish(self, ports: Sequence[Published]) -> None:
        """Take the host's ports away; those not there are fine."""
        with self._lock:
            gone = [key for key in map(rules.port_key, ports) if self._ports.pop(key, None) is not None]
            self._change(rules.change("delete", self.name, gone, self.family))

    def forget_udp(self, ports: Collection[int], address: str | None) -> None:
        """Forget UDP flows to these host ports, or answered from `address`: they follow an old translation."""
        with self._lock:
            family = socket.AF_INET if self.family == "ip" else socket.AF_INET6
            conntrack.forget_udp(self._nftables.netfilter, ports=ports, address=address, family=family)

    def expect(self, address: str, ports: Sequence[Published]) -> None:
        """After a daemon's restart: these ports are published already; `rewrite` says so to the kernel."""
        with self._lock:
            self._ports.update({rules.port_key(port): rules.port_element(address, port)[1] for port in ports})

    def rewrite(self) -> None:
        """Bring the tables to the wanted state, each in one transaction; what belongs to nobody goes."""
        with self._lock:
            self._run(self._everything())
            if self._six is not None:
                self._six.rewrite()
            elif self.family == "ip":
                self.remove_ipv6()

    def remove_ipv6(self) -> None:
        """No network has IPv6: remove the table that an earlier daemon may have left."""
        if any(table.get("table", {}).get("family") == "ip6" and table["table"]["name"] == self.name
               for table in self._nftables.list("tables")):  # fmt: skip
            Firewall(self.name, self._nftables, "ip6").remove()

    def refresh(self) -> None:
        """If others changed the ruleset since our last look: is our table whole, does a new table drop what we forward?

        One small question to the kernel when nothing changed.
        """
        with self._lock:
            if self._six is not None:
                self._six.refresh()
            if not self._networks or self._nftables.generation() == self._generation:
                return
            ruleset = self._nftables.list("ruleset")
            ours = {"family": self.family, "name": self.name}
            if not any(ours.items() <= item.get("table", {}).items() for item in ruleset):
                log.warning("the table was removed by somebody and is written anew", extra={"table": self.name})
                self._nftables.run(self._everything())
            self._open()

    def remove(self) -> None:
        """Remove the table and every marked rule, whatever state they are in."""
        with self._lock:
            self._networks, self._ports, self._installed = {}, {}, False
            openings.close_for(self._nftables, self.name, family=self.family)
            self._nftables.run(rules.remove_table(self.name, self.family))

    def _open(self) -> None:
        openings.open_for(self._nftables, self.name, list(self._networks), self.family)
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
            self._run(rules.table(self.name, self.family))
        except NftablesError as error:  # a table of an older shape
            log.info("the table is written anew", extra={"table": self.name, "reason": str(error)})
            again = rules.remove_table(self.name, self.family) + rules.table(self.name, self.family)
            self._run_or_explain(again)
        self._installed = True

    def _run_or_explain(self, commands: str) -> None:
        """Raises Unsupported: the kernel has no address translation for IPv6; NftablesError."""
        try:
            self._run(commands)
        except NftablesError as error:
            if self.family == "ip":
                raise
            raise Unsupported(
                f"this kernel cannot translate addresses of IPv6 ({error}): networks with IPv6 need nftables' family "
                "ip6 and NAT for it (CONFIG_NF_TABLES_IPV6, CONFIG_NF_NAT); create the network without --ipv6"
            ) from None

    def _change(self, commands: str) -> None:
        if not commands:
            return
        try:
            self._run(commands)
        except NftablesError as error:
            log.warning("a change was refused: table written anew", extra={"table": self.name, "reason": str(error)})
            self._run(rules.remove_table(self.name, self.family) + self._everything())

    def _everything(self) -> str:
        elements: Iterable[tuple[str, str]] = [
            *(element for network in self._networks.values() for element in rules.network_elements(network)),
            *((key[0], element) for key, element in self._ports.items()),
        ]
        begin = rules.table(self.name, self.family) + rules.empty(self.name, self.family)
        return begin + rules.change("add", self.name, elements, self.family)
