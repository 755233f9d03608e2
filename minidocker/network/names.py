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
    """An endpoint and its names; the first one is what its address is called in reverse."""

    names: tuple[str, ...]
    address: str


class Names:
    """The names of all networks of a daemon."""

    def __init__(self) -> None:
        self._networks: dict[str, dict[str, Named]] = {}  # network -> endpoint ID -> what it is called

    def add(self, network: str, endpoint: str, names: Iterable[str], address: str) -> None:
        """An endpoint came, or has other names now."""
        distinct = tuple(dict.fromkeys(name.lower() for name in names))
        self._networks.setdefault(network, {})[endpoint] = Named(distinct, address)

    def remove(self, network: str, endpoint: str) -> None:
        """An endpoint left; one that is not there is fine."""
        there = self._networks.get(network, {})
        there.pop(endpoint, None)
        if not there:
            self._networks.pop(network, None)

    def addresses(self, networks: Sequence[str], name: str) -> list[str] | None:
        """Where `name` is, seen from a container on these networks; None: nobody has the name.

        `name.network` is understood too.
        """
        wanted = name.rstrip(".").lower()
        for label, network in self._readings(networks, wanted):
            found = [named.address for named in self._networks.get(network, {}).values() if label in named.names]
            if found:
                return found
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
                if named.address == address and named.names:
                    return f"{named.names[0]}.{network}"
        return None
