"""The synchronous client of a minidocker (or Docker) daemon: `connect` gives it.

Nothing heavy is imported before `connect` is called: the command line uses the modules beneath directly.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minidocker.client.client import Client
    from minidocker.client.transport import TlsFiles


def connect(url: str | None = None, *, tls: "TlsFiles | None" = None) -> "Client":
    """A client of the daemon at `url` (unix:///path or tcp://host:port; None is the default socket).

    Connects at the first call, not now. The environment is not looked at.
    """
    from minidocker.client.client import Client

    return Client(url, tls=tls)
