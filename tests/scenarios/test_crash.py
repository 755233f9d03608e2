"""Kill -9 of the daemon: what lives goes on, what ended is told, nothing stays behind."""

import signal
import subprocess
from collections.abc import Iterator

import docker
import pytest

from .conftest import Daemon, make_daemon, wait_until


def test_containers_live_on_and_the_next_daemon_has_them(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    client.containers.run("busybox", "sleep 1000", detach=True, name="lives")
    client.containers.run("busybox", ["sh", "-c", "sleep 0.5; exit 7"], detach=True, name="ends")
    client.containers.run("busybox", "sleep 0.5", detach=True, name="temporary", remove=True)
    before = client.containers.get("lives").attrs["State"]
    own_daemon.end(signal.SIGKILL)
    subprocess.run(["sleep", "1"], check=True)
    own_daemon.start()
    client = own_daemon.client()
    lives, ends = client.containers.get("lives"), client.containers.get("ends")
    assert (lives.status, lives.attrs["State"]["Pid"]) == ("running", before["Pid"])
    assert lives.attrs["State"]["StartedAt"] == before["StartedAt"]
    assert (ends.status, ends.attrs["State"]["ExitCode"]) == ("exited", 7)
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("temporary")
    assert lives.exec_run("echo still here").output == b"still here\n"
    client.containers.run("busybox", "true", name="temporary", remove=True)
    lives.stop(timeout=0)
    assert client.containers.get("lives").attrs["State"]["ExitCode"] == 137


def test_a_running_exec_is_known_to_the_next_daemon(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    made = client.api.exec_create(container.id, ["sh", "-c", "sleep 2; exit 4"])
    client.api.exec_start(made["Id"], detach=True)
    own_daemon.restart(signal.SIGKILL)
    client = own_daemon.client()
    assert client.api.exec_inspect(made["Id"])["Running"] is True
    wait_until(lambda: not client.api.exec_inspect(made["Id"])["Running"])
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 4


def test_wait_and_attach_work_on_an_adopted_container(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = client.containers.run("busybox", "cat", detach=True, stdin_open=True, tty=True)
    own_daemon.restart(signal.SIGKILL)
    container = own_daemon.client().containers.get(container.id)
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    sock._sock.sendall(b"again\n")
    seen = b""
    while b"again\r\nagain\r\n" not in seen:
        seen += sock._sock.recv(4096)
    sock._sock.sendall(b"\x04")
    assert container.wait()["StatusCode"] == 0


def test_sigterm_leaves_containers_running_by_default(own_daemon: Daemon) -> None:
    container = own_daemon.client().containers.run("busybox", "sleep 1000", detach=True)
    assert own_daemon.end() == 0
    own_daemon.start()
    assert own_daemon.client().containers.get(container.id).status == "running"


def test_a_dead_launcher_is_started_again(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    client.containers.run("busybox", "true", remove=True)
    for entry in own_daemon.leftovers():
        if "minidocker-launcher" in entry:
            subprocess.run(["kill", "-9", entry.split()[1].rstrip(":")], check=True)
    assert client.containers.run("busybox", "echo again", remove=True) == b"again\n"


@pytest.fixture
def stopping_daemon(image_root: object) -> Iterator[Daemon]:
    yield from make_daemon(image_root, ["--bridge", "none", "--live-restore=false"])  # type: ignore[arg-type]


def test_without_live_restore_sigterm_stops_them(stopping_daemon: Daemon) -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    container = stopping_daemon.client().containers.run("busybox", ["sh", "-c", script], detach=True)
    wait_until(lambda: container.logs() == b"ready\n")
    assert stopping_daemon.end() == 0
    assert not stopping_daemon.leftovers()
    stopping_daemon.start()
    state = stopping_daemon.client().containers.get(container.id).attrs["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 5)


def test_two_daemons_on_one_root_are_refused(own_daemon: Daemon) -> None:
    second = subprocess.run(
        [*own_daemon.command("--pidfile", f"{own_daemon.root}/second.pid"), "-H", f"unix://{own_daemon.root}/second.sock"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "already" in second.stderr or "in use" in second.stderr


def test_tcp_without_tls_is_refused(own_daemon: Daemon) -> None:
    for address, flag in (("tcp://0.0.0.0:0", "--tlsverify=false"), ("tcp://127.0.0.1:0", "--tlsverify=")):
        command = [word for word in own_daemon.command() if word != "-H" and not word.startswith("unix:")]
        flags = ["-H", address] + ([flag] if flag.endswith("false") else [])
        done = subprocess.run(
            [*command, "--pidfile", f"{own_daemon.root}/t.pid", *flags],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert "would give everyone who reaches it root" in done.stderr


def test_the_socket_is_closed_to_others(own_daemon: Daemon) -> None:
    assert own_daemon.socket.stat().st_mode & 0o777 == 0o660
