"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container: generated on the host, bound over the image's.

Source  hosts(5), resolv.conf(5); moby libnetwork (sandbox_dns_unix.go, etchosts).
Rules   - name servers on loopback would mean the container itself: left out, and public ones stand in if none is left.
        - with the host's network the host's own files are copied.
        - written before each start (the address may be new), without fsync: they are made again from the record.
"""

import ipaddress
from pathlib import Path

from minidocker.engine.container import Record
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


def hosts(record: Record, address: str | None, gateway: str | None, host_file: str | None = None) -> str:
    """The text of /etc/hosts.

    address    the container's own, or None without a network of its own.
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
    if address:
        config = record.config
        names = f"{config.hostname}.{config.domainname} {config.hostname}" if config.domainname else config.hostname
        lines.append(f"{address}\t{names}")
    return "\n".join(lines) + "\n"


def resolv_conf(record: Record, host_file: str, *, own_network: bool) -> str:
    """The text of /etc/resolv.conf from the host's, with the container's own --dns settings instead where given."""
    host = record.host
    servers, search, options = _parse(host_file)
    if own_network:
        servers = [server for server in servers if not _is_loopback(server)]
    servers = host.dns or servers or (list(FALLBACK_SERVERS) if own_network else [])
    search = host.dns_search or search
    options = host.dns_options or options
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


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True  # not an address: useless inside as well


def write(record: Record, directory: Path, address: str | None, gateway: str | None) -> None:
    """Write the three files into the container's directory."""
    own_network = record.host.network_mode != "host"
    host_hosts = None if own_network else _read(Path("/etc/hosts"))
    (directory / "hosts").write_text(hosts(record, address, gateway, host_hosts))
    (directory / "hostname").write_text(record.config.hostname + "\n")
    (directory / "resolv.conf").write_text(
        resolv_conf(record, _read(Path("/etc/resolv.conf")), own_network=own_network)
    )
    for name in ("hosts", "hostname", "resolv.conf"):
        (directory / name).chmod(0o644)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
