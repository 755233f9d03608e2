"""What a container shares with others and with its clients: IPC, init, bridge, attach."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Daemon, make_daemon, wait_until


def test_shared_memory_is_joined_by_ipc_mode(daemon: Daemon) -> None:
    script = "echo shared > /dev/shm/x; sleep 100"
    daemon.cli("run", "-d", "--name", "owner", "--ipc", "shareable", "busybox", "sh", "-c", script)
    wait_until(lambda: daemon.cli("exec", "owner", "cat", "/dev/shm/x").stdout == "shared\n")
    script = "cat /dev/shm/x; echo back > /dev/shm/y"
    joined = daemon.cli("run", "--rm", "--ipc", "container:owner", "busybox", "sh", "-c", script)
    assert (joined.stdout, joined.stderr) == ("shared\n", "")
    assert daemon.cli("exec", "owner", "cat", "/dev/shm/y").stdout == "back\n"


def test_private_shared_memory_is_not_joined(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "owner", "busybox", "sleep", "100")
    refused = daemon.cli("run", "--rm", "--ipc", "container:owner", "busybox", "true")
    assert refused.returncode == 125
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in refused.stderr


def test_init_is_pid_1_and_reaps(daemon: Daemon) -> None:
    if not Path("/usr/bin/tini-static").exists():
        pytest.skip("needs tini-static (Debian's tini)")
    done = daemon.cli("run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/comm; echo $$")
    name, pid = done.stdout.split()
    assert "init" in name or "tini" in name
    assert pid != "1"


def test_privileged_has_devices_and_all_capabilities(daemon: Daemon) -> None:
    plain = daemon.cli("run", "--rm", "busybox", "sh", "-c", "grep CapBnd /proc/self/status; ls /dev | wc -l").stdout
    more = daemon.cli(
        "run", "--rm", "--privileged", "busybox", "sh", "-c", "grep CapBnd /proc/self/status; ls /dev | wc -l"
    )
    assert plain.split()[1] == "00000000a80425fb"
    assert int(more.stdout.split()[1], 16) > 0xA80425FB
    assert int(more.stdout.split()[2]) > int(plain.split()[2])


def test_docker_start_attached_gets_all_output(daemon: Daemon) -> None:
    daemon.cli("create", "--name", "again", "-i", "busybox", "sh", "-c", "echo started; cat; exit 4")
    for text in (b"first\n", b"second\n"):
        done = daemon.cli("start", "-ai", "again", stdin=text)
        assert (done.stdout, done.returncode) == (f"started\n{text.decode()}", 4)


def test_attach_with_logs_gives_the_past_and_the_present(daemon: Daemon) -> None:
    client = daemon.client()
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo past; read x; echo $x"], detach=True, stdin_open=True
    )
    wait_until(lambda: container.logs() == b"past\n")
    sock = container.attach_socket(params={"logs": 1, "stream": 1, "stdin": 1, "stdout": 1})
    sock._sock.sendall(b"present\n")
    seen = b""
    while more := sock._sock.recv(4096):
        seen += more
    assert b"past\n" in seen and b"present\n" in seen


def test_a_failed_start_keeps_the_reason_in_the_state(daemon: Daemon) -> None:
    client = daemon.client()
    container = client.containers.create("busybox", "nonexist")
    with pytest.raises(Exception, match="executable file not found"):
        container.start()
    container.reload()
    state = container.attrs["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "executable file not found" in state["Error"]


@pytest.fixture
def bridged(image_root: Path) -> Iterator[Daemon]:
    yield from make_daemon(image_root, [])


def test_a_published_port_is_reached_before_and_after_a_crash(bridged: Daemon) -> None:
    client = bridged.client()
    container = client.containers.run(
        "busybox", ["sh", "-c", "while :; do echo served | nc -l -p 80; done"], detach=True, ports={"80/tcp": None}
    )

    def answer() -> bytes:
        container.reload()
        port = int(container.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                return connection.recv(100)
        except OSError:
            return b""

    wait_until(lambda: answer() == b"served\n")
    bridged.restart(9)
    container = bridged.client().containers.get(container.id)
    wait_until(lambda: answer() == b"served\n")
    name = container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert name in bridged.cli("exec", container.id, "cat", "/etc/hosts").stdout
    container.remove(force=True)
    bridged.end()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    from minidocker.network.host import names

    assert names(bridged.exec_root).bridge not in links
