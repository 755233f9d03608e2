"""Instructions that only change an image's configuration, and the texts by which history tells of them.

Source  Dockerfile reference; moby builder/dockerfile/dispatchers.go (comments, order, what resets what).
Rules   - pure: a configuration in, another one and a comment out.
        - variables were put in before, by `expanded`, where the reference says so for the instruction.
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping

import msgspec

from minidocker.build import healthcheck
from minidocker.build.expansion import Lexer, go_quoted_list
from minidocker.build.instructions import Arg as ArgInstruction
from minidocker.build.instructions import (
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    HealthcheckCommand,
    Instruction,
    Label,
    Pair,
    Text,
    Words,
)
from minidocker.engine.values import signal_number
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORT = re.compile(r"(?:.*:)?([^/:]*)(?:/(.*))?\Z")


class Outcome(msgspec.Struct, frozen=True):
    """What an instruction made of the configuration. comment: for history ("CMD [...]")."""

    config: ExecutionConfig
    comment: str


def environment(config: ExecutionConfig) -> dict[str, str]:
    """The configuration's variables."""
    return dict(entry.partition("=")[::2] for entry in config.env or [])


def with_default_path(config: ExecutionConfig) -> ExecutionConfig:
    """The configuration with a PATH."""
    if "PATH" in environment(config):
        return config
    return msgspec.structs.replace(config, env=[*(config.env or []), DEFAULT_PATH])


def shell_of(config: ExecutionConfig) -> list[str]:
    """What runs a command's shell form."""
    return list(config.shell or DEFAULT_SHELL)


def command_words(command: CommandLine, config: ExecutionConfig) -> list[str]:
    """A command as the words that are run."""
    return [*shell_of(config), *command.words] if command.shell else list(command.words)


def expanded(instruction: Instruction, lexer: Lexer, variables: Mapping[str, str]) -> Instruction:
    """The instruction with variables put in. Raises InvalidArgument."""

    def word(text: str) -> str:
        return lexer.word(text, variables)

    def pairs(found: tuple[Pair, ...]) -> tuple[Pair, ...]:
        return tuple(Pair(word(p.name), None if p.value is None else word(p.value)) for p in found)

    replace = msgspec.structs.replace
    if isinstance(instruction, (Env, ArgInstruction)) or (isinstance(instruction, Label) and not instruction.verbatim):
        return replace(instruction, pairs=pairs(instruction.pairs))
    if isinstance(instruction, Copy):
        sources = tuple(word(source) for source in instruction.sources)
        documents = tuple(
            replace(one, raw=lexer.text(one.content, variables) if one.expand else one.content, chomp=False)
            for one in instruction.documents
        )
        return replace(instruction, sources=sources, destination=word(instruction.destination), documents=documents,
                       chown=word(instruction.chown), chmod=word(instruction.chmod),
                       checksum=word(instruction.checksum))  # fmt: skip
    if isinstance(instruction, Words) and instruction.name == "EXPOSE":
        ports = [found for port in instruction.words for found in lexer.words(port, variables)]
        return replace(instruction, words=tuple(ports))
    if isinstance(instruction, Words) and instruction.name == "VOLUME":
        return replace(instruction, words=tuple(word(path) for path in instruction.words))
    if isinstance(instruction, Text) and instruction.name != "ONBUILD":
        return replace(instruction, text=word(instruction.text))
    return instruction


def apply(instruction: Instruction, config: ExecutionConfig, *, command_given: bool) -> Outcome | None:
    """The configuration after the instruction; None: it is none of those that only change the configuration.

    command_given  a CMD came before in this stage: an ENTRYPOINT leaves it.
    Raises         InvalidArgument: a port, signal or name that cannot be.
    """
    if isinstance(instruction, (Words, Text)):
        found = _BY_NAME.get(instruction.name)
        return None if found is None else found(instruction, config)
    replace = msgspec.structs.replace
    if isinstance(instruction, Env):
        return _env(instruction, config)
    if isinstance(instruction, Label):
        labels = {**(config.labels or {}), **{pair.name: pair.value or "" for pair in instruction.pairs}}
        if "" in labels:
            raise InvalidArgument("LABEL names can not be blank")
        return Outcome(replace(config, labels=labels), "LABEL " + " ".join(map(str, instruction.pairs)))
    if isinstance(instruction, Cmd):
        words = command_words(instruction.command, config)
        return Outcome(replace(config, cmd=words), f"CMD {go_quoted_list(words)}")
    if isinstance(instruction, Entrypoint):
        words = command_words(instruction.command, config) if instruction.command.words else []
        kept = config.cmd if command_given else None
        return Outcome(replace(config, entrypoint=words or None, cmd=kept), f"ENTRYPOINT {go_quoted_list(words)}")
    if isinstance(instruction, HealthcheckCommand):
        check = healthcheck.over(instruction.check, config.healthcheck)
        return Outcome(replace(config, healthcheck=check), f"HEALTHCHECK {healthcheck.shown(instruction.check)}")
    return None


