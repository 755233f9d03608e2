"""A container's networks as inspect and list show them, by the client's version.

Source  Docker Engine API 1.24 to 1.44: NetworkSettings, EndpointSettings; documents recorded from dockerd.
Rules   - pure. Before 1.45 the aliases hold the short ID too; since 1.44 all DNS names are shown beside them.
        - a container that does not run shows what it was asked for: no addresses; the ID of its network from its first
          start on.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from minidocker.engine import clock
from minidocker.engine.containers.config import EndpointRequest
from minidocker.engine.containers.container import Record
from minidocker.engine.networks.attachments import DEFAULT, WITHOUT_BRIDGE
from minidocker.engine.networks.network_views import endpoint_id
from minidocker.engine.networks.resolving import names_of

Document = dict[str, Any]
Version = tuple[int, int]
NetworkIds = Callable[[str], str]
_FLAT = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


def ports_document(record: Record) -> Document:
    """NetworkSettings.Ports: exposed ports, with where they are published."""
    ports: Document = {}
    if record.attached:
        for exposed in record.config.exposed_ports or {}:
            ports[exposed if "/" in exposed else f"{exposed}/tcp"] = None
    for bound in record.ports:
        key = f"{bound.container_port}/{bound.protocol}"
        ports[key] = [*(ports.get(key) or []), {"HostIp": bound.host_address, "HostPort": str(bound.host_port)}]
    return ports


def _has_names(network: str) -> bool:
    return network not in (DEFAULT, *WITHOUT_BRIDGE)


def _aliases(record: Record, network: str, request: EndpointRequest) -> list[str] | None:
    """The aliases asked for; while it runs, with the short ID."""
    if not _has_names(network) or not record.attached.get(network):
        return request.aliases
    return list(dict.fromkeys([*(request.aliases or []), record.id[:12]]))


def _endpoint_id(record: Record, network: str, network_id: str) -> str:
    endpoint = record.attached.get(network)
    if endpoint is not None:
        return endpoint.id
    return endpoint_id(network_id, record.id) if record.state.running and network in WITHOUT_BRIDGE else ""


def endpoint_document(record: Record, network: str, network_id: str, version: Version) -> Document:
    """One entry of NetworkSettings.Networks."""
    endpoint, request = record.attached.get(network), record.networks[network]
    ipam = request.ipam_config
    document: Document = {
        "IPAMConfig": None if ipam is None else {k: v for k, v in msgspec.to_builtins(ipam).items() if v},
        "Links": request.links or None,
        "Aliases": _aliases(record, network, request) or None,
        "NetworkID": network_id if record.state.started_at != clock.NEVER else "",
        "EndpointID": _endpoint_id(record, network, network_id),
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.address6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix6 if endpoint else 0,
        "MacAddress": endpoint.mac if endpoint else request.mac_address,
        "DriverOpts": request.driver_opts,
    }
    if version >= (1, 44):
        document["DNSNames"] = names_of(record, network) if endpoint is not None and _has_names(network) else None
    return document


def network_documents(record: Record, network_id: NetworkIds, version: Version) -> Document:
    """NetworkSettings.Networks."""
    return {name: endpoint_document(record, name, network_id(name), version) for name in record.networks}


def network_settings(record: Record, network_id: NetworkIds, sandbox_key: str, version: Version) -> Document:
    """`NetworkSettings` of an inspect: beside its networks, the place in the default one once more."""
    networks = network_documents(record, network_id, version)
    default = networks.get(DEFAULT, {})
    return {
        "Bridge": "",
        "SandboxID": record.id if record.state.running else "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports_document(record),
        "SandboxKey": sandbox_key,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: default.get(key, zero) for key, zero in _FLAT.items()},
        "Networks": networks,
    }
