"""HTTP/1.1 to the daemon over a UNIX socket, TCP or TLS: requests, streamed answers, hijacked connections.

Source  RFC 9112 (HTTP/1.1 messages, chunked coding); Docker Engine API, "attach" (hijacking).
Rules   - the command line's hot path: `_socket`, not `socket`, and nothing that imports `re`, `enum` or `typing`.
        - one request at a time on a connection; a finished one becomes idle, a hijacked or broken one never.
        - paths carry no API version: the daemon answers in its own, which saves the question.
"""

from _socket import AF_UNIX, IPPROTO_TCP, SHUT_WR, SOCK_CLOEXEC, SOCK_STREAM, TCP_NODELAY, getaddrinfo, socket

from minidocker.client.documents import dumps, loads
from minidocker.client.response import Connection, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_URL = "unix:///run/minidocker/minidocker.sock"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")


def quote(text: str) -> str:
    """`text` percent-encoded for a path or a query value; slashes, colons and `@` stay."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)


def query_string(query: "Mapping[str, object]") -> str:
    """`?a=1&b=x`, or the empty string: None, False and empty values are left out, True is 1, dicts are JSON."""
    pairs = []
    for name, value in query.items():
        if value is None or value is False or value == "" or value == {}:
            continue
        if value is True:
            value = 1
        elif isinstance(value, dict):
            value = dumps(value)
        for item in value if isinstance(value, list) else [value]:
            pairs.append(f"{name}={quote(str(item))}")
    return "?" + "&".join(pairs) if pairs else ""


class TlsFiles:
    """Where the TLS material is: CA to trust, own certificate and key (paths or None), and whether to verify."""

    __slots__ = ("ca", "certificate", "key", "verify")

    def __init__(self, ca: str | None = None, certificate: str | None = None, key: str | None = None, *,
                 verify: bool = True) -> None:
        self.ca, self.certificate, self.key, self.verify = ca, certificate, key, verify


class Transport:
    """Requests to one daemon. Usable from several threads; each request has a connection to itself."""

    def __init__(self, url: str = "", tls: TlsFiles | None = None, headers: "Mapping[str, str] | None" = None) -> None:
        self.url = url or DEFAULT_URL
        self.tls = tls
        self.headers = dict(headers or {})
        self.idle: list[Connection] = []
        scheme, separator, rest = self.url.partition("://")
        self._path = rest if scheme == "unix" else ""
        host = rest.rstrip("/")
        if not separator or scheme not in ("unix", "tcp", "http", "https") or not rest:
            from minidocker.errors import InvalidArgument

            hint = "use unix:///path or tcp://host:port"
            raise InvalidArgument(f"unable to parse docker host `{self.url}`: {hint}")
        if scheme == "https" and tls is None:
            self.tls = TlsFiles()
        self._host = "minidocker" if scheme == "unix" else host

    def connect(self) -> Connection:
        """A new connection. Raises ConnectError with what to do."""
        try:
            return Connection(self._open_unix() if self._path else self._open_tcp())
        except OSError as error:
            from minidocker.client.failures import connect_error

            raise connect_error(self.url, error) from None

    def _open_unix(self) -> socket:
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock

    def _open_tcp(self) -> socket:
        host, _, port = self._host.rpartition(":")
        if not host or not port.isdigit():
            host, port = self._host, "2376" if self.tls else "2375"
        # bytes, because a str would import the idna codec
        found = getaddrinfo(host.strip("[]").encode(), int(port), 0, SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        sock = socket(family, kind | SOCK_CLOEXEC, protocol)
        try:
            sock.connect(address)
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        if self.tls is None:
            return sock
        from minidocker.client.tls import wrap

        return wrap(sock, host.strip("[]"), self.tls)

    def request(self, method: str, path: str, *, query: "Mapping[str, object] | None" = None, body: object = None,
                headers: "Mapping[str, str] | None" = None, hijack: bool = False) -> Response:
        """Send one request; the answer's head has been read, its body has not.

        path    such as "/containers/json", already quoted where it holds foreign text.
        query   see query_string.
        body    None, bytes, an iterator of bytes (sent chunked), or what JSON can hold.
        hijack  ask for the raw connection (101); take it with `take_connection`.
        Raises  DaemonError of the kind that the status means (>= 400), ConnectError if no daemon answers.
        """
        connection = self.send(method, path, query=query, body=body, headers=headers, hijack=hijack)
        return self.receive(connection, method)

    def send(self, method: str, path: str, *, query: "Mapping[str, object] | None" = None, body: object = None,
             headers: "Mapping[str, str] | None" = None, hijack: bool = False) -> Connection:
        """The first half of `request`: what was sent can be answered while other requests are sent."""
        lines = [f"{method} {path}{query_string(query or {})} HTTP/1.1", f"Host: {self._host}",
                 "User-Agent: minidocker"]
        fields = {**self.headers, **(headers or {})}
        payload: bytes | Iterable[bytes] = b""
        if body is None:
            if method in ("POST", "PUT"):
                lines.append("Content-Length: 0")
        elif isinstance(body, (bytes, dict, list, str)):
            payload = body if isinstance(body, bytes) else dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
            lines.append(f"Content-Length: {len(payload)}")
        else:
            payload = body  # type: ignore[assignment]
            fields.setdefault("Content-Type", "application/x-tar")
            lines.append("Transfer-Encoding: chunked")
        if hijack:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        connection = self._idle_connection() or self.connect()
        try:
            if isinstance(payload, bytes):
                connection.sock.sendall(head + payload)
            else:
                _send_chunked(connection, head, payload)
        except (BrokenPipeError, ConnectionResetError):
            pass        # the daemon may have refused early: its answer is still to be read
        except BaseException:
            connection.close()
            raise
        return connection

    def receive(self, connection: Connection, method: str = "POST") -> Response:
        """The second half of `request`."""
        try:
            response = Response(self, connection, method)
        except OSError as error:
            connection.close()
            from minidocker.client.failures import ConnectError

            raise ConnectError(f"error during connect to {self.url}: {error}") from None
        if response.status >= 400:
            raise self._failure(response)
        return response

    def _failure(self, response: Response) -> Exception:
        from minidocker.client.failures import daemon_error

        text = response.read().decode("utf-8", "replace")
        try:
            document = loads(text)
        except ValueError:
            document = None
        message = document.get("message") if isinstance(document, dict) else None
        return daemon_error(response.status, str(message or text.strip() or f"status {response.status}"))

    def _idle_connection(self) -> Connection | None:
        while self.idle:
            try:
                connection = self.idle.pop()
            except IndexError:      # another thread was faster
                return None
            if connection.alive():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close the idle connections."""
        while self.idle:
            self.idle.pop().close()


def _send_chunked(connection: Connection, head: bytes, pieces: "Iterable[bytes]") -> None:
    connection.sock.sendall(head)
    for piece in pieces:
        if piece:
            connection.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    connection.sock.sendall(b"0\r\n\r\n")


def half_close(connection: Connection) -> None:
    """Tell the daemon that no more input comes; output goes on."""
    connection.sock.shutdown(SHUT_WR)
