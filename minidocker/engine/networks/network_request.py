"""The body of `POST /networks/create`, read strictly, and the network that it asks for.

Source  Docker Engine API 1.44, NetworkCreate; texts recorded from dockerd.
Rules   - pure: what the request alone can tell is checked here, what depends on other networks in networks.py.
        - what this daemon cannot do is refused with the reason, never accepted and ignored. Options with names that the
          bridge driver does not have are kept and shown, as Docker does.
"""

import re
import secrets
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network

import msgspec

from minidocker import typed
from minidocker.engine import clock
from minidocker.engine.networks import network as options
from minidocker.engine.networks.network import Network, Pool
from minidocker.engine.values import truth
from minidocker.errors import Forbidden, InvalidArgument, NotFound, Unavailable, Unsupported
from minidocker.network.addresses import Address, Subnet

PREDEFINED = ("bridge", "host", "none", "default")
Interface = IPv4Interface | IPv6Interface
_KERNEL_DRIVERS = ("macvlan", "ipvlan")


class IPAM(msgspec.Struct, rename="pascal"):
    """Who gives addresses, and from where."""

    driver: str = ""
    options: dict[str, str] | None = None
    config: list[Pool] | None = None


class ConfigFrom(msgspec.Struct, rename="pascal"):
    """The network whose configuration is copied (swarm's)."""

    network: str = ""


class CreateBody(msgspec.Struct, rename={"enable_ipv6": "EnableIPv6", "enable_ipv4": "EnableIPv4", "ipam": "IPAM",
    "name": "Name", "driver": "Driver", "scope": "Scope", "internal": "Internal", "attachable": "Attachable",
    "ingress": "Ingress", "config_only": "ConfigOnly", "config_from": "ConfigFrom", "options": "Options",
    "labels": "Labels"}):  # fmt: skip
    """What a client asks for."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: IPAM | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


def parse(raw: object) -> CreateBody:
    """The body as a struct. What is null was not said, at any depth. Raises InvalidArgument: a wrong type."""
    try:
        return typed.convert(without_nulls(raw), CreateBody)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None


def without_nulls(value: object) -> object:
    """`value` without the fields of objects that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def read(body: CreateBody) -> Network:
    """The network that is asked for; its address is known if the subnet was named.

    Raises  InvalidArgument, Forbidden (a predefined name), NotFound (no such driver), Unsupported.
    """
    _check_name(body.name)
    _check_kind(body)
    ipam = body.ipam or IPAM()
    if ipam.driver not in ("", "default", "null"):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    pools = ipam.config or []
    addresses = {pool.version: _address(pool) for pool in pools}
    if len(addresses) < len(pools):
        raise Forbidden("bridge driver doesn't support multiple subnets")
    ipv6 = bool(body.enable_ipv6)
    wanted = dict(body.options or {})
    _check_options(wanted)
    return Network(
        name=body.name,
        id=secrets.token_hex(32),
        driver="bridge",
        created=clock.now(),
        internal=body.internal,
        attachable=body.attachable,
        labels=dict(body.labels or {}),
        options=wanted,
        ipam_options=ipam.options,
        pools=pools,
        static=4 in addresses,
        address=str(addresses.get(4, "")),
        ipv6=ipv6,
        static6=ipv6 and 6 in addresses,
        address6=str(addresses.get(6, "")) if ipv6 else "",
    )


def _check_name(name: str) -> None:
    if not name.strip() or "/" in name or any(ord(character) < 32 for character in name):
        raise InvalidArgument(f"invalid name: {name}")
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if name.startswith("container:"):
        raise InvalidArgument(f"invalid name: {name}: it means another container's network")


def _check_kind(body: CreateBody) -> None:
    driver = body.driver or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Unavailable("This node is not a swarm manager; minidocker has no swarm: create a bridge network")
    if body.scope not in ("", "local"):
        raise Forbidden("cannot create a swarm scoped network when swarm is not active; minidocker has no swarm")
    if body.ingress:
        raise Forbidden("Ingress network can only be global scope network; minidocker has no swarm")
    if driver in _KERNEL_DRIVERS:
        raise Unsupported(f"{driver} networks are not supported by minidocker; create a bridge network")
    if driver != "bridge":
        raise NotFound(f'plugin "{driver}" not found')
    if body.config_only or (body.config_from is not None and body.config_from.network):
        raise Unsupported("configurations of networks (config-only, config-from) are not supported by minidocker")
    if body.enable_ipv4 is False:
        raise Unsupported("IPv4 cannot be disabled: a bridge network of this daemon has IPv4, and IPv6 beside it")


