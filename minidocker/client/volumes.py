"""Volumes, by the client.

Source  Docker Engine API, "Volumes".
"""

from collections.abc import Mapping, Sequence

from minidocker.client.resource import Resource, document, documents
from minidocker.client.transport import Transport, quote


class Volume(Resource):
    """One volume; its ID is its name."""

    collection = "volumes"
    inspect_suffix = ""

    @property
    def id(self) -> str:
        """The name."""
        return str(self.attrs.get("Name", ""))

    def remove(self, *, force: bool = False) -> None:
        """Remove the volume and what is in it. Raises errors.Conflict while a container uses it."""
        self.transport.request("DELETE", self.path, query={"force": force}).read()


class Volumes:
    """The volumes of a daemon."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> list[Volume]:
        """All volumes that the filters let through."""
        response = self.transport.request("GET", "/volumes", query={"filters": dict(filters or {})})
        return [Volume(self.transport, item) for item in documents(document(response.json()).get("Volumes"))]

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises errors.NotFound."""
        return Volume(self.transport, document(self.transport.request("GET", f"/volumes/{quote(name)}").json()))

    def create(self, name: str = "", *, driver: str = "local", labels: Mapping[str, str] | None = None,
               options: Mapping[str, str] | None = None) -> Volume:
        """Make a volume (without a name: an anonymous one), or give back the one of that name."""
        body = {"Name": name, "Driver": driver, "Labels": dict(labels or {}), "DriverOpts": dict(options or {})}
        return Volume(self.transport, document(self.transport.request("POST", "/volumes/create", body=body).json()))
