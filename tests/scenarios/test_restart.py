"""Restart policies: who comes back, how often, and after the daemon's own end."""

import contextlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from .conftest import Daemon, make_daemon, wait_until


@pytest.fixture
def stopping_daemon(image_root: Path) -> Iterator[Daemon]:
    """A daemon that stops its containers at its end, as dockerd does without live-restore."""
    yield from make_daemon(image_root, ["--bridge", "none", "--live-restore=false"])


def count(client: docker.DockerClient, name: str) -> int:
    number: int = client.api.inspect_container(name)["RestartCount"]
    return number


def status(client: docker.DockerClient, name: str) -> str:
    text: str = client.api.inspect_container(name)["State"]["Status"]
    return text


def run(client: docker.DockerClient, name: str, command: str, policy: str, retries: int = 0) -> None:
    client.containers.run(
        "busybox", ["sh", "-c", command], detach=True, name=name,
        restart_policy={"Name": policy, "MaximumRetryCount": retries},
    )  # fmt: skip


def test_on_failure_gives_up_after_its_retries(client: docker.DockerClient) -> None:
    run(client, "failing", "exit 4", "on-failure", 2)
    wait_until(lambda: count(client, "failing") == 2 and status(client, "failing") == "exited")
    assert client.api.inspect_container("failing")["State"]["ExitCode"] == 4
    logged = client.events(
        since=0, until=client.info()["SystemTime"], decode=True, filters={"container": "failing", "event": "start"}
    )
    assert len(list(logged)) == 3


def test_on_failure_leaves_a_success_alone(client: docker.DockerClient) -> None:
    run(client, "well", "exit 0", "on-failure")
    client.containers.get("well").wait()
    assert (count(client, "well"), status(client, "well")) == (0, "exited")


def test_always_restarts_a_success_and_waits_longer_each_time(client: docker.DockerClient) -> None:
    run(client, "again", "date +%s.%N", "always")
    wait_until(lambda: count(client, "again") >= 5)
    client.containers.get("again").stop(timeout=0)
    starts = [
        event["timeNano"]
        for event in client.events(
            since=0, until=client.info()["SystemTime"], decode=True, filters={"container": "again", "event": "start"}
        )
    ]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses[0] >= 100_000_000
    assert pauses[3] >= 800_000_000


def test_a_stop_by_the_user_holds(client: docker.DockerClient) -> None:
    run(client, "stopped", "sleep 1000", "always")
    client.containers.get("stopped").stop(timeout=0)
    assert (status(client, "stopped"), count(client, "stopped")) == ("exited", 0)


def test_a_stop_while_it_waits_for_its_restart_holds(client: docker.DockerClient) -> None:
    run(client, "waiting", "exit 1", "always")
    wait_until(lambda: status(client, "waiting") == "restarting")
    client.containers.get("waiting").stop()
    assert status(client, "waiting") == "exited"


@pytest.mark.parametrize("word", ["remove", "stop", "kill"])
def test_a_restart_that_is_under_way_is_ended_like_any_run(client: docker.DockerClient, word: str) -> None:
    for number in range(6):
        run(client, f"busy{number}", "exit 1", "always")
        begun = count(client, f"busy{number}")
        for _ in range(1000):  # without a pause: a restart is counted when it begins, and takes some 20 ms
            if count(client, f"busy{number}") > begun:
                break
        container = client.containers.get(f"busy{number}")
        if word != "remove":
            with contextlib.suppress(docker.errors.APIError):  # it has ended by itself
                getattr(container, word)()
            wait_until(lambda: status(client, f"busy{number}") == "exited")  # noqa: B023
        container.remove(force=True)


def test_an_update_to_no_ends_the_restarts(client: docker.DockerClient) -> None:
    run(client, "ending", "sleep 0.2; exit 1", "always")
    wait_until(lambda: count(client, "ending") >= 1)
    client.containers.get("ending").update(restart_policy={"Name": "no"})
    wait_until(lambda: status(client, "ending") == "exited")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_daemon_keeps_what_lives_with_live_restore(own_daemon: Daemon, number: int) -> None:
    client = own_daemon.client()
    run(client, "living", "sleep 1000", "unless-stopped")
    pid = client.api.inspect_container("living")["State"]["Pid"]
    own_daemon.restart(number)
    client = own_daemon.client()
    assert client.api.inspect_container("living")["State"]["Pid"] == pid
    assert count(client, "living") == 0
    client.close()


def test_what_the_daemons_end_stopped_comes_back_by_its_policy(stopping_daemon: Daemon) -> None:
    client = stopping_daemon.client()
    for name, policy in (("a1", "always"), ("u1", "unless-stopped"), ("f1", "on-failure"), ("n1", "no")):
        run(client, name, "sleep 1000", policy)
    for name, policy in (("a2", "always"), ("u2", "unless-stopped"), ("f2", "on-failure")):
        run(client, name, "sleep 1000", policy)
        client.containers.get(name).stop(timeout=0)
    run(client, "f3", "exit 0", "on-failure")
    client.containers.get("f3").wait()
    stopping_daemon.restart()
    client = stopping_daemon.client()
    for name in ("a1", "u1", "f1", "a2"):
        wait_until(lambda name=name: status(client, name) == "running")  # type: ignore[misc]
    for name in ("n1", "u2", "f2", "f3"):
        assert status(client, name) == "exited", name
    client.close()
