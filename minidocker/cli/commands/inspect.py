"""`inspect`, and the inspect of each kind of object.

Source  docker inspect's reference.
Rules   - the daemon's document is shown as it was written: only laid out, never parsed and written again.
"""

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, describe
from minidocker.client.documents import indent, loads
from minidocker.client.transport import quote

_FORMAT = "-f, --format string   Format by a Go template, or 'json'\n"
INSPECT_OPTIONS = _FORMAT + """
-s, --size            Show sizes, if it is a container
    --type string     Look only for objects of that type
"""
_PATHS = {"container": "/containers/{}/json", "image": "/images/{}/json", "network": "/networks/{}",
          "volume": "/volumes/{}", "plugin": "/plugins/{}/json"}


def _fetch(session: Session, kind: str, name: str, *, size: bool) -> str:
    query = {"size": size} if kind == "container" else {}
    return session.transport.request("GET", _PATHS[kind].format(quote(name)), query=query).read().decode()


def _find(session: Session, name: str, *, size: bool) -> str:
    """The first object of that name, whatever its kind."""
    for kind in _PATHS:
        try:
            return _fetch(session, kind, name, size=size)
        except Exception as error:
            # 400: a word that cannot be the name of such an object
            if getattr(error, "status", 0) not in (400, 404):
                raise
    raise CommandFailure(f"Error: No such object: {name}")


def _inspect(session: Session, options: Options, operands: list[str], kind: str) -> int:
    found: list[str] = []
    problems: list[str] = []
    size = options.flag("size")
    for name in operands:
        try:
            found.append(_fetch(session, kind, name, size=size) if kind else _find(session, name, size=size))
        except Exception as error:
            problems.append(str(error) if isinstance(error, CommandFailure) else describe(error))
    session.out(_shown(session, found, options.text("format")))
    if problems:
        raise CommandFailure("\n".join(problems))
    return 0


def _shown(session: Session, found: list[str], form: str) -> str:
    if form == "json":
        return "[" + ",".join(text.strip() for text in found) + "]\n"
    if form:
        from minidocker.cli.template import Template, TemplateError

        try:
            template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
            return "".join(template.render(loads(text)) + "\n" for text in found) or "\n"
        except TemplateError as error:
            session.out("\n")
            raise CommandFailure(f"template parsing error: {error}") from None
    return indent("[" + ",".join(text.strip() for text in found) + "]") + "\n"


def inspect(session: Session, options: Options, operands: list[str]) -> int:
    """`inspect NAME|ID...`"""
    kind = options.text("type")
    if kind and kind not in _PATHS:
        kinds = ", ".join(f'"{known}"' for known in _PATHS)
        raise CommandFailure(f'unknown type: "{kind}": must be one of {kinds}')
    return _inspect(session, options, operands, kind)


def inspect_container(session: Session, options: Options, operands: list[str]) -> int:
    """`container inspect`"""
    return _inspect(session, options, operands, "container")


def inspect_image(session: Session, options: Options, operands: list[str]) -> int:
    """`image inspect`"""
    return _inspect(session, options, operands, "image")


def inspect_network(session: Session, options: Options, operands: list[str]) -> int:
    """`network inspect`"""
    return _inspect(session, options, operands, "network")


def inspect_volume(session: Session, options: Options, operands: list[str]) -> int:
    """`volume inspect`"""
    return _inspect(session, options, operands, "volume")


def inspect_plugin(session: Session, options: Options, operands: list[str]) -> int:
    """`plugin inspect`"""
    return _inspect(session, options, operands, "plugin")


_PLATFORM = "    --platform string     Look at the variant of that platform\n"
INSPECT = Command(inspect, "[OPTIONS] NAME|ID [NAME|ID...]", INSPECT_OPTIONS, 1, None)
CONTAINER_INSPECT = Command(inspect_container, "[OPTIONS] CONTAINER [CONTAINER...]",
                            _FORMAT + "-s, --size            Show sizes\n", 1, None)
IMAGE_INSPECT = Command(inspect_image, "[OPTIONS] IMAGE [IMAGE...]", _FORMAT + _PLATFORM, 1, None)
NETWORK_INSPECT = Command(inspect_network, "[OPTIONS] NETWORK [NETWORK...]",
                          _FORMAT + "-v, --verbose         Show more\n", 1, None)
PLUGIN_INSPECT = Command(inspect_plugin, "[OPTIONS] PLUGIN [PLUGIN...]", _FORMAT, 1, None)
VOLUME_INSPECT = Command(inspect_volume, "[OPTIONS] VOLUME [VOLUME...]", _FORMAT, 1, None)
