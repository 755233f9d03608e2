"""Lists of objects: the default table, `--format` with a template, a table template or `json`, and `--quiet`.

Source  docker's "Format command and log output".
Rules   - on `ps`'s hot path: the template language is imported only for --format.
"""

from minidocker.cli.session import CommandFailure, Session
from minidocker.cli.table import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = dict[str, object]

FORMAT_OPTION = "    --format string        Format by a Go template; 'table', 'table TEMPLATE' or 'json'\n"


_INTERNAL = ("OwnSize",)       # columns of other commands' tables, unknown to --format


class Field:
    """A column: its heading, and how an item's text is read."""

    __slots__ = ("header", "read")

    def __init__(self, header: str, read: "Callable[[Item], str]") -> None:
        self.header = header
        self.read = read


def show(session: Session, fields: "dict[str, Field]", default: "Sequence[str]", items: list[Item],
         form: str = "", kind: str = "Context") -> None:
    """Print `items`.

    fields   all columns by name; default  the names of those in the default table.
    form     what --format says ("" or "table": the default table); kind  what errors call an item.
    """
    if form in ("", "table"):
        lines = ["\t".join(fields[name].header for name in default)]
        lines += ["\t".join(fields[name].read(item) for name in default) for item in items]
        session.out(align("\n".join(lines)) + "\n")
        return
    _show_formatted(session, fields, items, form, kind)


def _show_formatted(session: Session, fields: "dict[str, Field]", items: list[Item], form: str,
                    kind: str) -> None:
    from minidocker.cli.template import Template, TemplateError

    table = form.startswith("table ")
    source = form.removeprefix("table ").strip() if table else form
    source = "{{json .}}" if source == "json" else source.replace("\\t", "\t").replace("\\n", "\n")
    try:
        template = Template(source)
    except TemplateError as error:
        raise CommandFailure(f"failed to parse template: {error}") from None
    try:
        lines = [template.render(_record(fields, item, kind)) for item in items]
        if table:
            lines.insert(0, template.render(_headings(fields)))
    except TemplateError as error:
        raise CommandFailure(f"failed to execute template: {error}") from None
    text = "".join(line + "\n" for line in lines)
    session.out(align(text) if table else text)


def _record(fields: "dict[str, Field]", item: Item, kind: str) -> object:
    from minidocker.cli.template import Record

    def member(field: Field) -> "Callable[[], object]":
        return lambda: field.read(item)

    labels = item.get("Labels")
    named = labels if isinstance(labels, dict) else {}
    return Record({name: member(field) for name, field in fields.items() if name not in _INTERNAL},
                  {"Label": lambda name: str(named.get(name, ""))}, kind)


def _headings(fields: "dict[str, Field]") -> object:
    from minidocker.cli.template import Record

    def member(field: Field) -> "Callable[[], object]":
        return lambda: field.header

    return Record({name: member(field) for name, field in fields.items()},
                  {"Label": lambda name: name.split(".")[-1].replace("-", " ").replace("_", " ")})


def filters(words: list[str]) -> dict[str, list[str]]:
    """`--filter name=value` options as the API's filters."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, _, value = word.partition("=")
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found


def labels_text(item: Item) -> str:
    """An item's labels as `a=1,b=2`."""
    labels = item.get("Labels")
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items())) if isinstance(labels, dict) else ""
