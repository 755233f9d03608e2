"""What containers, images, networks and volumes have in common in the client: a document with an ID, on a transport.

Rules   - `attrs` is the API's document as it was read; `reload` reads it again. Nothing is cached beside it.
"""

from minidocker.client.transport import Transport, quote

Document = dict[str, object]
Documents = list[Document]


def document(value: object) -> Document:
    """`value`, which the API promises to be a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def documents(value: object) -> list[Document]:
    """`value`, which the API promises to be a list of JSON objects (null counts as empty)."""
    return [document(item) for item in value] if isinstance(value, list) else []


def member(of: Document, *path: str) -> object:
    """The value at `path` inside nested documents; None if a step is missing."""
    value: object = of
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


class Resource:
    """One object of the daemon. Attributes: `attrs` (its inspect document), `id`, `name`."""

    collection = ""
    inspect_suffix = "/json"

    def __init__(self, transport: Transport, attrs: Document) -> None:
        self.transport = transport
        self.attrs = attrs

    @property
    def id(self) -> str:
        """The whole ID (a volume's is its name)."""
        return str(self.attrs.get("Id") or self.attrs.get("Name") or "")

    @property
    def short_id(self) -> str:
        """The first 12 characters of the ID's hexadecimal part."""
        return self.id.removeprefix("sha256:")[:12]

    @property
    def name(self) -> str:
        """The name, without the slash that the API puts before a container's."""
        return str(self.attrs.get("Name") or "").removeprefix("/")

    @property
    def path(self) -> str:
        """The object's path in the API."""
        return f"/{self.collection}/{quote(self.id)}"

    def reload(self) -> None:
        """Read `attrs` again. Raises errors.NotFound if the object is gone."""
        self.attrs = document(self.transport.request("GET", self.path + self.inspect_suffix).json())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or self.short_id}>"
