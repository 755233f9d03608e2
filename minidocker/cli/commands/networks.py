"""`network ls`, `create`, `rm`, `connect`, `disconnect`.

Source  docker network's reference.
"""

from minidocker.cli.create_body import Document, split_pairs
from minidocker.cli.listing import FORMAT_OPTION, Field, Item, filters, labels_text, show
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, each
from minidocker.client.transport import quote

LIST_OPTIONS = """
-f, --filter filter   Show only networks for which this holds
    --no-trunc        Do not shorten the output
-q, --quiet           Show only IDs
""" + FORMAT_OPTION
CREATE_OPTIONS = """
    --attachable           Let standalone containers attach
    --aux-address map      Addresses that the driver uses itself
-d, --driver string        Driver
    --gateway strings      Gateway of the subnet
    --internal             No way to other networks
    --ip-range strings     Give addresses only from this range
    --ipam-driver string   Driver for addresses
    --ipam-opt map         Options of that driver
    --ipv6                 Give IPv6 addresses too
    --label list           Set a label
-o, --opt map              Options of the driver
    --scope string         Scope of the network
    --subnet strings       Subnet in CIDR form
"""
CONNECT_OPTIONS = """
    --alias strings           One more name on the network
    --driver-opt strings      Options of the driver
    --gw-priority int         The highest gives the default gateway
    --ip string               IPv4 address
    --ip6 string              IPv6 address
    --link list               Add a link to another container
    --link-local-ip strings   Link-local addresses
"""


def _created(item: Item) -> str:
    text = str(item.get("Created") or "")
    return text.replace("T", " ").replace("Z", " +0000 UTC") if text.endswith("Z") else text


def _fields(*, full: bool) -> dict[str, Field]:
    def word(name: str, header: str) -> Field:
        return Field(header, lambda item: str(item.get(name) or ""))

    def boolean(name: str, header: str) -> Field:
        return Field(header, lambda item: "true" if item.get(name) else "false")

    def identity(item: Item) -> str:
        return str(item["Id"]) if full else str(item["Id"])[:12]

    return {"ID": Field("NETWORK ID", identity), "Name": word("Name", "NAME"), "Driver": word("Driver", "DRIVER"),
            "Scope": word("Scope", "SCOPE"), "IPv6": boolean("EnableIPv6", "IPV6"),
            "IPv4": Field("IPV4", lambda item: "true" if item.get("EnableIPv4") else "false"),
            "Internal": boolean("Internal", "INTERNAL"), "Labels": Field("LABELS", labels_text),
            "CreatedAt": Field("CREATED AT", _created)}


def listing(session: Session, options: Options, operands: list[str]) -> int:
    """`network ls`"""
    query = {"filters": filters(options.items("filter"))}
    found = session.transport.request("GET", "/networks", query=query).json()
    assert isinstance(found, list)
    found.sort(key=lambda network: str(network["Name"]))
    fields = _fields(full=options.flag("no-trunc"))
    if options.flag("quiet") and not options.text("format"):
        session.out("".join(fields["ID"].read(item) + "\n" for item in found))
        return 0
    show(session, fields, ["ID", "Name", "Driver", "Scope"], found, options.text("format"))
    return 0


def create(session: Session, options: Options, operands: list[str]) -> int:
    """`network create NETWORK`; prints its ID."""
    body: Document = {
        "Name": operands[0], "Driver": options.text("driver", "bridge"), "CheckDuplicate": True,
        "Internal": options.flag("internal"), "Attachable": options.flag("attachable"),
        "EnableIPv6": options.flag("ipv6"), "Scope": options.text("scope"),
        "Options": split_pairs(options.items("opt")), "Labels": split_pairs(options.items("label")),
        "IPAM": {"Driver": options.text("ipam-driver", "default"), "Options": split_pairs(options.items("ipam-opt")),
                 "Config": _pools(options)},
    }
    answer = session.transport.request("POST", "/networks/create", body=body).json()
    assert isinstance(answer, dict)
    if answer.get("Warning"):
        session.error(f"WARNING: {answer['Warning']}\n")
    session.out(f"{answer['Id']}\n")
    return 0


def _pools(options: Options) -> list[Document]:
    subnets = options.items("subnet")
    if not subnets:
        for name in ("gateway", "ip-range", "aux-address"):
            if options.given(name):
                raise CommandFailure("every ip-range or gateway must have a corresponding subnet")
        return []
    import ipaddress

    pools: list[Document] = [{"Subnet": subnet} for subnet in subnets]

    def pool_of(name: str, value: str) -> Document:
        try:
            address = ipaddress.ip_address(value.partition("/")[0])
            return next(pool for pool in pools if address in ipaddress.ip_network(str(pool["Subnet"]), strict=False))
        except (ValueError, StopIteration):
            raise CommandFailure(f"no matching subnet for {name} {value}") from None

    for name, key in (("gateway", "Gateway"), ("ip-range", "IPRange")):
        for value in options.items(name):
            pool_of(name, value)[key] = value
    for label, value in split_pairs(options.items("aux-address")).items():
        pool = pool_of("aux-address", value)
        known = pool.get("AuxiliaryAddresses")
        pool["AuxiliaryAddresses"] = {**(known if isinstance(known, dict) else {}), label: value}
    return pools


def remove(session: Session, options: Options, operands: list[str]) -> int:
    """`network rm NETWORK...`"""

    def one(name: str) -> str | None:
        try:
            session.transport.request("DELETE", f"/networks/{quote(name)}").read()
        except Exception as error:
            if options.flag("force") and getattr(error, "status", 0) == 404:
                return None
            raise
        return name

    return each(session, operands, one)


def connect(session: Session, options: Options, operands: list[str]) -> int:
    """`network connect NETWORK CONTAINER`"""
    endpoint: Document = {"Aliases": options.items("alias"), "Links": options.items("link"),
                          "DriverOpts": split_pairs(options.items("driver-opt"))}
    addresses: Document = {key: options.text(name) for name, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address"))
                           if options.given(name)}
    if options.given("link-local-ip"):
        addresses["LinkLocalIPs"] = options.items("link-local-ip")
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if options.given("gw-priority"):
        endpoint["GwPriority"] = options.number("gw-priority")
    body: Document = {"Container": operands[1], "EndpointConfig": endpoint}
    session.transport.request("POST", f"/networks/{quote(operands[0])}/connect", body=body).read()
    return 0


def disconnect(session: Session, options: Options, operands: list[str]) -> int:
    """`network disconnect NETWORK CONTAINER`"""
    body = {"Container": operands[1], "Force": options.flag("force")}
    session.transport.request("POST", f"/networks/{quote(operands[0])}/disconnect", body=body).read()
    return 0


LIST = Command(listing, "[OPTIONS]", LIST_OPTIONS)
CREATE = Command(create, "[OPTIONS] NETWORK", CREATE_OPTIONS, 1, 1)
REMOVE = Command(remove, "NETWORK [NETWORK...]", "-f, --force   No error if there is no such network", 1, None)
CONNECT = Command(connect, "[OPTIONS] NETWORK CONTAINER", CONNECT_OPTIONS, 2, 2)
DISCONNECT = Command(disconnect, "[OPTIONS] NETWORK CONTAINER", "-f, --force   Disconnect it whatever happens", 2, 2)
