"""The object client: `connect()` gives it, its collections hold the verbs.

Source  Docker Engine API; docker-py's names, so that its readers are at home.
Rules   - thin: every method is one or a few requests; documents are the API's own, as dicts.
        - imports neither engine nor linux: it works against any Docker daemon too.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from minidocker.client.containers import Containers
from minidocker.client.images import Images
from minidocker.client.networks import Networks
from minidocker.client.resource import Document, document
from minidocker.client.transport import TlsFiles, Transport
from minidocker.client.volumes import Volumes


class Client:
    """A daemon, by its API.

    Attributes: `containers`, `images`, `networks`, `volumes`; `transport` for requests that have no method here.
    """

    def __init__(self, url: str | None = None, *, tls: TlsFiles | None = None) -> None:
        self.transport = Transport(url or "", tls)
        self.images = Images(self.transport)
        self.containers = Containers(self.transport, self.images)
        self.networks = Networks(self.transport)
        self.volumes = Volumes(self.transport)

    def ping(self) -> bool:
        """True if the daemon answers. Raises ConnectError (errors.Unavailable) if none does."""
        return self.transport.request("GET", "/_ping").read() == b"OK"

    def version(self) -> Document:
        """Versions of the daemon, its API and the kernel."""
        return document(self.transport.request("GET", "/version").json())

    def info(self) -> Document:
        """What the daemon says of itself and its machine."""
        return document(self.transport.request("GET", "/info").json())

    def df(self) -> Document:
        """Disk used by images, containers and volumes, in bytes."""
        return document(self.transport.request("GET", "/system/df").json())

    def events(self, *, since: int | str | None = None, until: int | str | None = None,
               filters: Mapping[str, Sequence[str]] | None = None) -> Iterator[Document]:
        """Events, each as it happens; past ones only with `since` (unix seconds). Ends at `until`, else never."""
        query = {"since": since, "until": until, "filters": dict(filters or {})}
        response = self.transport.request("GET", "/events", query=query)
        try:
            for event in response.objects():
                yield document(event)
        finally:
            response.close()

    def login(self, username: str, password: str, registry: str) -> str:
        """Ask the registry, through the daemon, if the credentials are good. Raises errors.Unauthorized."""
        body = {"username": username, "password": password, "serveraddress": registry}
        return str(document(self.transport.request("POST", "/auth", body=body).json()).get("Status", ""))

    def close(self) -> None:
        """Close the idle connections; the client may be used again."""
        self.transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
