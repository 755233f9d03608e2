"""`build`: send a context, show the steps, print or keep the image's ID.

Source  docker build's reference (the classic builder); Docker Engine API, "ImageBuild".
"""

import os
from collections.abc import Iterator
from secrets import token_hex

from minidocker.cli.commands.archive import pieces_of
from minidocker.cli.commands.credentials import credentials, read_config
from minidocker.cli.options import Options, UsageError
from minidocker.cli.progress import Display
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.cli.values import human_size
from minidocker.client.context import IGNORE_FILE, BadPattern, IgnoreList, ignore_list, pack
from minidocker.client.documents import dumps

BUILD_OPTIONS = """
    --add-host list            Add a line to /etc/hosts (name:address)
    --build-arg list           Set a build argument (NAME=value, or NAME from the environment)
    --cache-from strings       Images that count as cache
    --cgroup-parent string     Parent of the containers' cgroups
    --compress                 Compress the context with gzip
    --cpu-period int           CFS period in microseconds
    --cpu-quota int            CFS quota in microseconds
-c, --cpu-shares int           CPU weight relative to others
    --cpuset-cpus string       CPUs that may be used (0-3, 0,1)
    --cpuset-mems string       Memory nodes that may be used (0-3, 0,1)
    --disable-content-trust    Accepted for compatibility (default true)
    --explain                  Tell why a step was not taken from the cache
-f, --file string              Name of the Dockerfile (default "PATH/Dockerfile")
    --force-rm                 Remove the containers of steps that failed too
    --iidfile string           Write the image's ID to the file
    --isolation string         Isolation technology (default is the only one)
    --label list               Set a label of the image
-m, --memory bytes             Memory limit
    --memory-swap bytes        Limit of memory and swap together; -1 for no limit of swap
    --network string           Network of RUN (default "default")
    --no-cache                 Make every step anew
    --platform string          Platform of base images, such as linux/arm64
    --pull                     Ask the registry for newer base images
-q, --quiet                    Print only the image's ID
    --rm                       Remove the containers of steps that worked (default true)
    --security-opt strings     Security options
    --shm-size bytes           Size of /dev/shm
    --squash                   Squash the layers (refused)
-t, --tag list                 Name of the image (name:tag)
    --target string            Last stage to be built
    --ulimit ulimit            Limits of resources (name=soft[:hard])
"""
Query = dict[str, object]
_TEXTS = {"cgroup-parent": "cgroupparent", "cpuset-cpus": "cpusetcpus", "cpuset-mems": "cpusetmems",
          "isolation": "isolation", "network": "networkmode", "platform": "platform", "target": "target"}
_NUMBERS = {"cpu-period": "cpuperiod", "cpu-quota": "cpuquota", "cpu-shares": "cpushares", "memory": "memory",
            "memory-swap": "memswap", "shm-size": "shmsize"}
_SWITCHES = {"explain": "explain", "force-rm": "forcerm", "no-cache": "nocache", "pull": "pull", "quiet": "q",
             "squash": "squash"}


def _query(session: Session, options: Options) -> Query:
    query: Query = {"version": "1", "t": options.items("tag"), "rm": "1" if options.flag("rm") else "0"}
    query |= {key: options.text(name) for name, key in _TEXTS.items() if options.given(name)}
    query |= {key: options.number(name) for name, key in _NUMBERS.items() if options.given(name)}
    query |= {key: options.flag(name) for name, key in _SWITCHES.items()}
    arguments: dict[str, str | None] = {}
    for text in options.items("build-arg"):
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else session.environment.get(name)
    query["buildargs"] = arguments
    query["labels"] = dict(text.partition("=")[::2] for text in options.items("label"))
    if options.given("cache-from"):
        query["cachefrom"] = dumps(options.items("cache-from"))
    if options.given("security-opt"):
        query["securityopt"] = dumps(options.items("security-opt"))
    if options.given("ulimit"):
        query["ulimits"] = dumps([_ulimit(text) for text in options.items("ulimit")])
    if options.given("add-host"):
        query["extrahosts"] = [text.replace("=", ":", 1) for text in options.items("add-host")]
    return query


def _ulimit(text: str) -> dict[str, object]:
    name, _, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard) if colon else int(soft)}
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit argument: {text}') from None


def _registry_config(session: Session) -> dict[str, str]:
    """X-Registry-Config: what is known of every registry that the configuration names."""
    import base64

    document = read_config(session.config_dir)
    auths, helpers = document.get("auths"), document.get("credHelpers")
    servers = {*(auths if isinstance(auths, dict) else {}), *(helpers if isinstance(helpers, dict) else {})}
    known = {server: credentials(session.config_dir, server) for server in sorted(servers)}
    return {"X-Registry-Config": base64.urlsafe_b64encode(dumps(known).encode()).decode()} if known else {}


def _is_remote(operand: str) -> bool:
    return operand.startswith(("http://", "https://", "git://", "ssh://", "file://", "git@", "github.com/"))


