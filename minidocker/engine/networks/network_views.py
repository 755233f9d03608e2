"""Networks as the API shows them.

Source  Docker Engine API 1.44: NetworkInspect, NetworkList; documents recorded from dockerd.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from minidocker.engine.containers.container import Container
from minidocker.engine.networks import network as options
from minidocker.engine.networks.network import Network, Pool
from minidocker.network.bridge import BridgeNetwork

Document = dict[str, Any]


def document(network: Network, bridge: BridgeNetwork | None, members: Iterable[Container]) -> Document:
    """The network.

    bridge   the living bridge network, for the built-in one whose settings are the daemon's flags
    members  who is attached (an inspect); none in a list
    """
    builtin_bridge = bridge if network.builtin else None
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": [msgspec.to_builtins(pool) for pool in _pools(network, builtin_bridge)],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {member.id: _member(network, member) for member in members},
        "Options": network.options if builtin_bridge is None else _flags(builtin_bridge),
        "Labels": network.labels,
    }


def _pools(network: Network, bridge: BridgeNetwork | None) -> list[Pool]:
    return network.pools if bridge is None else [Pool(subnet=str(bridge.subnet), gateway=str(bridge.gateway))]


def _flags(bridge: BridgeNetwork) -> dict[str, str]:
    config = bridge.config
    return {
        f"{options.BRIDGE_OPTION}default_bridge": "true",
        options.ICC: str(config.icc).lower(),
        options.MASQUERADE: str(config.masquerade).lower(),
        options.HOST_ADDRESS: config.host_address,
        options.NAME: config.bridge,
        options.MTU: str(config.mtu),
    }


def endpoint_id(network_id: str, container_id: str) -> str:
    """An ID for a container's place in a network where it has no interface of its own (host, none)."""
    return hashlib.sha256(f"{network_id}/{container_id}".encode()).hexdigest()


def _member(network: Network, container: Container) -> Document:
    endpoint = container.record.attached.get(network.name)
    return {
        "Name": container.record.name,
        "EndpointID": endpoint.id if endpoint else endpoint_id(network.id, container.id),
        "MacAddress": endpoint.mac if endpoint else "",
        "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint else "",
        "IPv6Address": f"{endpoint.address6}/{endpoint.prefix6}" if endpoint and endpoint.address6 else "",
    }
