"""Logging drivers: which there are, what they are told by --log-opt, and what the monitor gets of it.

Source  Docker's documentation "Configure logging drivers"; texts recorded from dockerd; moby daemon/logger.
Rules   - options are checked when the container is made, so a start fails only for what has changed since.
        - the drivers that need a service of others are refused by name, as dockerd refuses one that it does not know.
        - of what a server gets a copy stays here, in the local driver's format, so that `docker logs` shows it.
        - where the options and the driver come from: the container's own, else the daemon's (--log-driver, --log-opt).
"""

import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from minidocker.engine.containers.config import LogConfig
from minidocker.engine.containers.container import Container, Record
from minidocker.engine.values import size_bytes, truth
from minidocker.errors import InvalidArgument, NotFound
from minidocker.runtime.rotating_log import LogTarget, SyslogTarget

DRIVERS = ("json-file", "local", "none", "syslog")
_SHOWN = {"labels", "labels-regex", "env", "env-regex", "tag"}  # what of the container is shown in its log
_OPTIONS = {
    "json-file": {"max-size", "max-file", "compress"} | _SHOWN,
    "local": {"max-size", "max-file", "compress"},
    "none": set[str](),
    "syslog": {"syslog-address", "syslog-facility", "syslog-format"} | _SHOWN,
}
_CACHE = "cache-"  # with options of `local` behind it: the copy of a log that goes elsewhere
_CACHE_OPTIONS = {f"{_CACHE}{key}" for key in ("disabled", "max-size", "max-file", "compress")}
_EVERYWHERE = {"mode", "max-buffer-size"} | _CACHE_OPTIONS  # options of every driver
_LOCAL_BYTES, _LOCAL_FILES = 20 * 1000 * 1000, 5
_FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "",
    "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_SYSLOG_PORT = 514
_LOCAL_SYSLOG = ("/dev/log", "/var/run/syslog", "/var/run/log")
_FIELD = re.compile(r"\{\{-?\s*\.(\w+)\s*-?\}\}")
_FAILED = "failed to initialize logging driver: "


def merge(wanted: LogConfig, default: LogConfig) -> LogConfig:
    """What a container logs to: its own choice, with the daemon's where it leaves something open."""
    driver = wanted.type or default.type or DRIVERS[0]
    options = dict(wanted.config or {})
    if driver == (default.type or DRIVERS[0]):
        options = {**(default.config or {}), **options}
    return LogConfig(driver, options)


def check(log: LogConfig) -> None:
    """Raises InvalidArgument: no such driver, an option that it does not have, or a value that is none."""
    driver, options = log.type, log.config or {}
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    for key in options:
        if key not in _OPTIONS[driver] | (_EVERYWHERE if driver != "none" else set()):
            where = "log driver local" if driver == "local" else f"{driver} log driver"
            raise InvalidArgument(f"unknown log opt '{key}' for {where}")
    _check_mode(options)
    _check_shown(options)
    _check_cache(options)
    if driver == "json-file":
        _check_json_file(options)
    elif driver == "local":
        _check_local(options)
    elif driver == "syslog":
        _syslog_place(options)
        facility(options.get("syslog-facility", ""))
        if options.get("syslog-format", "") not in _FORMATS:
            raise InvalidArgument("Invalid syslog format")


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        size_bytes(options["max-buffer-size"])


def _check_cache(options: Mapping[str, str]) -> None:
    if disabled := options.get(f"{_CACHE}disabled", ""):
        try:
            truth(disabled)
        except InvalidArgument:
            raise InvalidArgument(f"invalid value for option {_CACHE}disabled: {disabled}") from None
    _check_local(_of_copy(options))


def _of_copy(options: Mapping[str, str]) -> dict[str, str]:
    """The options of the copy, as those of a local log."""
    return {key.removeprefix(_CACHE): value for key, value in options.items() if key in _CACHE_OPTIONS}


def _check_shown(options: Mapping[str, str]) -> None:
    for key in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(key, ""))
        except re.error as error:
            raise InvalidArgument(f"{_FAILED}error parsing regexp: {error}: `{options[key]}`") from None
    left = _FIELD.sub("", options.get("tag", ""))
    if "{{" in left:
        raise InvalidArgument(f"{_FAILED}template: log-tag:1: {left!r}: only fields like {{{{.Name}}}} are known")
    for name in _FIELD.findall(options.get("tag", "")):
        if name not in _FIELDS:
            raise InvalidArgument(f"{_FAILED}template: log-tag:1: can't evaluate field {name}")


def _check_json_file(options: Mapping[str, str]) -> None:
    size, count = options.get("max-size", "-1"), options.get("max-file", "1")
    if size != "-1" and size_bytes(size) <= 0:
        raise InvalidArgument("max-size must be a positive number")
    if not count.isdecimal() or int(count) < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    if _compress(options, default=False) and (int(count) < 2 or size == "-1"):
        raise InvalidArgument(f"{_FAILED}compress cannot be true when max-file is less than 2 or max-size is not set")


def _check_local(options: Mapping[str, str]) -> None:
    size, count = options.get("max-size", ""), options.get("max-file", f"{_LOCAL_FILES}")
    if "max-size" in options and (size.startswith("-") or size_bytes(size) <= 0):
        raise InvalidArgument(f"{_FAILED}invalid value for max-size: {size}: invalid size: '{size}'")
    if not count.isdecimal():
        raise InvalidArgument(f"{_FAILED}invalid value for max-file: {count}")
    if _compress(options, default=True) and int(count) < 2:
        raise InvalidArgument(f"{_FAILED}compression cannot be enabled when max file count is 1")


