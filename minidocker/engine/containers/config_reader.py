"""Reading what a container is asked to be: the bodies of `POST /containers/create`, strictly.

Source  Docker Engine API 1.44, ContainerCreate (Config, HostConfig, NetworkingConfig).
Rules   - a field of Docker's is either supported (a field of a struct in `config`), or refused by name with the reason
          when it asks for something: none is accepted and ignored.
        - what is no field of Docker's is passed over, and names are read in any case of letters, as Docker does.
"""

import functools
from typing import Any, TypeVar

import msgspec

from minidocker import typed
from minidocker.engine.containers.config import ContainerConfig, CreateRequest, EndpointRequest, HostConfig
from minidocker.errors import InvalidArgument

T = TypeVar("T", bound=msgspec.Struct)
_WINDOWS = "it exists on Windows only"
_HOST_REFUSED = {
    "Cgroup": "joining another container's cgroup is not supported",
    "StorageOpt": "the storage driver has no per-container options",
    "CpuRealtimePeriod": "this kernel interface is not supported",
    "CpuRealtimeRuntime": "this kernel interface is not supported",
    "IOMaximumIOps": _WINDOWS,
    "IOMaximumBandwidth": _WINDOWS,
}
_ENDPOINT_REFUSED: dict[str, str] = {}
_BESIDE = ("Memory", "MemorySwap", "CpuShares", "CpusetCpus", "VolumeDriver")
# What a client copies from an inspect into a request; the daemon decides these itself.
_ENDPOINT_OUTPUT = {
    "NetworkID",
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "DNSNames",
}


def host_fields() -> frozenset[str]:
    """The names of all fields that Docker's HostConfig has."""
    return _field_names(HostConfig) | _HOST_REFUSED.keys()


def is_empty(value: object) -> bool:
    """True for null, zero, "", and lists and objects of nothing else: a client that asks for nothing."""
    if isinstance(value, dict):
        return all(is_empty(item) for item in value.values())
    if isinstance(value, list):
        return all(is_empty(item) for item in value)
    return not value


@functools.cache
def _field_names(kind: type[Any]) -> frozenset[str]:
    """A struct's fields as JSON calls them. Kept: finding them evaluates every annotation, 1 ms for a HostConfig."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def _strict(raw: dict[str, Any], kind: type[T], refused: dict[str, str], where: str) -> T:
    known, kept = _field_names(kind), {}
    for key, value in typed.named(raw, [*known, *refused]).items():
        if key in known:
            if value is not None:
                kept[key] = value
        elif key in refused and not is_empty(value):
            raise InvalidArgument(f"{where}{key} is not supported: {refused[key]}")
    try:
        return typed.convert_loosely(kept, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {where or 'Config.'.lower()}{error}") from None


def _words(value: object) -> object:
    """Docker takes a command as one string too; it is then one word."""
    return [value] if isinstance(value, str) else value


def _object(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"invalid JSON: {name} must be an object")
    return value


def _check_values(value: object, name: str) -> None:
    """What no field may hold: a NUL byte, which ends a text for the kernel, and a number beyond 64 bits."""
    if isinstance(value, str) and "\0" in value:
        raise InvalidArgument(f"invalid JSON: {name} holds a NUL byte")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument(f"invalid JSON: {name} is a number beyond 64 bits")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(key, name)
            _check_values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, name)


def _host_beside(host: dict[str, Any], plain: dict[str, Any], *, given: bool) -> dict[str, Any]:
    """HostConfig with what old clients put beside it: all of it if it is not given, else five that it leaves open."""
    names = _BESIDE if given else _field_names(HostConfig)
    open_still = {key for key in names if key in plain and is_empty(host.get(key))}
    return host | {key: plain[key] for key in open_still}


def read_create(raw: object) -> CreateRequest:
    """Read the decoded JSON body of a create request.

    Raises  InvalidArgument: a wrong type, or a field that asks for what is not supported (its name and why).
    """
    body = typed.named(_object(raw, "the body"), ("HostConfig", "NetworkingConfig", "Cmd", "Entrypoint", "Shell"))
    _check_values(body, "the body")
    plain = {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
    for key in ("Cmd", "Entrypoint", "Shell"):
        if key in plain:
            plain[key] = _words(plain[key])
    plain = typed.named(plain, _field_names(ContainerConfig) | _field_names(HostConfig))
    config = _strict(plain, ContainerConfig, {}, "")
    host = _host_beside(_object(body.get("HostConfig"), "HostConfig"), plain, given=body.get("HostConfig") is not None)
    networking = typed.named(_object(body.get("NetworkingConfig"), "NetworkingConfig"), ("EndpointsConfig",))
    endpoints = {
        name: read_endpoint(value, name)
        for name, value in _object(networking.get("EndpointsConfig"), "EndpointsConfig").items()
    }
    return CreateRequest(config, read_host(host), endpoints)


def read_host(raw: dict[str, Any]) -> HostConfig:
    """A HostConfig, or the part of one that an update has."""
    raw = typed.named(raw, ("MemorySwappiness", "CapAdd", "CapDrop"))
    if raw.get("MemorySwappiness") == -1:
        raw["MemorySwappiness"] = None
    raw |= {key: _words(raw[key]) for key in ("CapAdd", "CapDrop") if key in raw}
    return _strict(raw, HostConfig, _HOST_REFUSED, "HostConfig.")


def read_endpoint(raw: object, network: str) -> EndpointRequest:
    """One entry of EndpointsConfig (null is an empty one)."""
    fields = typed.named(_object(raw, f"endpoint of {network}"), [*_ENDPOINT_OUTPUT, "IPAMConfig"])
    value = {k: v for k, v in fields.items() if k not in _ENDPOINT_OUTPUT}
    ipam = _object(value.get("IPAMConfig"), "IPAMConfig")
    kept = {k: v for k, v in ipam.items() if v}
    value["IPAMConfig"] = kept if kept or value.get("IPAMConfig") == {} else None
    return _strict(value, EndpointRequest, _ENDPOINT_REFUSED, f"endpoint of {network}: ")