def _env(instruction: Env, config: ExecutionConfig) -> Outcome:
    env = list(config.env or [])
    for pair in instruction.pairs:
        if not pair.name:
            raise InvalidArgument("ENV names can not be blank")
        places = [at for at, entry in enumerate(env) if entry.partition("=")[0] == pair.name]
        if places:
            env[places[0]] = str(pair)
        else:
            env.append(str(pair))
    comment = "ENV " + " ".join(map(str, instruction.pairs))
    return Outcome(msgspec.structs.replace(config, env=env), comment)


def ports_of(text: str) -> list[str]:
    """`80`, `90/udp` or `100-102` as Docker's keys. Raises InvalidArgument."""
    match = _PORT.match(text)
    numbers, protocol = (match[1], (match[2] or "tcp").lower()) if match else ("", "tcp")
    low, dash, high = numbers.partition("-")
    if not numbers:
        raise InvalidArgument(f"No port specified: {text}<empty>")
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"Invalid proto: {protocol}")
    last = high if dash else low
    if not (low.isdecimal() and last.isdecimal() and int(low) <= int(last) < 65536):
        raise InvalidArgument(f"Invalid containerPort: {numbers}")
    return [f"{number}/{protocol}" for number in range(int(low), int(last) + 1)]


def _expose(instruction: Words, config: ExecutionConfig) -> Outcome:
    ports: dict[str, object] = dict(config.exposed_ports or {})
    for text in instruction.words:
        ports |= {port: {} for port in ports_of(text)}
    comment = "EXPOSE " + " ".join(instruction.words)
    return Outcome(msgspec.structs.replace(config, exposed_ports=ports), comment)


def _volume(instruction: Words, config: ExecutionConfig) -> Outcome:
    paths = [path.strip() for path in instruction.words]
    if "" in paths:
        raise InvalidArgument("VOLUME specified can not be an empty string")
    volumes: dict[str, object] = {**(config.volumes or {}), **{path: {} for path in paths}}
    comment = f"VOLUME [{' '.join(instruction.words)}]"
    return Outcome(msgspec.structs.replace(config, volumes=volumes), comment)


def _shell(instruction: Words, config: ExecutionConfig) -> Outcome:
    words = list(instruction.words)
    return Outcome(msgspec.structs.replace(config, shell=words), f"SHELL [{' '.join(words)}]")


def _user(instruction: Text, config: ExecutionConfig) -> Outcome:
    return Outcome(msgspec.structs.replace(config, user=instruction.text), f"USER {instruction.text}")


def _stop_signal(instruction: Text, config: ExecutionConfig) -> Outcome:
    signal_number(instruction.text)
    comment = f"STOPSIGNAL {instruction.text}"
    return Outcome(msgspec.structs.replace(config, stop_signal=instruction.text), comment)


def _on_build(instruction: Text, config: ExecutionConfig) -> Outcome:
    triggers = [*(config.on_build or []), instruction.text]
    return Outcome(msgspec.structs.replace(config, on_build=triggers), f"ONBUILD {instruction.text}")


_BY_NAME: dict[str, Callable[..., Outcome]] = {
    "EXPOSE": _expose,
    "ONBUILD": _on_build,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
}


def working_directory(path: str, config: ExecutionConfig) -> str:
    """Where WORKDIR leads: relative to the one before. Raises InvalidArgument."""
    if not path:
        raise InvalidArgument("cannot normalize nothing")
    joined = posixpath.join("/", config.working_dir or "/", path)
    return "/" + posixpath.normpath(joined).lstrip("/")


def destination(path: str, config: ExecutionConfig) -> str:
    """Where COPY and ADD put things: absolute, a trailing slash kept."""
    if path.startswith("/"):
        return path
    joined = posixpath.normpath(posixpath.join("/", config.working_dir or "/", path))
    return "/" + joined.lstrip("/") + ("/" if path.endswith("/") and joined != "/" else "")


def chmod_bits(text: str) -> int | None:
    """--chmod's bits; None: not given. Raises InvalidArgument: anything but octal digits up to 7777."""
    if not text:
        return None
    if not re.fullmatch(r"0?[0-7]{1,4}", text):
        quoted = json.dumps(text)
        raise InvalidArgument(f"invalid chmod parameter: {quoted}. it should be octal string and between 0 and 07777")
    return int(text, 8)
