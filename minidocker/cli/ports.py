"""--publish and --expose: ports and ranges, with addresses and protocols.

Source  docker run's reference; go-connections' nat.ParsePortSpec.
"""

from minidocker.cli.create_body import Document
from minidocker.cli.options import Options
from minidocker.cli.session import CommandFailure


def add_ports(options: Options, document: Document, host: Document) -> None:
    """ExposedPorts and PortBindings. Raises CommandFailure (125)."""
    exposed: dict[str, object] = {}
    bindings: dict[str, list[Document]] = {}
    for text in options.items("publish"):
        for inside, binding in published(_long_form(text)):
            exposed[inside] = {}
            bindings.setdefault(inside, []).append(binding)
    for text in options.items("expose"):
        ports, protocol = _protocol(text)
        low, high = _range(ports, f"invalid range format for --expose: {text}")
        for port in range(low, high + 1):
            exposed[f"{port}/{protocol}"] = {}
    document["ExposedPorts"] = exposed
    host["PortBindings"] = bindings


def _long_form(text: str) -> str:
    """`published=8080,target=80,protocol=tcp` in the short form."""
    if "=" not in text:
        return text
    fields = dict(pair.partition("=")[::2] for pair in text.split(","))
    target = fields.get("target") or fields.get("target-port") or fields.get("container-port") or ""
    published_port = fields.get("published") or fields.get("published-port") or fields.get("host-port") or ""
    address = fields.get("host-ip") or ""
    return f"{address + ':' if address else ''}{published_port}:{target}/{fields.get('protocol', 'tcp')}"


def _protocol(text: str) -> tuple[str, str]:
    ports, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise CommandFailure(f"invalid proto: {protocol}", 125)
    return ports, protocol


def _range(text: str, problem: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        first = int(low)
        last = int(high) if dash else first
    except ValueError:
        raise CommandFailure(problem, 125) from None
    if not 0 <= first <= 65535 or not first <= last <= 65535:
        raise CommandFailure(problem, 125)
    return first, last


def published(text: str) -> list[tuple[str, Document]]:
    """`[address:][host port]:port[/protocol]` as (inside port, binding) pairs, one a port. Raises CommandFailure."""
    rest, protocol = _protocol(text)
    rest, _, inside = rest.rpartition(":")
    address, colon, outside = rest.rpartition(":")
    if not colon:
        address = ""
    address = address.strip("[]")
    if not inside:
        raise CommandFailure(f"no port specified: {text}<empty>", 125)
    low, high = _range(inside, f"invalid containerPort: {inside}")
    count = high - low + 1
    if not outside:
        return [(f"{low + index}/{protocol}", {"HostIp": address, "HostPort": ""}) for index in range(count)]
    first, last = _range(outside, f"invalid hostPort: {outside}")
    if last - first + 1 != count:
        if count != 1:
            raise CommandFailure(f"invalid ranges specified for container and host Ports: {inside} and {outside}", 125)
        # one port inside, a range outside: the daemon takes a free one of them
        return [(f"{low}/{protocol}", {"HostIp": address, "HostPort": f"{first}-{last}"})]
    return [(f"{low + index}/{protocol}", {"HostIp": address, "HostPort": str(first + index)})
            for index in range(count)]
