"""Logging drivers: options as dockerd reads them, and what the monitor gets."""

import socket
from pathlib import Path
from typing import Any

import pytest

from minidocker.engine.containers.config import ContainerConfig, HostConfig, LogConfig
from minidocker.engine.containers.container import Container, Record
from minidocker.engine.logs import log_drivers
from minidocker.errors import MinidockerError

ID = "0123456789abcdef" * 4


def container(directory: Path, driver: str, **options: str) -> Container:
    config = ContainerConfig(labels={"tier": "web", "team": "blue"}, env=["MODE=dev", "HOME=/", "NOTHING"])
    host = HostConfig(log_config=LogConfig(driver, {k.replace("_", "-"): v for k, v in options.items()}))
    record = Record(id=ID, name="box", created="", image="busybox:1", image_id="sha256:" + "ab" * 32, config=config,
                    host=host, path="sh", args=["-c", "true"])  # fmt: skip
    return Container(record, directory)


# Recorded from dockerd 20.10, the end of what we say beyond it left open.
@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("gelf", {}, "logger: no log driver named 'gelf' is registered"),
        ("fluentd", {}, "logger: no log driver named 'fluentd' is registered"),
        ("json-file", {"colour": "1"}, "unknown log opt 'colour' for json-file log driver"),
        ("syslog", {"bad": "1"}, "unknown log opt 'bad' for syslog log driver"),
        ("local", {"bad": "1"}, "unknown log opt 'bad' for log driver local"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("none", {"mode": "blocking"}, "unknown log opt 'mode' for none log driver"),
        ("json-file", {"mode": "bad"}, "logger: logging mode not supported: bad"),
        ("json-file", {"max-buffer-size": "1m"},
         "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"compress": "true"}, "failed to initialize logging driver: "
         "compress cannot be true when max-file is less than 2 or max-size is not set"),
        ("local", {"max-size": "-1"},
         "failed to initialize logging driver: invalid value for max-size: -1: invalid size: '-1'"),
        ("local", {"max-file": "0"},
         "failed to initialize logging driver: compression cannot be enabled when max file count is 1"),
        ("local", {"compress": "maybe"}, "failed to initialize logging driver: error reading compress log option: "
         'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("json-file", {"tag": "{{.Bad"}, "failed to initialize logging driver: template: log-tag:1"),
        ("json-file", {"tag": "{{.Wrong}}"}, "failed to initialize logging driver: template: log-tag:1"),
        ("json-file", {"labels-regex": "("}, "failed to initialize logging driver: error parsing regexp: "),
        ("syslog", {"cache-disabled": "maybe"}, "invalid value for option cache-disabled: maybe"),
        ("json-file", {"cache-max-file": "x"}, "failed to initialize logging driver: invalid value for max-file: x"),
        ("syslog", {"syslog-address": "foo://x"}, "syslog-address should be in form proto://address, got foo://x"),
        ("syslog", {"syslog-address": "unix:///nope"}, "stat /nope: no such file or directory"),
        ("syslog", {"syslog-address": "udp://", "syslog-facility": "bad"}, "invalid syslog facility"),
        ("syslog", {"syslog-address": "udp://", "syslog-format": "bad"}, "Invalid syslog format"),
        ("syslog", {"syslog-address": "tcp+tls://x"}, "syslog-address tcp+tls://x: messages are sent without TLS only"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_dockers_words(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(MinidockerError) as refused:
        log_drivers.check(LogConfig(driver, options))
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-size": "-1"}),
        ("json-file", {"max-file": "100"}),
        ("json-file", {"max-size": "1m", "max-file": "3", "compress": "true", "labels": "a,b", "env-regex": "^A"}),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "4m"}),
        ("local", {}),
        ("local", {"max-file": "1", "compress": "false"}),
        ("syslog", {"syslog-address": "tcp://127.0.0.1:601", "syslog-facility": "local3", "syslog-format": "rfc5424"}),
        ("none", {}),
    ],
)
def test_what_docker_takes_is_taken(driver: str, options: dict[str, str]) -> None:
    log_drivers.check(LogConfig(driver, options))


@pytest.mark.parametrize(
    ("wanted", "default", "merged"),
    [
        (LogConfig(), LogConfig("local", {"max-size": "1m"}), ("local", {"max-size": "1m"})),
        (LogConfig("", {"max-size": "2m"}), LogConfig("local", {"max-size": "1m"}), ("local", {"max-size": "2m"})),
        (LogConfig("json-file"), LogConfig("local", {"max-size": "1m"}), ("json-file", {})),
        (LogConfig("json-file", {"max-file": "2"}), LogConfig("json-file", {"max-size": "1m"}),
         ("json-file", {"max-size": "1m", "max-file": "2"})),
    ],
)  # fmt: skip
def test_the_daemons_options_are_for_its_own_driver(wanted: LogConfig, default: LogConfig, merged: Any) -> None:
    found = log_drivers.merge(wanted, default)
    assert (found.type, found.config) == merged


def test_local_has_dockers_defaults_and_a_directory_of_its_own(tmp_path: Path) -> None:
    target = log_drivers.target(container(tmp_path, "local"))
    assert target is not None
    assert (target.driver, target.max_bytes, target.max_files, target.compress) == ("local", 20_000_000, 5, True)
    assert target.path == f"{tmp_path}/local-logs/container.log" and Path(target.path).parent.is_dir()


def test_labels_variables_and_the_tag_are_shown_as_asked(tmp_path: Path) -> None:
    options = {"labels": "tier,absent", "env_regex": "^MO", "tag": "{{.Name}}/{{ .ID }}/{{.ImageName}}"}
    target = log_drivers.target(container(tmp_path, "json-file", **options))
    assert target is not None
    assert target.attributes == {"tag": f"box/{ID[:12]}/busybox:1", "tier": "web", "MODE": "dev"}


def test_a_syslog_target_is_an_address_and_the_short_id_is_its_tag(tmp_path: Path) -> None:
    target = log_drivers.target(
        container(tmp_path, "syslog", syslog_address="tcp://localhost:601", syslog_facility="17")
    )
    assert target is not None and target.syslog is not None
    syslog = target.syslog
    assert (syslog.network, syslog.port, syslog.facility, syslog.tag) == ("tcp", 601, 17, ID[:12])
    assert syslog.address in ("127.0.0.1", "::1") and syslog.hostname == socket.gethostname()


def test_what_is_in_files_can_be_read(tmp_path: Path) -> None:
    paths = {driver: container(tmp_path, driver).log_path for driver in log_drivers.DRIVERS}
    assert {driver for driver, path in paths.items() if path is not None} == {"json-file", "local", "syslog"}
    assert container(tmp_path, "syslog", cache_disabled="1").log_path is None
    assert log_drivers.target(container(tmp_path, "none")) is None