def _dockerfile(directory: str, option: str) -> tuple[str, bytes | None]:
    """The Dockerfile's name in the context, and its content if it lies elsewhere."""
    if option == "-":
        return f".dockerfile.{token_hex(10)}", b"".join(pieces_of(0))
    path = option or os.path.join(directory, "Dockerfile")
    if not option and not os.path.exists(path) and os.path.exists(path.lower()):
        path = os.path.join(directory, "dockerfile")
    if option and not os.path.exists(path) and os.path.exists(os.path.join(directory, option)):
        path = os.path.join(directory, option)
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        raise CommandFailure("unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
                             f"lstat {os.path.abspath(path)}: {(error.strerror or '').lower()}") from None
    name = os.path.relpath(real, os.path.realpath(directory))
    if name != ".." and not name.startswith("../"):
        return name, None
    with open(real, "rb") as file:
        return f".dockerfile.{token_hex(10)}", file.read()


def _context(operand: str, options: Options) -> tuple[str, Iterator[bytes]]:
    """The Dockerfile's name, and the archive's pieces."""
    if operand == "-":
        return _from_stdin(options.text("file"))
    if not os.path.isdir(operand):
        reason = "not found" if not os.path.exists(operand) else "must be a directory"
        text = f'path "{operand}" not found' if reason == "not found" else f"context must be a directory: {operand}"
        raise CommandFailure(f"unable to prepare context: {text}")
    name, elsewhere = _dockerfile(operand, options.text("file"))
    try:
        if elsewhere is None:
            return name, pack(operand, ignore_list(operand, name))
        # A Dockerfile from elsewhere is no part of the context: the daemon is told to ignore what was added for it.
        own = ignore_list(operand, "").text()
        ignored = f"{own}{IGNORE_FILE}\n{name}\n"
        extra = {name: elsewhere, IGNORE_FILE: ignored.encode()}
        return name, pack(operand, IgnoreList([*own.splitlines(), IGNORE_FILE]), extra)
    except BadPattern as error:
        raise CommandFailure(f"error checking context: {error}") from None


def _from_stdin(file: str) -> tuple[str, Iterator[bytes]]:
    """An archive, or a lone Dockerfile."""
    pieces = pieces_of(0)
    head = b""
    while len(head) < 512 and (piece := next(pieces, b"")):
        head += piece
    magic = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    if head[257:262] == b"ustar" or head.startswith(magic):
        def whole() -> Iterator[bytes]:
            yield head
            yield from pieces

        return file or "Dockerfile", whole()
    if not head:
        raise CommandFailure("unable to prepare context: stdin is empty")
    content = head + b"".join(pieces)
    return "Dockerfile", pack("", IgnoreList(()), {"Dockerfile": content})


class _Counted:
    """Pieces on their way, counted, and compressed if asked for."""

    def __init__(self, pieces: Iterator[bytes], *, compress: bool) -> None:
        self.count = 0
        self._pieces = pieces
        self._compress = compress

    def __iter__(self) -> Iterator[bytes]:
        if not self._compress:
            yield from self._counted()
            return
        import zlib

        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        for piece in self._counted():
            yield packer.compress(piece)
        yield packer.flush()

    def _counted(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.count += len(piece)
            yield piece


def build(session: Session, options: Options, operands: list[str]) -> int:
    """`build PATH|URL|-`"""
    query, operand, quiet = _query(session, options), operands[0], options.flag("quiet")
    body: object = None
    counted: _Counted | None = None
    if _is_remote(operand):
        query |= {"remote": operand, "dockerfile": options.text("file")}
    else:
        name, pieces = _context(operand, options)
        query["dockerfile"] = name
        body = counted = _Counted(pieces, compress=options.flag("compress"))
    connection = session.transport.send("POST", "/build", query=query, body=body, headers=_registry_config(session))
    if counted is not None and not quiet:
        session.out(f"Sending build context to the daemon  {human_size(counted.count)}\n")
    response = session.transport.receive(connection)
    image = _follow(session, response.objects(), quiet=quiet)
    if options.text("iidfile"):
        with open(options.text("iidfile"), "w", encoding="utf-8") as file:
            file.write(image)
    return 0


def _follow(session: Session, messages: Iterator[object], *, quiet: bool) -> str:
    """Show what the daemon says; the image's ID comes back. Raises CommandFailure with the command's exit status."""
    image, display, held = "", Display(1), ""
    for message in messages:
        assert isinstance(message, dict)
        if message.get("error"):
            session.error(held)
            detail = message.get("errorDetail")
            raise CommandFailure(*_failure(str(message["error"]), detail if isinstance(detail, dict) else {}))
        aux = message.get("aux")
        if isinstance(aux, dict):
            image = str(aux.get("ID") or image)
            if "Cache" in aux:
                _explain(session, aux["Cache"])
        elif quiet:
            held += str(message.get("stream") or "")
        else:
            display.show(message)
    if quiet:
        image = held.strip().rpartition("\n")[2] or image
        session.out(f"{image}\n")
    return image


def _failure(text: str, detail: dict[str, object]) -> tuple[str, int]:
    line, code = detail.get("line"), detail.get("code")
    where = f"Dockerfile:{line}: {detail.get('instruction')}\n" if isinstance(line, int) and line else ""
    return where + text, code if isinstance(code, int) and 0 < code < 256 else 1


def _explain(session: Session, decision: object) -> None:
    assert isinstance(decision, dict)
    session.out(f" cache: {'hit' if decision.get('hit') else 'miss'}: {decision.get('reason')}\n")
    for difference in decision.get("differences") or []:
        session.out(f"   {difference['field']} wanted: {difference['wanted']}\n"
                    f"   {difference['field']} found:  {difference['found']}\n")


BUILD = Command(build, "[OPTIONS] PATH | URL | -", BUILD_OPTIONS, 1, 1)