def _check_options(wanted: dict[str, str]) -> None:
    for key in (options.ICC, options.MASQUERADE):
        try:
            truth(wanted.get(key, "true"))
        except InvalidArgument as error:
            raise InvalidArgument(f"failed to parse {key} value: {wanted[key]} ({error})") from None
    mtu = wanted.get(options.MTU, "0") or "0"
    if not (mtu.isascii() and mtu.isdecimal() and (int(mtu) == 0 or 68 <= int(mtu) <= 65535)):
        raise InvalidArgument(f"invalid value of option {options.MTU}: {mtu!r}; an MTU is a number from 68 to 65535")
    for key in (options.NAME, options.INTERFACE_PREFIX):
        name = wanted.get(key, "")
        if name and not re.fullmatch(r"[^\s/:%]{1,15}", name):
            raise InvalidArgument(f"invalid value of option {key}: {name!r} is no name of an interface")
    try:
        IPv4Address(wanted.get(options.HOST_ADDRESS) or "0.0.0.0")
    except ValueError:
        raise InvalidArgument(
            f"invalid value of option {options.HOST_ADDRESS}: {wanted[options.HOST_ADDRESS]!r} is no IPv4 address"
        ) from None
    if wanted.get(f"{options.BRIDGE_OPTION}gateway_mode_ipv4", "nat") not in ("", "nat"):
        raise Unsupported("gateway_mode_ipv4: only nat is supported by minidocker")
    if wanted.get(f"{options.BRIDGE_OPTION}inhibit_ipv4", "false").lower() not in ("", "0", "f", "false"):
        raise Unsupported("inhibit_ipv4: the bridge's address is what minidocker's networks stand on")


def _address(pool: Pool) -> Interface:
    """The bridge's address: the gateway asked for, else the first of the range."""
    subnet = _subnet(pool.subnet)
    pool.subnet = str(subnet)
    pool.ip_range = str(_range(pool, subnet)) if pool.ip_range else ""
    auxiliary = {_inside(text, subnet, f"auxiliary address {name}") for name, text in pool.auxiliary.items()}
    if pool.gateway:
        pool.gateway = pool.gateway.partition("/")[0]
        gateway = _inside(pool.gateway, subnet, "gateway")
        if gateway in auxiliary:
            raise InvalidArgument(f"gateway {gateway} is an auxiliary address too")
        return ip_interface(f"{gateway}/{subnet.prefixlen}")
    ends = _ends(subnet)
    for candidate in ip_network(pool.ip_range) if pool.ip_range else subnet:
        if candidate not in ends and candidate not in auxiliary and subnet.prefixlen < subnet.max_prefixlen:
            return ip_interface(f"{candidate}/{subnet.prefixlen}")
    raise InvalidArgument("failed to allocate gateway (): No available addresses on this pool")


def _ends(subnet: Subnet) -> set[Address]:
    """The addresses of a subnet that nobody can have."""
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return set()
    return {subnet.network_address, subnet.broadcast_address} if subnet.version == 4 else {subnet.network_address}


def _subnet(text: str) -> Subnet:
    """The subnet, also of an address within it, as Docker takes it up to version 24."""
    try:
        if "/" not in text:
            raise ValueError(text)
        return ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"Invalid subnet {text} : invalid CIDR address: {text}") from None


def _range(pool: Pool, subnet: Subnet) -> Subnet:
    try:
        found = ip_network(pool.ip_range, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid ip-range {pool.ip_range}: no subnet in CIDR form") from None
    if found.version != subnet.version or not found.subnet_of(subnet):  # type: ignore[arg-type]  # of one version
        raise InvalidArgument(f"invalid ip-range {pool.ip_range}: it does not lie within subnet {subnet}")
    return found


def _inside(text: str, subnet: Subnet, what: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid {what}: {text!r} is no IP address") from None
    if address not in subnet:
        raise InvalidArgument(f"invalid {what} {address}: it does not lie within subnet {subnet}")
    if address in _ends(subnet) and what == "gateway":
        raise InvalidArgument(f"invalid gateway {address}: it is the first or last address of subnet {subnet}")
    return address
