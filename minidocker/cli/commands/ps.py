"""`ps`, also `container ls`.

Source  docker ps' reference.
Rules   - hot path without --format.
"""

from time import time

from minidocker.cli.listing import FORMAT_OPTION, Field, Item, filters, labels_text, show
from minidocker.cli.options import Options
from minidocker.cli.session import Command, Session
from minidocker.cli.values import human_duration, human_size

PS_OPTIONS = """
-a, --all             Show all containers, not only running ones
-f, --filter filter   Show only containers for which this holds
-n, --last int        Show the n containers created last
-l, --latest          Show the container created last
    --no-trunc        Do not shorten the output
-q, --quiet           Show only IDs
-s, --size            Show sizes
""" + FORMAT_OPTION


def _text(item: Item, name: str) -> str:
    value = item.get(name)
    return "" if value is None else str(value)


def _number(item: Item, name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) else 0


def _list(item: Item, name: str) -> list[object]:
    value = item.get(name)
    return value if isinstance(value, list) else []


def shorten(text: str, width: int) -> str:
    """`text`, ended by an ellipsis if it is wider than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _names(item: Item) -> str:
    # A linked name (/other/alias) is not the container's own.
    return ",".join(name for name in (str(name)[1:] for name in _list(item, "Names")) if "/" not in name)


def _image(item: Item, *, full: bool) -> str:
    name = _text(item, "Image")
    if not name:
        return "<no image>"
    if full:
        return name
    identity = _text(item, "ImageID")
    if identity in (name, "sha256:" + name):
        return identity.removeprefix("sha256:")[:12]
    return name.partition("@")[0] if "@" in name else name


def ports_text(ports: list[object]) -> str:
    """Published and exposed ports as `0.0.0.0:8080->80/tcp, 443/tcp`, neighbours joined to ranges."""
    groups: dict[tuple[str, str, bool], list[tuple[int, int]]] = {}
    for port in ports:
        if isinstance(port, dict):
            public = int(port.get("PublicPort") or 0)
            key = (str(port.get("IP") or ""), str(port.get("Type") or "tcp"), bool(public))
            groups.setdefault(key, []).append((int(port["PrivatePort"]), public))
    shown = []
    for (address, protocol, published), pairs in groups.items():
        for inside, outside, count in _ranges(sorted(pairs)):
            text = f"{_span(inside, count)}/{protocol}"
            if published:
                host = f"[{address}]" if ":" in address else address
                text = f"{host + ':' if host else ''}{_span(outside, count)}->{text}"
            shown.append((inside, protocol, address, text))
    shown.sort(key=lambda entry: (entry[0], entry[1], entry[2]))
    return ", ".join(entry[3] for entry in shown)


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def _ranges(pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(inside, outside, count) of neighbouring ports."""
    found: list[tuple[int, int, int]] = []
    for inside, outside in pairs:
        if found:
            first, public, count = found[-1]
            if inside == first + count and outside == (public + count if public else 0):
                found[-1] = (first, public, count + 1)
                continue
        found.append((inside, outside, 1))
    return found


def _mounts(item: Item, *, full: bool) -> str:
    names = [str(mount.get("Name") or mount.get("Source") or "") for mount in _list(item, "Mounts")
             if isinstance(mount, dict)]
    return ",".join(names if full else [shorten(name, 15) for name in names])


def _networks(item: Item) -> str:
    settings = item.get("NetworkSettings")
    networks = settings.get("Networks") if isinstance(settings, dict) else None
    return ",".join(networks) if isinstance(networks, dict) else ""


def _size(item: Item) -> str:
    text = human_size(_number(item, "SizeRw"), 3)
    virtual = _number(item, "SizeRootFs")
    return f"{text} (virtual {human_size(virtual, 3)})" if virtual else text


def _created_at(item: Item) -> str:
    from time import localtime, strftime

    return strftime("%Y-%m-%d %H:%M:%S %z %Z", localtime(_number(item, "Created")))


def _local_volumes(item: Item) -> str:
    return str(sum(1 for mount in _list(item, "Mounts") if isinstance(mount, dict) and mount.get("Driver") == "local"))


def fields(*, full: bool, now: float) -> dict[str, Field]:
    """The columns of `ps`; full: nothing is shortened."""

    def command(item: Item) -> str:
        text = _text(item, "Command")
        return f'"{text if full else shorten(text, 20)}"'

    return {
        "ID": Field("CONTAINER ID", lambda item: _text(item, "Id") if full else _text(item, "Id")[:12]),
        "Image": Field("IMAGE", lambda item: _image(item, full=full)),
        "Command": Field("COMMAND", command),
        "RunningFor": Field("CREATED", lambda item: human_duration(now - _number(item, "Created")) + " ago"),
        "Status": Field("STATUS", lambda item: _text(item, "Status")),
        "Ports": Field("PORTS", lambda item: ports_text(_list(item, "Ports"))),
        "Names": Field("NAMES", _names),
        "State": Field("STATE", lambda item: _text(item, "State")),
        "Size": Field("SIZE", _size),
        "OwnSize": Field("SIZE", lambda item: human_size(_number(item, "SizeRw"), 3)),
        "CreatedAt": Field("CREATED AT", _created_at),
        "Labels": Field("LABELS", labels_text),
        "Mounts": Field("MOUNTS", lambda item: _mounts(item, full=full)),
        "LocalVolumes": Field("LOCAL VOLUMES", _local_volumes),
        "Networks": Field("NETWORKS", _networks),
        "Platform": Field("PLATFORM", lambda item: ""),
    }


def ps(session: Session, options: Options, operands: list[str]) -> int:
    """List containers."""
    last = 1 if options.flag("latest") else options.number("last", -1)
    form = options.text("format")
    size = options.flag("size") or (".Size" in form and not options.flag("quiet"))
    query = {"all": options.flag("all"), "limit": last if last > 0 else None, "size": size,
             "filters": filters(options.items("filter"))}
    items = session.transport.request("GET", "/containers/json", query=query).json()
    assert isinstance(items, list)
    columns = fields(full=options.flag("no-trunc"), now=time())
    if options.flag("quiet") and not form:
        session.out("".join(columns["ID"].read(item) + "\n" for item in items))
        return 0
    default = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
    show(session, columns, default + ["Size"] * options.flag("size"), items, form, "ContainerContext")
    return 0


PS = Command(ps, "[OPTIONS]", PS_OPTIONS)
