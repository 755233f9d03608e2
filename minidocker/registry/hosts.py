"""Registry hosts: where a domain's registry answers, and how its certificate is checked.

Source  moby daemon configuration (--insecure-registry, --registry-mirror, certs.d); RFC 8446 is OpenSSL's business.
Rules   - https always, except for loopback and for registries that the operator listed as insecure: there https is
          tried first, without checking the certificate, then http.
        - mirrors are for docker.io only, are tried first and only for pulls, and never see a user's credentials.
        - loopback is decided by the literal address or the name `localhost`, never by DNS, which a stranger may answer.
"""

import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp.abc import AbstractResolver
from yarl import URL

from minidocker.errors import InvalidArgument
from minidocker.oci.reference import DEFAULT_DOMAIN
from minidocker.registry.retry import Retry

HUB_HOST = "registry-1.docker.io"
DEFAULT_CERTS_DIRS = (Path("/etc/docker/certs.d"), Path("/etc/minidocker/certs.d"))


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """What the operator said about registries.

    insecure    hosts ("registry.lan:5000", "registry.lan") or networks ("10.0.0.0/8") that may speak http or have any
                certificate.
    mirrors     base URLs tried first for docker.io images.
    certs_dirs  each holds HOST[:PORT]/ with *.crt (CAs) and *.cert + *.key (client certificates).
    retry       how often and how long to try again.
    resolver    finds addresses of names; None: the system's.
    Raises      InvalidArgument: a mirror or an insecure registry is not one.
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    certs_dirs: tuple[Path, ...] = DEFAULT_CERTS_DIRS
    retry: Retry = field(default_factory=Retry)
    resolver: AbstractResolver | None = None

    def __post_init__(self) -> None:
        for mirror in self.mirrors:
            check_mirror(mirror)
        for entry in self.insecure:
            if "://" in entry or not entry:
                raise InvalidArgument(
                    f"insecure registry {entry!r} is not valid: give a host, host:port or network, no scheme"
                )

    def allows_http(self, url: URL) -> bool:
        """True if plain http to the host of `url` is acceptable."""
        host, port = url.host or "", url.explicit_port
        if is_loopback(host):
            return True
        names = {host, f"{host}:{port or url.port}"}
        return any(entry in names or _in_network(host, entry) for entry in self.insecure)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address at which a registry may answer.

    base    scheme, host and port.
    tls     how to check the peer; None for http.
    mirror  True: it holds copies for docker.io.
    """

    base: URL
    tls: ssl.SSLContext | None
    mirror: bool = False

    def __str__(self) -> str:
        return str(self.base).rstrip("/")


def check_mirror(text: str) -> URL:
    """Read a mirror's address. Raises InvalidArgument: not http(s), or with user, path, query or fragment."""
    try:
        url = URL(text)
    except ValueError:
        raise InvalidArgument(f"invalid mirror: {text!r} is not an address") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidArgument(f"invalid mirror: {text!r}: expected http://HOST[:PORT] or https://HOST[:PORT]")
    if url.user or url.path not in ("", "/") or url.query_string or url.fragment:
        raise InvalidArgument(f"invalid mirror: {text!r}: a user, path, query or fragment is not allowed")
    return url.origin()


def is_loopback(host: str) -> bool:
    """True for `localhost` and for addresses of the machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def endpoints(config: RegistryConfig, domain: str, *, pull: bool) -> list[Endpoint]:
    """Where to look for `domain`'s registry, in order.

    pull    False: pushing or logging in, so without mirrors.
    Raises  InvalidArgument: a certs.d directory is incomplete or unreadable.
    """
    found: list[Endpoint] = []
    if domain == DEFAULT_DOMAIN and pull:
        found += [_mirror(config, check_mirror(mirror)) for mirror in config.mirrors]
    url = URL(f"https://{HUB_HOST if domain == DEFAULT_DOMAIN else domain}")
    insecure = config.allows_http(url)
    found.append(Endpoint(url, tls_context(config, url, verify=not insecure)))
    if insecure:
        found.append(Endpoint(URL(f"http://{domain}"), None))
    return found


def _mirror(config: RegistryConfig, url: URL) -> Endpoint:
    # A scheme of http is the operator's own word for this one address.
    verify = not config.allows_http(url)
    return Endpoint(url, tls_context(config, url, verify=verify) if url.scheme == "https" else None, mirror=True)


def tls_context(config: RegistryConfig, url: URL, *, verify: bool) -> ssl.SSLContext:
    """TLS settings for the host of `url`.

    verify  False: take any certificate, unless certs.d names a CA for this host.
    Raises  InvalidArgument: a file in certs.d is missing its pair or cannot be used.
    """
    files = list(_certs_files(config.certs_dirs, url))
    authorities = [path for path in files if path.suffix == ".crt"]
    if verify or authorities:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in files:
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, _paired(path, ".key"))
            elif path.suffix == ".key":
                _paired(path, ".cert")
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"cannot use the certificate file {path}: {error}") from None
    return context


def _certs_files(certs_dirs: Iterable[Path], url: URL) -> Iterable[Path]:
    host = url.host or ""
    names = [f"{host}:{url.explicit_port}"] if url.explicit_port else [host, f"{host}:443"]
    if host == HUB_HOST:
        names.append(DEFAULT_DOMAIN)
    for directory in certs_dirs:
        for name in names:
            folder = directory / name
            if folder.is_dir():
                yield from sorted(path for path in folder.iterdir() if path.suffix in (".crt", ".cert", ".key"))


def _paired(path: Path, suffix: str) -> Path:
    other = path.with_suffix(suffix)
    if not other.exists():
        raise InvalidArgument(
            f"missing {other.name} beside {path}: a client certificate is a .cert and a .key; a CA's ends in .crt"
        )
    return other
