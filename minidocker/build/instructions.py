"""What each instruction's words mean: lines of a Dockerfile become typed instructions.

Source  Dockerfile reference; moby/buildkit frontend/dockerfile/instructions (rules and the texts of refusals).
Rules   - pure: what stands where, among the other instructions, is in `stages`.
        - variables are not put in here but when the step's turn comes, since they depend on the steps before.
"""

import re
from collections.abc import Callable
from typing import NoReturn

import msgspec

from minidocker.build import dockerfile, healthcheck
from minidocker.build.dockerfile import Heredoc, Line, ParseError, json_words
from minidocker.build.expansion import go_quoted, split
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import Healthcheck

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_NEEDS_BUILDKIT = ("mount", "network", "security", "link", "parents", "exclude", "keep-git-dir")


class Pair(msgspec.Struct, frozen=True):
    """A name and its value; None where ARG gives none."""

    name: str
    value: str | None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


class Instruction(msgspec.Struct, frozen=True):
    """What all have. str() is the text that `Step n/m` shows."""

    line: Line

    def __str__(self) -> str:
        return self.line.original


class Arg(Instruction, frozen=True):
    """ARG."""

    pairs: tuple[Pair, ...]


class Env(Instruction, frozen=True):
    """ENV."""

    pairs: tuple[Pair, ...]


class Label(Instruction, frozen=True):
    """LABEL. verbatim: labels of the command line, in which nothing is put in."""

    pairs: tuple[Pair, ...]
    verbatim: bool = False


class Maintainer(Instruction, frozen=True):
    """MAINTAINER."""

    name: str


class CommandLine(msgspec.Struct, frozen=True):
    """A command: words, or (`shell`) one text for the shell."""

    words: tuple[str, ...]
    shell: bool


class Run(Instruction, frozen=True):
    """RUN."""

    command: CommandLine


class Cmd(Instruction, frozen=True):
    """CMD."""

    command: CommandLine


class Entrypoint(Instruction, frozen=True):
    """ENTRYPOINT."""

    command: CommandLine


class Copy(Instruction, frozen=True):
    """COPY, and ADD (`name` tells).

    source    of --from: a stage or an image; "" is the context.
    checksum  what a URL's content must have as digest; "": unknown.
    """

    name: str
    sources: tuple[str, ...]
    destination: str
    documents: tuple[Heredoc, ...] = ()
    source: str = ""
    chown: str = ""
    chmod: str = ""
    checksum: str = ""


class Words(Instruction, frozen=True):
    """EXPOSE, VOLUME, SHELL: `name` with words."""

    name: str
    words: tuple[str, ...]


class Text(Instruction, frozen=True):
    """USER, WORKDIR, STOPSIGNAL, ONBUILD: `name` with one text."""

    name: str
    text: str


class HealthcheckCommand(Instruction, frozen=True):
    """HEALTHCHECK."""

    check: Healthcheck


class From(Instruction, frozen=True):
    """FROM."""

    base: str
    platform: str
    stage: str


def read(line: Line, escape: str = "\\") -> Instruction:
    """One line's instruction. Raises ParseError: the text names the line."""
    try:
        return interpret(line, escape)
    except ParseError:
        raise
    except InvalidArgument as error:
        raise ParseError(line.number, error) from None


def interpret(line: Line, escape: str = "\\") -> Instruction:
    """`read` for who names no lines. Raises InvalidArgument."""
    reader = _READERS.get(line.name)
    if reader is None:
        raise InvalidArgument(f"unknown instruction: {line.name}")
    return reader(line, escape)


def trigger(text: str, escape: str = "\\") -> Instruction:
    """An ONBUILD trigger's instruction. Raises InvalidArgument."""
    return read(dockerfile.parse_one(text, escape), escape)


def label(name: str, value: str) -> Label:
    """A label of the command line as an instruction; nothing is put into it."""
    text = f"{name}={value}"
    return Label(Line("LABEL", text, (), f"LABEL {text}", 0), (Pair(name, value),), verbatim=True)


