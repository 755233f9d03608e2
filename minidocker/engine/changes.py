"""Changes to an image's configuration, written as Dockerfile instructions: `commit --change`, `import --change`.

Source  Dockerfile reference; Docker Engine API 1.44, ImageCommit and ImageCreate; texts recorded from dockerd.
Rules   - pure: a configuration in, another one out.
        - only instructions that change nothing but the configuration are allowed.
        - an ENTRYPOINT without a CMD beside it takes the old CMD away: that was meant for another program.
"""

import json
import posixpath
import re
from collections.abc import Callable, Sequence

import msgspec

from minidocker.engine import validate, words
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig, Healthcheck

_DEFAULT_SHELL = ["/bin/sh", "-c"]
_NOT_AS_TRIGGER = {
    "ONBUILD": "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
    "MAINTAINER": "MAINTAINER isn't allowed as an ONBUILD trigger",
    "FROM": "FROM isn't allowed as an ONBUILD trigger",
}
_DURATIONS = {"interval": "interval", "timeout": "timeout", "start-period": "start_period",
              "start-interval": "start_interval"}  # fmt: skip


def apply(config: ExecutionConfig, changes: Sequence[str]) -> ExecutionConfig:
    """`config` after these instructions.

    Raises  InvalidArgument: not an instruction that may stand here, or a wrong argument.

    >>> apply(ExecutionConfig(cmd=["sh"]), ["ENV A=1 B=2", 'ENTRYPOINT ["/x"]'])
    ExecutionConfig(env=['A=1', 'B=2'], entrypoint=['/x'])
    """
    if not changes:
        return config
    lines = _instructions("\n".join(changes))
    if not lines:
        raise InvalidArgument("file with no instructions")
    draft = _Draft(config)
    for line in lines:
        name, _, rest = line.partition(" ")
        draft.apply(name, rest.strip())
    return draft.config


def _instructions(text: str) -> list[str]:
    """The lines, joined where they end in a backslash; comments and empty lines are left out."""
    found, waiting = [], ""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.endswith("\\"):
            waiting += stripped[:-1]
            continue
        found.append(" ".join((waiting + stripped).split(None, 1)))
        waiting = ""
    return [*found, " ".join(waiting.split(None, 1))] if waiting.strip() else found


def _json_words(text: str) -> list[str] | None:
    """The exec form: a JSON list of strings, or None."""
    try:
        value = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else None


_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_UNIT_NS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}


def _nanoseconds(text: str) -> int:
    """A duration as Go writes it ("1m30s"); those of a health check are 0 or at least a millisecond."""
    parts = _DURATION.findall(text)
    if text != "0" and (not text or "".join(number + unit for number, unit in parts) != text):
        raise InvalidArgument(f'time: invalid duration "{text}"')
    total = sum(int(float(number) * _UNIT_NS[unit]) for number, unit in parts)
    if 0 < total < _UNIT_NS["ms"]:
        raise InvalidArgument(f"the duration {text} of a health check is less than 1ms")
    return total


