"""`volume ls`, `create`, `rm`.

Source  docker volume's reference.
"""

from minidocker.cli.create_body import Document, split_pairs
from minidocker.cli.listing import FORMAT_OPTION, Field, Item, filters, labels_text, show
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, each
from minidocker.cli.values import human_size
from minidocker.client.resource import member
from minidocker.client.transport import quote

LIST_OPTIONS = """
-f, --filter filter   Show only volumes for which this holds
-q, --quiet           Show only names
""" + FORMAT_OPTION
CREATE_OPTIONS = """
-d, --driver string   Driver
    --label list      Set a label
    --name string
-o, --opt map         Options of the driver
"""


def _size(item: Item) -> str:
    size = member(item, "UsageData", "Size")
    return human_size(size, 3) if isinstance(size, int) and size >= 0 else "N/A"


def _links(item: Item) -> str:
    count = member(item, "UsageData", "RefCount")
    return str(count) if isinstance(count, int) and count >= 0 else "N/A"


def _word(name: str, header: str) -> Field:
    return Field(header, lambda item: str(item.get(name) or ""))


FIELDS: dict[str, Field] = {
    "Driver": _word("Driver", "DRIVER"), "Name": _word("Name", "VOLUME NAME"), "Scope": _word("Scope", "SCOPE"),
    "Mountpoint": _word("Mountpoint", "MOUNTPOINT"), "Labels": Field("LABELS", labels_text),
    "Links": Field("LINKS", _links), "Size": Field("SIZE", _size),
    "Availability": Field("AVAILABILITY", lambda item: "N/A"), "Group": Field("GROUP", lambda item: "N/A"),
    "Status": Field("STATUS", lambda item: "N/A"),
}


def listing(session: Session, options: Options, operands: list[str]) -> int:
    """`volume ls`"""
    query = {"filters": filters(options.items("filter"))}
    answer = session.transport.request("GET", "/volumes", query=query).json()
    assert isinstance(answer, dict)
    found = sorted(answer.get("Volumes") or [], key=lambda volume: str(volume["Name"]))
    if options.flag("quiet") and not options.text("format"):
        session.out("".join(f"{volume['Name']}\n" for volume in found))
        return 0
    show(session, FIELDS, ["Driver", "Name"], found, options.text("format"))
    return 0


def create(session: Session, options: Options, operands: list[str]) -> int:
    """`volume create [VOLUME]`; prints its name."""
    if operands and options.given("name"):
        raise CommandFailure("conflicting options: cannot specify a volume name through both --name and as a "
                             "positional arg")
    body: Document = {"Name": operands[0] if operands else options.text("name"),
                      "Driver": options.text("driver", "local"),
                      "DriverOpts": split_pairs(options.items("opt")) or None,
                      "Labels": split_pairs(options.items("label")) or None}
    answer = session.transport.request("POST", "/volumes/create", body=body).json()
    assert isinstance(answer, dict)
    session.out(f"{answer['Name']}\n")
    return 0


def remove(session: Session, options: Options, operands: list[str]) -> int:
    """`volume rm VOLUME...`"""

    def one(name: str) -> str:
        query = {"force": options.flag("force")}
        session.transport.request("DELETE", f"/volumes/{quote(name)}", query=query).read()
        return name

    return each(session, operands, one)


LIST = Command(listing, "[OPTIONS]", LIST_OPTIONS)
CREATE = Command(create, "[OPTIONS] [VOLUME]", CREATE_OPTIONS, 0, 1)
REMOVE = Command(remove, "[OPTIONS] VOLUME [VOLUME...]", "-f, --force   No error if there is no such volume", 1, None)