def _compress(options: Mapping[str, str], *, default: bool) -> bool:
    text = options.get("compress", "")
    try:
        return truth(text) if text else default
    except InvalidArgument as error:
        raise InvalidArgument(f"{_FAILED}error reading compress log option: {error}") from None


def facility(text: str) -> int:
    """The number of a facility, by name or number; "" is daemon. Raises InvalidArgument."""
    if text in _FACILITIES and text:
        return _FACILITIES.index(text)
    if text.isdecimal() and int(text) <= 23:
        return int(text)
    if text:
        raise InvalidArgument("invalid syslog facility")
    return _FACILITIES.index("daemon")


def _syslog_place(options: Mapping[str, str]) -> tuple[str, str, int]:
    """("tcp", host, port), ("udp", host, port) or ("unix", path, 0). Raises InvalidArgument; NotFound: no such path."""
    text = options.get("syslog-address", "")
    if not text:
        local = next((path for path in _LOCAL_SYSLOG if Path(path).is_socket()), "")
        if not local:
            raise InvalidArgument(f"{_FAILED}Unix syslog delivery error: no socket at {', '.join(_LOCAL_SYSLOG)}")
        return "unix", local, 0
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}") from None
    if address.scheme == "tcp+tls":
        raise InvalidArgument(f"syslog-address {text}: messages are sent without TLS only; use tcp, udp or unix")
    if address.scheme in ("unix", "unixgram"):
        if not Path(address.path).exists():
            raise NotFound(f"stat {address.path}: no such file or directory")
        return "unix", address.path, 0
    if address.scheme not in ("tcp", "udp"):
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    return address.scheme, address.hostname or "127.0.0.1", port or _SYSLOG_PORT


# -- of one container --

_FIELDS: dict[str, Callable[[Record], str]] = {
    "ID": lambda record: record.id[:12],
    "FullID": lambda record: record.id,
    "Name": lambda record: record.name,
    "ImageID": lambda record: record.image_id.partition(":")[2][:12],
    "ImageFullID": lambda record: record.image_id,
    "ImageName": lambda record: record.image,
    "Command": lambda record: " ".join([record.path, *record.args]),
    "DaemonName": lambda record: "docker",
    "Hostname": lambda record: socket.gethostname(),
}


def tag(record: Record, template: str) -> str:
    """What the log calls the container. template: with fields such as {{.Name}}, checked before."""
    return _FIELD.sub(lambda match: _FIELDS[match[1]](record), template)


def attributes(record: Record, options: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables that the options want to be shown, and the tag if one was asked for."""
    shown = {"tag": tag(record, options["tag"])} if options.get("tag") else {}
    environment = dict(entry.partition("=")[::2] for entry in record.config.env or [] if "=" in entry)
    for name, values in (("labels", record.config.labels or {}), ("env", environment)):
        names = {word for word in options.get(name, "").split(",") if word}
        pattern = options.get(f"{name}-regex", "")
        wanted = re.compile(pattern) if pattern else None
        shown |= {k: v for k, v in values.items() if k in names or (wanted is not None and wanted.search(k))}
    return shown


def target(container: Container) -> LogTarget | None:
    """Where the monitor writes the container's output; None: nowhere.

    Raises  InvalidArgument: the host of a syslog server has no address, or its socket is gone.
    """
    record, log = container.record, container.record.host.log_config
    options = log.config or {}
    if log.type == "none":
        return None
    if log.type == "syslog":
        path = container.log_path
        copy = _stored(path, "local", _of_copy(options)) if path is not None else None
        return LogTarget(driver="syslog", syslog=_syslog(record, options), copy=copy)
    assert container.log_path is not None
    shown = {} if log.type == "local" else attributes(record, options)
    return _stored(container.log_path, log.type, options, shown)


def _stored(path: Path, driver: str, options: Mapping[str, str], shown: dict[str, str] | None = None) -> LogTarget:
    """A log in files. driver: "json-file" or "local"."""
    local = driver == "local"
    size = options.get("max-size", f"{_LOCAL_BYTES}" if local else "-1")
    path.parent.mkdir(mode=0o700, exist_ok=True)  # the local driver's has a directory of its own
    return LogTarget(
        path=str(path),
        max_bytes=None if size == "-1" else size_bytes(size),
        max_files=max(1, int(options.get("max-file", _LOCAL_FILES if local else 1))),
        driver=driver,
        compress=_compress(options, default=local),
        attributes=shown or {},
    )


def _syslog(record: Record, options: Mapping[str, str]) -> SyslogTarget:
    network, address, port = _syslog_place(options)
    if network != "unix":
        try:
            address = str(socket.getaddrinfo(address, port)[0][4][0])
        except OSError:
            raise InvalidArgument(f"{_FAILED}dial {network}: lookup {address}: no such host") from None
    buffer = options.get("max-buffer-size", "1m")
    return SyslogTarget(
        network=network,
        address=address,
        port=port,
        facility=facility(options.get("syslog-facility", "")),
        layout=options.get("syslog-format", ""),
        tag=tag(record, options.get("tag") or "{{.ID}}"),
        hostname=socket.gethostname(),
        buffer_bytes=size_bytes(buffer),
    )
