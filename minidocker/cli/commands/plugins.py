"""`plugin ls` and its siblings. Plugins are programs beside the daemon: what manages them the daemon refuses, with why.

Source  docker plugin's reference.
"""

from minidocker.cli.create_body import Document
from minidocker.cli.listing import FORMAT_OPTION, Field, Item, filters, show
from minidocker.cli.options import Options
from minidocker.cli.session import Command, Session, each
from minidocker.client.resource import documents, member
from minidocker.client.transport import quote

_SHORT_ID = 12
LIST_OPTIONS = """
-f, --filter filter   Show only plugins for which this holds (capability, enabled)
    --no-trunc        Whole IDs and descriptions
-q, --quiet           Show only IDs
""" + FORMAT_OPTION


def _fields(*, whole: bool) -> dict[str, Field]:
    def identity(item: Item) -> str:
        return str(item["Id"]) if whole else str(item["Id"])[:_SHORT_ID]

    def description(item: Item) -> str:
        text = str(member(item, "Config", "Description") or "")
        return text if whole or len(text) <= 45 else text[:44] + "…"  # as docker cuts them

    return {
        "ID": Field("ID", identity), "Name": Field("NAME", lambda item: str(item["Name"])),
        "Description": Field("DESCRIPTION", description),
        "Enabled": Field("ENABLED", lambda item: str(bool(item.get("Enabled"))).lower()),
        "PluginReference": Field("PLUGIN REFERENCE", lambda item: str(item.get("PluginReference") or "")),
    }  # fmt: skip


def listing(session: Session, options: Options, operands: list[str]) -> int:
    """`plugin ls`"""
    query = {"filters": filters(options.items("filter"))}
    found = documents(session.transport.request("GET", "/plugins", query=query).json())
    fields = _fields(whole=options.flag("no-trunc"))
    if options.flag("quiet") and not options.text("format"):
        session.out("".join(f"{fields['ID'].read(plugin)}\n" for plugin in found))
        return 0
    show(session, fields, ["ID", "Name", "Description", "Enabled"], found, options.text("format"))
    return 0


def install(session: Session, options: Options, operands: list[str]) -> int:
    """`plugin install PLUGIN`"""
    session.transport.request("GET", "/plugins/privileges", query={"remote": operands[0]}).read()
    return 0


def _post(session: Session, operands: list[str], verb: str, query: Document) -> int:
    session.transport.request("POST", f"/plugins/{quote(operands[0])}/{verb}", query=query).read()
    session.out(f"{operands[0]}\n")
    return 0


def enable(session: Session, options: Options, operands: list[str]) -> int:
    """`plugin enable PLUGIN`"""
    return _post(session, operands, "enable", {"timeout": 30})


def disable(session: Session, options: Options, operands: list[str]) -> int:
    """`plugin disable PLUGIN`"""
    return _post(session, operands, "disable", {"force": options.flag("force")})


def remove(session: Session, options: Options, operands: list[str]) -> int:
    """`plugin rm PLUGIN...`"""

    def one(name: str) -> str:
        query = {"force": options.flag("force")}
        session.transport.request("DELETE", f"/plugins/{quote(name)}", query=query).read()
        return name

    return each(session, operands, one)


_FORCE = "-f, --force   Also one that is in use"
LIST = Command(listing, "[OPTIONS]", LIST_OPTIONS)
INSTALL = Command(install, "PLUGIN", "", 1, 1)
ENABLE = Command(enable, "PLUGIN", "", 1, 1)
DISABLE = Command(disable, "[OPTIONS] PLUGIN", _FORCE, 1, 1)
REMOVE = Command(remove, "[OPTIONS] PLUGIN [PLUGIN...]", _FORCE, 1, None)