class _Draft:
    """A configuration that instructions change one by one."""

    def __init__(self, config: ExecutionConfig) -> None:
        self.config = config
        self._command_given = False

    def apply(self, name: str, rest: str) -> None:
        verb = _VERBS.get(name.lower())
        if verb is None:
            raise InvalidArgument(f"{name.lower()} is not a valid change command")
        if not rest and verb not in (_Draft.command, _Draft.entrypoint):
            count = "exactly" if verb in (_Draft.user, _Draft.working_directory, _Draft.stop_signal) else "at least"
            raise InvalidArgument(f"{name.upper()} requires {count} one argument")
        verb(self, rest)

    def _set(self, **fields: object) -> None:
        self.config = msgspec.structs.replace(self.config, **fields)

    @property
    def _env(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.config.env or [])

    def _expanded(self, text: str) -> str:
        try:
            return words.expand(text, self._env)
        except InvalidArgument as error:
            raise InvalidArgument(f"failed to process {json.dumps(text)}: {error}") from None

    def _command_line(self, rest: str) -> list[str]:
        exec_form = _json_words(rest)
        return exec_form if exec_form is not None else [*(self.config.shell or _DEFAULT_SHELL), *filter(None, [rest])]

    def command(self, rest: str) -> None:
        self._set(cmd=self._command_line(rest))
        self._command_given = True

    def entrypoint(self, rest: str) -> None:
        self._set(entrypoint=self._command_line(rest))
        if not self._command_given:
            self._set(cmd=None)

    def _pairs(self, name: str, rest: str) -> dict[str, str]:
        """`a=b c=d`, or the old form `a b`."""
        found = words.split(rest)
        if "=" not in found[0]:
            key, _, value = rest.partition(" ")
            if not value.strip():
                raise InvalidArgument(f"{name} must have two arguments")
            pairs = [(key, value.strip())]
        else:
            wrong = next((word for word in found if "=" not in word), None)
            if wrong is not None:
                text = json.dumps(wrong)
                raise InvalidArgument(f"Syntax error - can't find = in {text}. Must be of the form: name=value")
            pairs = [(key, value) for key, _, value in (word.partition("=") for word in found)]
        expanded = {self._expanded(key): self._expanded(value) for key, value in pairs}
        if "" in expanded:
            raise InvalidArgument(f"{name} names can not be blank")
        return expanded

    def env(self, rest: str) -> None:
        self._set(env=[f"{key}={value}" for key, value in (self._env | self._pairs("ENV", rest)).items()])

    def label(self, rest: str) -> None:
        self._set(labels={**(self.config.labels or {}), **self._pairs("LABEL", rest)})

    def expose(self, rest: str) -> None:
        ports = dict(self.config.exposed_ports or {})
        for text in (port for word in words.split(rest) for port in self._expanded(word).split()):
            first, last, protocol = validate.parse_port(text)
            ports |= {f"{number}/{protocol}": {} for number in range(first, last + 1)}
        self._set(exposed_ports=ports)

    def volume(self, rest: str) -> None:
        exec_form = _json_words(rest)
        paths = [self._expanded(path).strip() for path in (exec_form if exec_form is not None else words.split(rest))]
        if not paths:
            raise InvalidArgument("VOLUME requires at least one argument")
        if "" in paths:
            raise InvalidArgument("VOLUME specified can not be an empty string")
        self._set(volumes={**(self.config.volumes or {}), **{path: {} for path in paths}})

    def user(self, rest: str) -> None:
        self._set(user=self._expanded(rest))

    def working_directory(self, rest: str) -> None:
        path = posixpath.join(self.config.working_dir or "/", self._expanded(rest))
        self._set(working_dir="/" + posixpath.normpath(path).lstrip("/"))

    def stop_signal(self, rest: str) -> None:
        text = self._expanded(rest)
        validate.signal_number(text)
        self._set(stop_signal=text)

    def trigger(self, rest: str) -> None:
        name = rest.split(None, 1)[0].upper()
        if name in _NOT_AS_TRIGGER:
            raise InvalidArgument(_NOT_AS_TRIGGER[name])
        self._set(on_build=[*(self.config.on_build or []), rest])

    def healthcheck(self, rest: str) -> None:
        options, rest = _health_options(rest)
        kind, _, command = rest.partition(" ")
        command = command.strip()
        if kind.upper() not in ("NONE", "CMD"):
            raise InvalidArgument(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
        if kind.upper() == "NONE":
            if command:
                raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
            self._set(healthcheck=Healthcheck(test=["NONE"]))
            return
        if not command:
            raise InvalidArgument("Missing command after HEALTHCHECK CMD")
        exec_form = _json_words(command)
        test = ["CMD", *exec_form] if exec_form is not None else ["CMD-SHELL", command]
        self._set(healthcheck=Healthcheck(test=test, **options))


def _health_options(rest: str) -> tuple[dict[str, int], str]:
    """The `--name=value` words at the beginning, and what follows them."""
    options: dict[str, int] = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        rest = rest.strip()
        key, _, value = option.removeprefix("--").partition("=")
        if key == "retries":
            if not value.isdecimal():
                raise InvalidArgument(f'--retries must be a number, not "{value}"')
            options[key] = int(value)
        elif key in _DURATIONS:
            options[_DURATIONS[key]] = _nanoseconds(value)
        else:
            raise InvalidArgument(f"unknown flag: {key}")
    return options, rest


_VERBS: dict[str, Callable[[_Draft, str], None]] = {
    "cmd": _Draft.command,
    "entrypoint": _Draft.entrypoint,
    "env": _Draft.env,
    "expose": _Draft.expose,
    "healthcheck": _Draft.healthcheck,
    "label": _Draft.label,
    "onbuild": _Draft.trigger,
    "stopsignal": _Draft.stop_signal,
    "user": _Draft.user,
    "volume": _Draft.volume,
    "workdir": _Draft.working_directory,
}


def over(config: ExecutionConfig, below: ExecutionConfig) -> ExecutionConfig:
    """`config` with the values of `below` for what it leaves open: a committed image's over its container's; pure."""
    given = {entry.partition("=")[0] for entry in config.env or []}
    env = [*(config.env or []), *(entry for entry in below.env or [] if entry.partition("=")[0] not in given)]
    command, entrypoint = config.cmd, config.entrypoint
    if not entrypoint:
        command = command or below.cmd
        entrypoint = below.entrypoint if entrypoint is None else entrypoint
    return msgspec.structs.replace(
        config,
        user=config.user or below.user,
        exposed_ports={**(below.exposed_ports or {}), **(config.exposed_ports or {})} or None,
        env=env or None,
        cmd=command,
        entrypoint=entrypoint or None,
        labels={**(below.labels or {}), **(config.labels or {})} or None,
        working_dir=config.working_dir or below.working_dir,
        volumes={**(below.volumes or {}), **(config.volumes or {})} or None,
        stop_signal=config.stop_signal or below.stop_signal,
        stop_timeout=below.stop_timeout if config.stop_timeout is None else config.stop_timeout,
        healthcheck=config.healthcheck or below.healthcheck,
        shell=config.shell or below.shell,
        on_build=config.on_build or below.on_build,
    )