def _flags(line: Line, *known: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in line.flags:
        name, equals, value = text[2:].partition("=")
        if name not in known:
            if name in _NEEDS_BUILDKIT:
                raise InvalidArgument(
                    f"the --{name} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn "
                    "how to build images with BuildKit enabled"
                )
            raise InvalidArgument(f"Unknown flag: {name}")
        if not equals:
            raise InvalidArgument(f"Missing a value on flag: {name}")
        if name in found:
            raise InvalidArgument(f"Duplicate flag specified: {name}")
        found[name] = value
    return found


def _at_least_one(line: Line) -> NoReturn:
    raise InvalidArgument(f"{line.name} requires at least one argument")


def _exactly_one(line: Line) -> NoReturn:
    raise InvalidArgument(f"{line.name} requires exactly one argument")


def _from(line: Line, _: str) -> From:
    platform = _flags(line, "platform").get("platform", "")
    words = line.rest.split()
    if len(words) == 1:
        return From(line, words[0], platform, "")
    if len(words) != 3 or words[1].lower() != "as":
        raise InvalidArgument("FROM requires either one or three arguments")
    if not _STAGE_NAME.match(words[2].lower()):
        raise InvalidArgument(
            f"invalid name for build stage: {go_quoted(words[2])}, name can't start with a number or contain symbols"
        )
    return From(line, words[0], platform, words[2].lower())


def _pairs(line: Line, escape: str) -> tuple[Pair, ...]:
    """`a=b c=d`, or the old form `a b`."""
    _flags(line)
    words = split(line.rest, escape)
    if not words:
        _at_least_one(line)
    if "=" not in words[0]:
        parts = re.split(r"\s+", line.rest, maxsplit=1)
        if len(parts) < 2:
            raise InvalidArgument(f"{line.name} must have two arguments")
        return (Pair(parts[0], parts[1]),)
    wrong = next((word for word in words if "=" not in word), None)
    if wrong is not None:
        raise InvalidArgument(f"Syntax error - can't find = in {go_quoted(wrong)}. Must be of the form: name=value")
    pairs = tuple(Pair(name, value) for name, _, value in (word.partition("=") for word in words))
    if any(not pair.name for pair in pairs):
        raise InvalidArgument(f"{line.name} names can not be blank")
    return pairs


def _arg(line: Line, escape: str) -> Arg:
    _flags(line)
    words = split(line.rest, escape)
    if not words:
        _at_least_one(line)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidArgument("ARG names can not be blank")
        pairs.append(Pair(name, value if equals else None))
    return Arg(line, tuple(pairs))


def _command(line: Line) -> CommandLine:
    _flags(line)
    words = json_words(line.rest)
    if words is not None:
        return CommandLine(tuple(words), False)
    return CommandLine((line.rest,) if line.rest else (), True)


def _run(line: Line, _: str) -> Run:
    command = _command(line)
    if not any(command.words):
        _at_least_one(line)
    return Run(line, command)


def _copy(line: Line, escape: str) -> Copy:
    known = ("chown", "chmod", "from") if line.name == "COPY" else ("chown", "chmod", "checksum")
    flags = _flags(line, *known)
    listed = json_words(line.rest)
    words = line.rest.split() if listed is None else listed
    documents = {document.word: document for document in line.heredocs}
    if len(words) < 2:
        raise InvalidArgument(
            f"{line.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    sources = tuple(word for word in words[:-1] if word not in documents)
    found = tuple(documents[word] for word in words[:-1] if word in documents)
    source = flags.get("from", "")
    if source and found:
        raise InvalidArgument("here-documents cannot be copied --from another stage")
    more = (source, flags.get("chown", ""), flags.get("chmod", ""), flags.get("checksum", ""))
    return Copy(line, line.name, sources, words[-1], found, *more)


def _words(line: Line, _: str) -> Words:
    _flags(line)
    listed = json_words(line.rest) if line.name != "EXPOSE" else None
    words = line.rest.split() if listed is None else listed
    if line.name == "SHELL" and listed is None:
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    if not words:
        _at_least_one(line)
    if line.name == "VOLUME" and any(not word.strip() for word in words):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    if line.name == "EXPOSE":
        words = sorted(words)
    return Words(line, line.name, tuple(words))


def _text(line: Line, _: str) -> Text:
    _flags(line)
    if not line.rest:
        _exactly_one(line)
    return Text(line, line.name, line.rest)


def _onbuild(line: Line, escape: str) -> Text:
    _flags(line)
    if not line.rest:
        _at_least_one(line)
    name = line.rest.split()[0].upper()
    if name == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{name} isn't allowed as an ONBUILD trigger")
    expression = re.sub(r"(?i)^\s*ONBUILD\s*", "", line.original)
    read(msgspec.structs.replace(dockerfile.parse_one(expression, escape), number=line.number), escape)
    return Text(line, line.name, expression)


def _maintainer(line: Line, _: str) -> Maintainer:
    _flags(line)
    if not line.rest:
        _exactly_one(line)
    return Maintainer(line, line.rest)


def _healthcheck(line: Line, _: str) -> HealthcheckCommand:
    if not line.rest:
        _at_least_one(line)
    return HealthcheckCommand(line, healthcheck.read(line.rest, _flags(line, *healthcheck.FLAGS)))


_READERS: dict[str, Callable[[Line, str], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": lambda line, _: Cmd(line, _command(line)),
    "COPY": _copy,
    "ENTRYPOINT": lambda line, _: Entrypoint(line, _command(line)),
    "ENV": lambda line, escape: Env(line, _pairs(line, escape)),
    "EXPOSE": _words,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda line, escape: Label(line, _pairs(line, escape)),
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _words,
    "STOPSIGNAL": _text,
    "USER": _text,
    "VOLUME": _words,
    "WORKDIR": _text,
}
