"""Names of containers on networks: who is called what, and where.

Source  Docker's embedded DNS (moby daemon/libnetwork: network.go, sandbox_dns_unix.go), what it does seen from inside.
Rules   - names are compared without regard to case (RFC 4343); a name may belong to several endpoints.
        - a container asks on its own networks only, in their order; the first that knows the name answers.
        - used by one thread.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Named:
    """An endpoint and its names; the first one is what its addresses are called in reverse."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]


class Names:
    """The names of all networks of a daemon."""

    def __init__(self) -> None:
        self._networks: dict[str, dict[str, Named]] = {}  # network -> endpoint ID -> what it is called

    def add(self, network: str, endpoint: str, names: Iterable[str], addresses: Iterable[str]) -> None:
        """An endpoint came, or has other names now."""
        distinct = tuple(dict.fromkeys(name.lower() for name in names))
        self._networks.setdefault(network, {})[endpoint] = Named(distinct, tuple(addresses))

    def remove(self, network: str, endpoint: str) -> None:
        """An endpoint left; one that is not there is fine."""
        there = self._networks.get(network, {})
        there.pop(endpoint, None)
        if not there:
            self._networks.pop(network, None)

    def addresses(self, networks: Sequence[str], name: str) -> list[str] | None:
        """Where `name` is (IPv4 and IPv6), seen from a container on these networks; None: nobody has the name.

        `name.network` is understood too.
        """
        wanted = name.rstrip(".").lower()
        for label, network in self._readings(networks, wanted):
            named = [one for one in self._networks.get(network, {}).values() if label in one.names]
            if named:
                return [address for one in named for address in one.addresses]
        return None

    @staticmethod
    def _readings(networks: Sequence[str], name: str) -> Iterable[tuple[str, str]]:
        yield from ((name, network) for network in networks)
        for network in networks:
            if name.endswith(f".{network.lower()}"):
                yield name[: -len(network) - 1], network

    def name_of(self, networks: Sequence[str], address: str) -> str | None:
        """What an address is called, seen from a container on these networks: "web.mynet"."""
        for network in networks:
            for named in self._networks.get(network, {}).values():
                if address in named.addresses and named.names:
                    return f"{named.names[0]}.{network}"
        return None
