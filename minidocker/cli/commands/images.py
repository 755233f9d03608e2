"""`images`, `rmi`, `tag` and `history`.

Source  docker's reference of each.
"""

from time import localtime, strftime, time

from minidocker.cli.listing import FORMAT_OPTION, Field, Item, filters, show
from minidocker.cli.options import Options
from minidocker.cli.references import normalized, split, valid
from minidocker.cli.session import Command, CommandFailure, Session, describe
from minidocker.cli.values import human_duration, human_size
from minidocker.client.transport import quote

IMAGES_OPTIONS = """
-a, --all             Show all images, also intermediate ones
    --digests         Show digests
-f, --filter filter   Show only images for which this holds
    --no-trunc        Do not shorten the output
-q, --quiet           Show only IDs
""" + FORMAT_OPTION
RMI_OPTIONS = """
-f, --force              Remove it even if containers use it
    --no-prune           Keep parents that nothing names
    --platform strings   Remove only the variant of that platform
"""
HISTORY_OPTIONS = """
-H, --human             Show sizes and dates in words (default true)
    --no-trunc          Do not shorten the output
    --platform string   Show the history of that platform's variant
-q, --quiet             Show only IDs
""" + FORMAT_OPTION


def _number(item: Item, name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) else 0


def _identity(text: str, *, full: bool) -> str:
    return text if full else text.removeprefix("sha256:")[:12]


def _local(moment: int) -> str:
    return strftime("%Y-%m-%d %H:%M:%S %z %Z", localtime(moment))


def image_fields(*, full: bool, now: float) -> dict[str, Field]:
    """The columns of `images`."""
    created = lambda item: human_duration(now - _number(item, "Created")) + " ago"  # noqa: E731
    size = lambda item: human_size(_number(item, "Size"), 3)  # noqa: E731
    return {
        "ID": Field("IMAGE ID", lambda item: _identity(str(item["Id"]), full=full)),
        "Repository": Field("REPOSITORY", lambda item: str(item["Repository"])),
        "Tag": Field("TAG", lambda item: str(item["Tag"])),
        "Digest": Field("DIGEST", lambda item: str(item["Digest"])),
        "CreatedSince": Field("CREATED", created),
        "CreatedAt": Field("CREATED AT", lambda item: _local(_number(item, "Created"))),
        "Size": Field("SIZE", size),
        "Containers": Field("CONTAINERS", lambda item: _amount(item, "Containers")),
        "VirtualSize": Field("SIZE", lambda item: human_size(_number(item, "Size"))),
        "SharedSize": Field("SHARED SIZE", lambda item: _bytes(item, "SharedSize")),
        "UniqueSize": Field("UNIQUE SIZE", lambda item: "N/A"),
    }


def _amount(item: Item, name: str) -> str:
    value = _number(item, name)
    return "N/A" if value < 0 else str(value)


def _bytes(item: Item, name: str) -> str:
    value = _number(item, name)
    return "N/A" if value < 0 else human_size(value, 3)


def lines_of(image: Item, *, digests: bool) -> list[Item]:
    """A line for each reference of an image."""
    tags = [tag for tag in _names(image, "RepoTags") if tag != "<none>:<none>"]
    shown = [name for name in _names(image, "RepoDigests") if name != "<none>@<none>"]
    if not tags and not shown:
        return [{**image, "Repository": "<none>", "Tag": "<none>", "Digest": "<none>"}]
    lines: list[Item] = []
    digest_of = dict(name.partition("@")[::2] for name in shown)
    for tag in tags:
        repository, _, word = tag.rpartition(":")
        digest = digest_of.get(repository, "<none>") if digests else "<none>"
        lines.append({**image, "Repository": repository, "Tag": word, "Digest": digest})
    tagged = {str(line["Repository"]) for line in lines}
    for repository, digest in digest_of.items():
        if repository not in tagged:
            shown_digest = digest if digests else "<none>"
            lines.append({**image, "Repository": repository, "Tag": "<none>", "Digest": shown_digest})
    return lines


def _names(image: Item, key: str) -> list[str]:
    value = image.get(key)
    return [str(name) for name in value] if isinstance(value, list) else []


