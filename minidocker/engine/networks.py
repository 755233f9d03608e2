"""Networks: the three that every daemon has: bridge, host, none.

Source  Docker Engine API 1.44: NetworkList, NetworkInspect; documents recorded from dockerd.
Rules   - a network's ID is made from the daemon's identity and the network's name, so it is the same after a restart.
        - what is attached is read off the running containers: no list of its own that could be wrong.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minidocker.engine import clock, views
from minidocker.engine.container import Container
from minidocker.errors import Forbidden, InvalidArgument, NotFound, Unsupported

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

Document = dict[str, Any]
_FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}
_USER_DEFINED = (
    "user-defined networks are not part of this version of minidocker; containers share the network bridge, "
    "or one of them another's with --network container:NAME"
)


@dataclass(frozen=True, slots=True)
class Network:
    """One network: its name, ID (64 hex digits) and driver ("bridge", "host", "null")."""

    name: str
    id: str
    driver: str
    created: str


class Networks:
    """The networks of an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        created = clock.now()
        drivers = {"bridge": "bridge"} if engine.network is not None else {}
        drivers |= {"host": "host", "none": "null"}
        root = f"{engine.settings.identity or engine.settings.data_root}"
        self._networks = [
            Network(name, hashlib.sha256(f"{root}/{name}".encode()).hexdigest(), driver, created)
            for name, driver in drivers.items()
        ]

    def id_of(self, name: str) -> str:
        """The ID of the network of that name; "" if there is none."""
        return next((network.id for network in self._networks if network.name == name), "")

    def get(self, text: str) -> Network:
        """The network of a name, an ID, or the beginning of one. Raises NotFound."""
        exact = [network for network in self._networks if text in (network.name, network.id)]
        found = exact or [network for network in self._networks if text and network.id.startswith(text)]
        if len(found) != 1:
            raise NotFound(f"network {text} not found" if not found else f"network {text} is ambiguous: several match")
        return found[0]

    def select(self, filters: dict[str, list[str]]) -> list[Network]:
        """The networks that pass all filters. Raises InvalidArgument: an unknown filter."""
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        return [network for network in self._networks if self._passes(network, filters)]

    def _passes(self, network: Network, filters: dict[str, list[str]]) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "dangling": lambda value: value.lower() in ("0", "false"),  # a built-in network is never dangling
            "driver": lambda value: network.driver == value,
            "id": lambda value: network.id.startswith(value),
            "label": lambda value: False,
            "name": lambda value: value in network.name,
            "scope": lambda value: value == "local",
            "type": lambda value: value == "builtin",
        }
        return all(any(tests[name](value) for value in values) for name, values in filters.items() if values)

    def document(self, network: Network, *, containers: bool) -> Document:
        """The network as the API shows it; `containers`: who is attached (an inspect), else none (a list)."""
        return {
            "Name": network.name,
            "Id": network.id,
            "Created": network.created,
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": self._pools(network)},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": self._attached(network) if containers else {},
            "Options": self._options(network),
            "Labels": {},
        }

    def _attached(self, network: Network) -> Document:
        members = [
            container
            for container in self._engine.containers.all()
            if container.state.running and views.network_name(container.record) == network.name
        ]
        return {container.id: _member(container) for container in members}

    def _pools(self, network: Network) -> list[Document]:
        bridge = self._engine.network
        if network.driver != "bridge" or bridge is None:
            return []
        return [{"Subnet": str(bridge.subnet), "Gateway": str(bridge.gateway)}]

    def _options(self, network: Network) -> dict[str, str]:
        bridge = self._engine.network
        if network.driver != "bridge" or bridge is None:
            return {}
        config, prefix = bridge.config, "com.docker.network.bridge"
        return {
            f"{prefix}.default_bridge": "true",
            f"{prefix}.enable_icc": str(config.icc).lower(),
            f"{prefix}.enable_ip_masquerade": str(config.masquerade).lower(),
            f"{prefix}.host_binding_ipv4": config.host_address,
            f"{prefix}.name": config.bridge,
            "com.docker.network.driver.mtu": str(config.mtu),
        }

    def create(self, name: str) -> Network:
        """Raises Forbidden: the name is a built-in network's. Unsupported: every other."""
        if self.id_of(name):
            raise Forbidden(f"operation is not permitted on predefined {name} network")
        raise Unsupported(_USER_DEFINED)

    def remove(self, text: str) -> None:
        """Raises NotFound, or Forbidden: built-in networks stay."""
        raise Forbidden(f"{self.get(text).name} is a pre-defined network and cannot be removed")

    def connect(self, text: str, container: str) -> None:
        """Raises NotFound: no such network or container. Unsupported: always, then."""
        self.get(text)
        self._engine.containers.get(container)
        raise Unsupported(f"a container keeps the network that it was created with: {_USER_DEFINED}")


def _member(container: Container) -> Document:
    endpoint = container.record.endpoint
    return {
        "Name": container.record.name,
        "EndpointID": endpoint.id if endpoint else "",
        "MacAddress": endpoint.mac if endpoint else "",
        "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint else "",
        "IPv6Address": "",
    }
