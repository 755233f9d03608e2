"""Logging drivers through the socket: local files, syslog servers, refusals, the daemon's default; a daemon's death."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.types import LogConfig

from .conftest import Daemon, make_daemon, wait_until

COUNT = "i=0; while [ $i -lt {} ]; do echo line $i; i=$((i+1)); done"
COUNTING = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"


@contextlib.contextmanager
def syslog_server(port: int = 0) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        yield server


def to(server: socket.socket, **more: str) -> LogConfig:
    return LogConfig(type="syslog", config={"syslog-address": f"tcp://127.0.0.1:{server.getsockname()[1]}", **more})


def test_local_keeps_files_of_its_own_that_logs_reads_like_any_other(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    log = LogConfig(type="local", config={})
    container = client.containers.run("busybox", ["sh", "-c", COUNT.format(300) + "; echo bad >&2; printf end"],
                                      detach=True, log_config=log)  # fmt: skip
    container.wait()
    assert container.logs(stderr=False) == b"".join(b"line %d\n" % n for n in range(300)) + b"end"
    assert container.logs(tail=2, stderr=False) == b"line 299\nend"
    assert container.logs(stdout=False) == b"bad\n"
    stamped = container.logs(timestamps=True, tail=1).decode()
    assert stamped.endswith("Z end") and stamped.startswith("20")
    assert container.logs(since=2_000_000_000) == b"" == container.logs(until=1_000_000_000)
    assert os.listdir(daemon.data_root / "containers" / container.id / "local-logs") == ["container.log"]
    container.reload()
    assert container.attrs["LogPath"] == "" and container.attrs["HostConfig"]["LogConfig"]["Type"] == "local"


def test_a_follower_of_local_loses_no_line_over_rotations_and_compression(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    log = LogConfig(type="local", config={"max-size": "20k", "max-file": "3"})
    container = client.containers.run("busybox", ["sh", "-c", "read go; " + COUNT.format(6000)], detach=True,
                                      stdin_open=True, log_config=log)  # fmt: skip
    following = container.logs(stream=True, follow=True)
    container.attach_socket(params={"stdin": 1, "stream": 1})._sock.sendall(b"go\n")
    assert b"".join(following).decode().splitlines() == [f"line {n}" for n in range(6000)]
    kept = container.logs().decode().splitlines()
    assert kept == [f"line {n}" for n in range(6000 - len(kept), 6000)] and len(kept) > 1000
    assert container.logs(tail=900).decode().splitlines() == kept[-900:]
    names = os.listdir(daemon.data_root / "containers" / container.id / "local-logs")
    assert "container.log.2.gz" in names and len(names) == 3


def test_local_and_syslog_go_on_when_the_daemon_is_killed(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    with syslog_server() as server:
        client.containers.run("busybox", ["sh", "-c", COUNTING], detach=True, name="local",
                              log_config=LogConfig(type="local", config={}))  # fmt: skip
        client.containers.run("busybox", ["sh", "-c", COUNTING], detach=True, name="far",
                              log_config=to(server))  # fmt: skip
        connection, _ = server.accept()
        with connection, connection.makefile("r") as lines:
            before = [next(lines) for _ in range(20)]
            own_daemon.end(9)
            meanwhile = [next(lines) for _ in range(20)]
            own_daemon.start()
            after = [next(lines) for _ in range(20)]
            numbers = [int(line.split()[-1]) for line in before + meanwhile + after]
            assert numbers == list(range(60))
            container = own_daemon.client().containers.get("local")
            wait_until(lambda: len(container.logs().splitlines()) > 100)
            assert [int(line) for line in container.logs().split()][:100] == list(range(100))
            own_daemon.remove_all()


def test_a_syslog_server_gets_every_line_with_its_tag_and_a_copy_can_be_read(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    with syslog_server() as server:
        log = to(server, **{"tag": "{{.Name}}", "syslog-facility": "local1", "syslog-format": "rfc3164"})
        container = client.containers.run("busybox", ["sh", "-c", COUNT.format(2000) + "; echo bad >&2"], detach=True,
                                          name="spoken", log_config=log)  # fmt: skip
        connection, _ = server.accept()
        with connection, connection.makefile("r") as file:
            lines = file.readlines()
    assert [line.partition("]: ")[2] for line in lines[:-1]] == [f"line {n}\n" for n in range(2000)]
    assert lines[0].startswith("<142>") and f"{socket.gethostname()} spoken[" in lines[0]
    assert lines[-1].startswith("<139>") and lines[-1].endswith("]: bad\n")
    shown = daemon.cli("logs", container.id)
    assert (shown.stdout, shown.stderr) == ("".join(f"line {n}\n" for n in range(2000)), "bad\n")
    copies = [path.name for path in (daemon.data_root / "containers" / container.id).glob("container-cached.log*")]
    assert copies == ["container-cached.log"]


def test_a_copy_rotates_by_its_own_options(daemon: Daemon, client: docker.DockerClient) -> None:
    with syslog_server() as server:
        log = to(server, **{"cache-max-size": "20k", "cache-max-file": "3", "cache-compress": "false"})
        container = client.containers.run("busybox", ["sh", "-c", COUNT.format(5000)], detach=True, log_config=log)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            assert len(file.readlines()) == 5000
        container.wait()
        place = daemon.data_root / "containers" / container.id
        assert {path.name for path in place.glob("container-cached*")} == {
            "container-cached.log", "container-cached.log.1", "container-cached.log.2"
        }  # fmt: skip
        kept = container.logs().split(b"\n")[:-1]
        assert 0 < len(kept) < 5000 and kept == [b"line %d" % n for n in range(5000 - len(kept), 5000)]


def test_without_a_copy_logs_are_refused(daemon: Daemon, client: docker.DockerClient) -> None:
    with syslog_server() as server:
        log = to(server, **{"cache-disabled": "true"})
        container = client.containers.run("busybox", ["true"], detach=True, log_config=log)
        container.wait()
        refused = daemon.cli("logs", container.id)
    assert refused.returncode == 1
    assert refused.stderr.strip() == "Error response from daemon: configured logging driver does not support reading"
    assert not list((daemon.data_root / "containers" / container.id).glob("container-cached*"))


def test_a_dead_syslog_server_fails_the_start_and_nothing_stays(daemon: Daemon) -> None:
    with syslog_server() as server:
        port = server.getsockname()[1]
    done = daemon.cli("run", "--name", "mute", "--log-driver", "syslog", "--log-opt",
                      f"syslog-address=tcp://127.0.0.1:{port}", "busybox", "true")  # fmt: skip
    words = f"failed to initialize logging driver: dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert done.returncode == 125 and words in done.stderr
    with syslog_server(port) as server:
        assert daemon.cli("start", "-a", "mute").returncode == 0, "once the server is there it starts"


def test_a_server_that_dies_or_does_not_read_never_holds_a_container_up(client: docker.DockerClient) -> None:
    with syslog_server() as server:
        script = "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 1000; echo done >&2"
        container = client.containers.run("busybox", ["sh", "-c", script], detach=True, log_config=to(server))
        connection, _ = server.accept()  # and reads nothing
        assert container.wait(timeout=60)["StatusCode"] == 0
        connection.close()
    with syslog_server() as server:
        container = client.containers.run("busybox", ["sh", "-c", COUNTING], detach=True, log_config=to(server))
        connection, _ = server.accept()
        connection.recv(10)
        connection.close()
    stream = container.attach(stream=True, logs=False)
    seen = b""
    while seen.count(b"\n") < 50:
        seen += next(stream)
    container.kill()


def test_what_is_no_driver_or_option_is_refused_when_the_container_is_made(daemon: Daemon) -> None:
    gelf = daemon.cli("create", "--log-driver", "gelf", "busybox")
    assert "logger: no log driver named 'gelf' is registered" in gelf.stderr
    wrong = daemon.cli("create", "--log-opt", "colour=1", "busybox")
    assert "unknown log opt 'colour' for json-file log driver" in wrong.stderr
    assert daemon.cli("ps", "-aq").stdout == ""


def test_labels_variables_and_a_tag_stand_in_every_line_and_in_details(daemon: Daemon) -> None:
    done = daemon.cli("run", "--name", "shown", "--label", "tier=web server", "-e", "MODE=dev", "--log-opt",
                      "labels=tier", "--log-opt", "env=MODE", "--log-opt", "tag={{.Name}}", "busybox", "echo",
                      "hi")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(daemon.cli("inspect", "shown").stdout)[0]
    line = json.loads(Path(document["LogPath"]).read_text())
    assert line["attrs"] == {"tier": "web server", "MODE": "dev", "tag": "shown"}
    assert daemon.cli("logs", "--details", "shown").stdout == "MODE=dev,tag=shown,tier=web+server hi\n"
    assert daemon.cli("logs", "shown").stdout == "hi\n"


@pytest.fixture(scope="module")
def other_default(image_root: Path) -> Iterator[Daemon]:
    flags = ["--bridge", "none", "--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=2"]
    yield from make_daemon(image_root, flags)


def test_the_daemons_own_driver_is_for_those_who_name_none(other_default: Daemon) -> None:
    client = other_default.client()
    assert client.info()["LoggingDriver"] == "local"
    assert set(client.info()["Plugins"]["Log"]) == {"json-file", "local", "none", "syslog"}
    plain = client.containers.run("busybox", ["echo", "hi"], detach=True)
    named = client.containers.run("busybox", ["echo", "hi"], detach=True, log_config=LogConfig(type="json-file"))
    assert plain.attrs["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}}
    assert named.attrs["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert (plain.wait(), plain.logs(), named.wait(), named.logs())[1::2] == (b"hi\n", b"hi\n")
    other_default.remove_all()


def test_a_daemon_with_a_wrong_default_does_not_start(own_daemon: Daemon) -> None:
    own_daemon.end()
    flags, own_daemon.flags = own_daemon.flags, [*own_daemon.flags, "--log-driver", "gelf"]
    with pytest.raises(RuntimeError, match="no log driver named 'gelf' is registered"):
        own_daemon.start()
    own_daemon.flags = flags
    own_daemon.start()