def images(session: Session, options: Options, operands: list[str]) -> int:
    """`images [REPOSITORY[:TAG]]`"""
    wanted = filters(options.items("filter"))
    if operands:
        wanted["reference"] = [operands[0]]
    query = {"all": options.flag("all"), "filters": wanted}
    found = session.transport.request("GET", "/images/json", query=query).json()
    assert isinstance(found, list)
    found.sort(key=lambda image: -int(image["Created"]))
    columns = image_fields(full=options.flag("no-trunc"), now=time())
    form = options.text("format")
    lines = [line for image in found for line in lines_of(image, digests=options.flag("digests") or ".Digest" in form)]
    if options.flag("quiet") and not form:
        session.out("".join(columns["ID"].read(line) + "\n" for line in lines))
        return 0
    default = ["Repository", "Tag", *["Digest"] * options.flag("digests"), "ID", "CreatedSince", "Size"]
    show(session, columns, default, lines, form)
    return 0


def rmi(session: Session, options: Options, operands: list[str]) -> int:
    """`rmi IMAGE...`"""
    query = {"force": options.flag("force"), "noprune": options.flag("no-prune"),
             "platforms": options.items("platform") or None}
    failed = []
    only_missing = True
    for name in operands:
        try:
            done = session.transport.request("DELETE", f"/images/{quote(name)}", query=query).json()
        except Exception as error:
            failed.append(describe(error))
            only_missing = only_missing and getattr(error, "status", 0) == 404
            continue
        assert isinstance(done, list)
        session.out("".join(f"{word}: {entry[word]}\n" for entry in done for word in ("Untagged", "Deleted")
                            if entry.get(word)))
    if failed and not (options.flag("force") and only_missing):
        raise CommandFailure("\n".join(failed))
    session.error("".join(text + "\n" for text in failed))
    return 0


def tag(session: Session, options: Options, operands: list[str]) -> int:
    """`tag SOURCE TARGET`"""
    source, target = operands
    if not valid(target):
        raise CommandFailure(f'Error parsing reference: "{target}" is not a valid repository/tag: '
                             "invalid reference format")
    repository, word, digest = split(normalized(target))
    if digest:
        raise CommandFailure("refusing to create a tag with a digest reference")
    query = {"repo": repository, "tag": word or "latest"}
    session.transport.request("POST", f"/images/{quote(source)}/tag", query=query).read()
    return 0


def history_fields(*, full: bool, human: bool, now: float) -> dict[str, Field]:
    """The columns of `history`."""

    def created_by(item: Item) -> str:
        text = str(item.get("CreatedBy") or "").replace("\t", " ")
        return text if full or len(text) <= 45 else text[:44] + "…"

    def size(item: Item) -> str:
        return human_size(_number(item, "Size"), 3) if human else str(_number(item, "Size"))

    def identity(item: Item) -> str:
        return _identity(str(item.get("Id") or ""), full=full)

    def since(item: Item) -> str:
        moment = _number(item, "Created")
        words = human_duration(now - moment) + " ago" if moment > 0 else "N/A"
        return words if human else _rfc3339(moment)

    return {
        "ID": Field("IMAGE", identity),
        "CreatedSince": Field("CREATED" if human else "CREATED AT", since),
        "CreatedAt": Field("CREATED AT", lambda item: _rfc3339(_number(item, "Created"))),
        "CreatedBy": Field("CREATED BY", created_by),
        "Size": Field("SIZE", size),
        "Comment": Field("COMMENT", lambda item: str(item.get("Comment") or "")),
    }


def _rfc3339(moment: int) -> str:
    text = strftime("%Y-%m-%dT%H:%M:%S%z", localtime(moment))
    return text[:-5] + "Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def history(session: Session, options: Options, operands: list[str]) -> int:
    """`history IMAGE`"""
    found = session.transport.request("GET", f"/images/{quote(operands[0])}/history").json()
    assert isinstance(found, list)
    columns = history_fields(full=options.flag("no-trunc"), human=options.flag("human"), now=time())
    form = options.text("format")
    if options.flag("quiet") and not form:
        session.out("".join(columns["ID"].read(item) + "\n" for item in found))
        return 0
    show(session, columns, ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"], found, form)
    return 0


IMAGES = Command(images, "[OPTIONS] [REPOSITORY[:TAG]]", IMAGES_OPTIONS, 0, 1)
RMI = Command(rmi, "[OPTIONS] IMAGE [IMAGE...]", RMI_OPTIONS, 1, None)
TAG = Command(tag, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "", 2, 2)
HISTORY = Command(history, "[OPTIONS] IMAGE", HISTORY_OPTIONS, 1, 1)
