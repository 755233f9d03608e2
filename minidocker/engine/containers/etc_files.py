"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container: generated on the host, bound over the image's.

Source  hosts(5), resolv.conf(5); moby libnetwork (sandbox_dns_unix.go, etchosts).
Rules   - name servers on loopback would mean the container itself: left out, and public ones stand in if none is left.
        - with the host's network the host's own files are copied.
        - with the embedded DNS server it is the only name server, and names are tried as they are (ndots:0).
        - written before each start (the address may be new), without fsync: they are made again from the record.
        - a running container has them mounted, so a change is written into the same file, never renamed over it; what
          the container itself has written there stays, and a resolv.conf that it has changed is left alone.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minidocker.engine.containers.container import Record
from minidocker.engine.networks.attachments import RESOLVER_ADDRESS
from minidocker.errors import InvalidArgument

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_LOCAL_NAMES = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def hosts(
    record: Record,
    addresses: Sequence[str],
    gateway: str | None,
    host_file: str | None = None,
    links: Sequence[str] = (),
) -> str:
    """The text of /etc/hosts.

    addresses  the container's own, one a network.
    links      lines of legacy links.
    gateway    what `host-gateway` means in --add-host.
    host_file  the host's own file, for the host's network.
    """
    lines = [host_file.rstrip("\n")] if host_file is not None else [f"{ip}\t{names}" for ip, names in _LOCAL_NAMES]
    for entry in record.host.extra_hosts or []:
        name, _, target = entry.partition("=") if "=" in entry else entry.partition(":")
        if target == "host-gateway":
            if gateway is None:
                raise InvalidArgument(
                    "unable to derive the IP value for host-gateway: the container has no bridge network"
                )
            target = gateway
        lines.append(f"{target.strip('[]')}\t{name}")
    lines += [*links, *(own_line(record, address) for address in addresses)]
    return "\n".join(lines) + "\n"


def own_line(record: Record, address: str) -> str:
    """The line of /etc/hosts that says what the container is called at one of its addresses, without its end."""
    config = record.config
    names = f"{config.hostname}.{config.domainname} {config.hostname}" if config.domainname else config.hostname
    return f"{address}\t{names}"


def resolv_conf(record: Record, host_file: str, *, own_network: bool, embedded: bool = False) -> str:
    """The text of /etc/resolv.conf from the host's, with the container's own --dns settings instead where given.

    embedded  the embedded DNS server answers inside.
    """
    host = record.host
    servers, search, options = _parse(host_file)
    if own_network:
        servers = [server for server in servers if not _is_loopback(server)]
    servers = host.dns or servers or (list(FALLBACK_SERVERS) if own_network else [])
    search = host.dns_search or search
    options = host.dns_options or options
    if embedded:
        servers = [RESOLVER_ADDRESS]
        options = options if ndots(options) is not None else [*options, "ndots:0"]
    lines = [f"search {' '.join(search)}"] if search and search != ["."] else []
    lines = (
        [f"nameserver {server}" for server in servers] if not lines else [*lines, *(f"nameserver {s}" for s in servers)]
    )
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n" if lines else ""


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return servers, search, options


def ndots(options: Sequence[str]) -> int | None:
    """The number of dots that makes a name be tried as it is before search domains; None: nothing is said of it."""
    found = [word.partition(":")[2] for word in options if word.startswith("ndots:")]
    return int(found[-1]) if found and found[-1].isdecimal() else None


def upstreams(record: Record) -> list[str]:
    """The name servers that the embedded DNS server asks, from the host: loopback ones are the host's own."""
    return record.host.dns or _parse(_read(Path("/etc/resolv.conf")))[0] or list(FALLBACK_SERVERS)


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True  # not an address: useless inside as well


def write(
    record: Record,
    directory: Path,
    addresses: Sequence[str],
    gateway: str | None,
    *,
    links: Sequence[str] = (),
    embedded: bool = False,
) -> None:
    """Write the three files into the container's directory. Arguments: see `hosts` and `resolv_conf`."""
    own_network = record.host.network_mode != "host"
    host_hosts = None if own_network else _read(Path("/etc/hosts"))
    (directory / "hosts").write_text(hosts(record, addresses, gateway, host_hosts, links))
    (directory / "hostname").write_text(record.config.hostname + "\n")
    (directory / "resolv.conf").write_text(
        resolv_conf(record, _read(Path("/etc/resolv.conf")), own_network=own_network, embedded=embedded)
    )
    for name in ("hosts", "hostname", "resolv.conf"):
        (directory / name).chmod(0o644)


@dataclass(frozen=True, slots=True)
class LiveFiles:
    """The files of a container that runs."""

    record: Record
    directory: Path

    def add_address(self, address: str) -> None:
        """The container has one more address."""
        self._edit("hosts", lambda text: f"{_ended(text)}{own_line(self.record, address)}\n")

    def remove_address(self, address: str) -> None:
        """The container has that address no more."""
        line = own_line(self.record, address)
        self._edit("hosts", lambda text: "".join(f"{one}\n" for one in text.splitlines() if one != line))

    def replace_link(self, alias: str, line: str) -> None:
        """What `alias` means has another address now."""

        def replaced(one: str) -> str:
            return line if one.partition("\t")[2].split(" ")[0] == alias else one

        self._edit("hosts", lambda text: "".join(f"{replaced(one)}\n" for one in text.splitlines()))

    def remove_link(self, alias: str) -> None:
        """`alias` means nothing any more."""
        self._edit(
            "hosts",
            lambda text: "".join(
                f"{one}\n" for one in text.splitlines() if one.partition("\t")[2].split(" ")[0] != alias
            ),
        )

    def use_embedded(self) -> None:
        """From now on the embedded DNS server answers inside; a file that was changed by hand stays."""
        host_file = _read(Path("/etc/resolv.conf"))
        before = resolv_conf(self.record, host_file, own_network=True)
        after = resolv_conf(self.record, host_file, own_network=True, embedded=True)
        self._edit("resolv.conf", lambda text: after if text == before else text)

    def _edit(self, name: str, change: Callable[[str], str]) -> None:
        path = self.directory / name
        text = _read(path)
        changed = change(text)
        if changed != text:
            path.write_text(changed)


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
