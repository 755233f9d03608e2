"""--network and what belongs to it: aliases, addresses, MAC address, links.

Source  docker run's reference, "--network" (short and `name=...,alias=...,ip=...` forms); API, "EndpointSettings".
"""

from minidocker.cli.create_body import Document, split_pairs
from minidocker.cli.options import Options, UsageError


def add_networks(options: Options, document: Document, host: Document) -> None:
    """NetworkMode and NetworkingConfig. Raises CommandFailure (125)."""
    networks = [_network(text) for text in options.items("network") + options.items("net")]
    if networks:
        host["NetworkMode"] = networks[0][0]
    first = networks[0] if networks else ("default", {})
    aliases = options.items("network-alias") + options.items("net-alias")
    name, endpoint = first
    if aliases:
        endpoint["Aliases"] = aliases
    addresses: Document = {}
    for option, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if options.given(option):
            addresses[key] = options.text(option)
    if options.given("link-local-ip"):
        addresses["LinkLocalIPs"] = options.items("link-local-ip")
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if options.given("link"):
        endpoint["Links"] = options.items("link")
    if options.given("mac-address"):
        endpoint["MacAddress"] = document["MacAddress"] = options.text("mac-address")
    chosen = dict([(name, endpoint), *networks[1:]])
    if len(networks) > 1 or any(chosen.values()):
        document["NetworkingConfig"] = {"EndpointsConfig": chosen}


def _network(text: str) -> tuple[str, Document]:
    if "=" not in text:
        return text, {}
    endpoint: Document = {}
    name = ""
    aliases: list[str] = []
    driver_options: list[str] = []
    addresses: Document = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        match key.strip().lower():
            case "name":
                name = value
            case "alias":
                aliases.append(value)
            case "driver-opt":
                driver_options.append(value)
            case "ip":
                addresses["IPv4Address"] = value
            case "ip6":
                addresses["IPv6Address"] = value
            case "mac-address":
                endpoint["MacAddress"] = value
            case "gw-priority":
                endpoint["GwPriority"] = int(value)
            case _:
                raise UsageError(f'invalid argument "{text}" for "--network" flag: invalid field {key}')
    if not name:
        raise UsageError(f'invalid argument "{text}" for "--network" flag: network name/id is not specified')
    if aliases:
        endpoint["Aliases"] = aliases
    if driver_options:
        endpoint["DriverOpts"] = split_pairs(driver_options)
    if addresses:
        endpoint["IPAMConfig"] = addresses
    return name, endpoint
