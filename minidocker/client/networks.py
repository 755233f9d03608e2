"""Networks, by the client.

Source  Docker Engine API, "Networks".
"""

from collections.abc import Mapping, Sequence

from minidocker.client.containers import Container
from minidocker.client.resource import Document, Resource, document, documents
from minidocker.client.transport import Transport, quote


class Network(Resource):
    """One network."""

    collection = "networks"
    inspect_suffix = ""

    def connect(self, container: Container | str, *, aliases: Sequence[str] = (), ipv4_address: str = "") -> None:
        """Give the container an interface on this network."""
        endpoint: Document = {"Aliases": list(aliases)}
        if ipv4_address:
            endpoint["IPAMConfig"] = {"IPv4Address": ipv4_address}
        body = {"Container": _id(container), "EndpointConfig": endpoint}
        self.transport.request("POST", f"{self.path}/connect", body=body).read()

    def disconnect(self, container: Container | str, *, force: bool = False) -> None:
        """Take the container's interface on this network away."""
        body = {"Container": _id(container), "Force": force}
        self.transport.request("POST", f"{self.path}/disconnect", body=body).read()

    def remove(self) -> None:
        """Remove the network. Raises errors.Forbidden or Conflict while containers use it."""
        self.transport.request("DELETE", self.path).read()


def _id(container: Container | str) -> str:
    return container if isinstance(container, str) else container.id


class Networks:
    """The networks of a daemon."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> list[Network]:
        """All networks that the filters let through."""
        response = self.transport.request("GET", "/networks", query={"filters": dict(filters or {})})
        return [Network(self.transport, item) for item in documents(response.json())]

    def get(self, name: str) -> Network:
        """The network of that name or ID. Raises errors.NotFound."""
        return Network(self.transport, document(self.transport.request("GET", f"/networks/{quote(name)}").json()))

    def create(self, name: str, *, driver: str = "bridge", subnet: str = "", gateway: str = "", internal: bool = False,
               enable_ipv6: bool = False,
               labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None) -> Network:
        """Make a network; `subnet` in CIDR form, else the daemon chooses one. enable_ipv6: one of IPv6 too."""
        pool = {key: value for key, value in (("Subnet", subnet), ("Gateway", gateway)) if value}
        body: Document = {
            "Name": name, "Driver": driver, "CheckDuplicate": True, "Internal": internal,
            "EnableIPv6": enable_ipv6,
            "IPAM": {"Driver": "default", "Config": [pool] if pool else []},
            "Labels": dict(labels or {}), "Options": dict(options or {}),
        }
        created = document(self.transport.request("POST", "/networks/create", body=body).json())
        return self.get(str(created["Id"]))

    def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[str]:
        """Remove the networks that no running container is in. Returns their names."""
        response = self.transport.request("POST", "/networks/prune", query={"filters": dict(filters or {})})
        names = document(response.json()).get("NetworksDeleted") or ()
        assert isinstance(names, Sequence)
        return [str(name) for name in names]
