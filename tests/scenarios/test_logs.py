"""Logs through the socket: tail, follow, times, rotation, and what a daemon's death does to them."""

import threading
import time

import docker

from .conftest import Daemon, wait_until

COUNT = "i=0; while [ $i -lt {} ]; do echo line $i; i=$((i+1)); done"


def test_tail_and_streams(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", COUNT.format(50) + "; echo bad >&2"], detach=True)
    container.wait()
    assert container.logs(tail=2, stderr=False) == b"line 48\nline 49\n"
    assert container.logs(stdout=False) == b"bad\n"
    assert container.logs(tail=0) == b""
    assert len(container.logs().splitlines()) == 51


def test_the_first_words_are_there_when_a_start_has_been_answered(client: docker.DockerClient) -> None:
    """With Docker they are, because its start takes longer; clients do not wait."""
    for number in range(8):
        container = client.containers.create("busybox", ["echo", f"word {number}"], network_mode="none")
        container.start()
        assert container.logs() == f"word {number}\n".encode()
        container.remove(force=True)


def test_timestamps_since_and_until(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo one; sleep 1.2; echo two"], detach=True)
    container.wait()
    first, second = container.logs(timestamps=True).decode().splitlines()
    assert first.endswith("Z one") and second.endswith("Z two")
    bound = time.time() - 0.6
    assert container.logs(since=bound) == b"two\n"
    assert container.logs(until=bound) == b"one\n"


def test_following_ends_with_the_container_and_has_every_line(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "sleep 0.3; " + COUNT.format(2000)], detach=True)
    lines = b"".join(container.logs(stream=True, follow=True)).decode().splitlines()
    assert lines == [f"line {n}" for n in range(2000)]


def test_a_rotation_loses_no_line_of_a_follower(client: docker.DockerClient) -> None:
    log = docker.types.LogConfig(type="json-file", config={"max-size": "20k", "max-file": "50"})
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    container = client.containers.run("busybox", ["sh", "-c", "sleep 0.3; " + script], detach=True, log_config=log)
    lines = b"".join(container.logs(stream=True, follow=True)).decode().splitlines()
    assert lines == [f"line {n}" for n in range(3000)]
    assert container.logs().decode().splitlines() == lines
    assert container.logs(tail=500).decode().splitlines() == lines[-500:]


def test_a_follower_loses_no_line_though_files_go_faster_than_it_looks(client: docker.DockerClient) -> None:
    """10 KiB in two files is a hundred lines: they are gone a millisecond later."""
    log = docker.types.LogConfig(type="json-file", config={"max-size": "10k", "max-file": "2"})
    script = "read go; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True, stdin_open=True, log_config=log)
    following = container.logs(stream=True, follow=True)
    container.attach_socket(params={"stdin": 1, "stream": 1})._sock.sendall(b"go\n")
    assert b"".join(following).decode().splitlines() == [f"line {n}" for n in range(20000)]


def test_the_log_driver_none_keeps_nothing(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", "echo x", detach=True, log_config=docker.types.LogConfig(type="none", config={})
    )
    container.wait()
    assert "does not support reading" in daemon.cli("logs", container.id).stderr
    assert not list((daemon.data_root / "containers" / container.id).glob("*.log"))


def test_logs_are_whole_after_the_daemon_was_killed(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True, name="counter")
    wait_until(lambda: len(container.logs()) > 50)
    own_daemon.restart(9)
    container = own_daemon.client().containers.get("counter")
    follower = container.logs(stream=True, follow=True)
    seen = b""
    while seen.count(b"\n") < 100:
        seen += next(follower)
    numbers = [int(line) for line in seen.decode().splitlines()]
    assert numbers == list(range(len(numbers)))
    stopper = threading.Thread(target=lambda: container.kill())
    stopper.start()
    for _ in follower:
        pass
    stopper.join()
