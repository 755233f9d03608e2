"""Health checks: probes in the container, what they lead to, who tells of it."""

import json
import signal
import threading
from typing import Any

import docker
import pytest

from .conftest import Daemon, wait_until

FAST = {"interval": 50_000_000, "timeout": 5_000_000_000, "retries": 2}


def check(command: str, **more: Any) -> dict[str, Any]:
    return {"test": ["CMD-SHELL", command], **FAST, **more}


def health(client: docker.DockerClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.api.inspect_container(name)["State"]["Health"]
    return found


def run(client: docker.DockerClient, name: str, healthcheck: dict[str, Any]) -> docker.models.containers.Container:
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, name=name, healthcheck=healthcheck)


def test_it_starts_turns_healthy_and_unhealthy_and_healthy_again(daemon: Daemon, client: docker.DockerClient) -> None:
    container = run(client, "turning", check("test -e /tmp/well && echo fine"))
    assert health(client, "turning")["Status"] == "starting"
    container.exec_run(["touch", "/tmp/well"])
    wait_until(lambda: health(client, "turning")["Status"] == "healthy")
    assert "(healthy)" in daemon.cli("ps", "--format", "{{.Status}}").stdout
    assert [c.name for c in client.containers.list(filters={"health": "healthy"})] == ["turning"]
    last = health(client, "turning")["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "fine\n")
    container.exec_run(["rm", "/tmp/well"])
    wait_until(lambda: health(client, "turning")["Status"] == "unhealthy")
    assert health(client, "turning")["FailingStreak"] >= 2
    assert client.containers.list(filters={"health": "healthy"}) == []
    container.exec_run(["touch", "/tmp/well"])
    wait_until(lambda: health(client, "turning")["Status"] == "healthy")
    assert health(client, "turning")["FailingStreak"] == 0


def test_only_the_last_five_results_are_kept(client: docker.DockerClient) -> None:
    run(client, "log", check("n=$(cat /tmp/n 2>/dev/null || echo 0); echo $((n+1)) > /tmp/n; echo $n"))
    wait_until(lambda: any(int(entry["Output"]) > 6 for entry in health(client, "log")["Log"]))
    numbers = [int(entry["Output"]) for entry in health(client, "log")["Log"]]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_a_probe_that_takes_too_long_is_killed_and_fails(client: docker.DockerClient) -> None:
    container = run(client, "slow", check("exec sleep 777", timeout=100_000_000, retries=1))
    wait_until(lambda: health(client, "slow")["FailingStreak"] >= 4)
    assert health(client, "slow")["Status"] == "unhealthy"
    container.pause()  # no new probe
    first = health(client, "slow")["Log"][0]
    assert (first["ExitCode"], first["Output"]) == (-1, "Health check exceeded timeout (100ms)")
    probes = [row for row in container.top(ps_args="-o pid,args")["Processes"] if "777" in row[-1]]
    assert len(probes) <= 1
    container.unpause()


def test_failures_of_the_start_period_do_not_count(client: docker.DockerClient) -> None:
    slow = check("false", start_period=3600_000_000_000)
    slow["start_interval"] = 50_000_000
    container = client.api.create_container(
        "busybox", ["sleep", "1000"], name="young", healthcheck=_without_start_interval(slow)
    )
    client.api.start(container)
    wait_until(lambda: len(health(client, "young")["Log"]) > 0, seconds=20)
    assert health(client, "young")["Status"] == "starting"
    assert health(client, "young")["FailingStreak"] == 0


def _without_start_interval(wanted: dict[str, Any]) -> dict[str, Any]:
    """docker-py knows no StartInterval; Docker's default, five seconds, holds."""
    return {key: value for key, value in wanted.items() if key != "start_interval"}


def test_start_interval_is_used_within_the_start_period(client: docker.DockerClient) -> None:
    body = {
        "Image": "busybox", "Cmd": ["sleep", "1000"],
        "Healthcheck": {
            "Test": ["CMD", "false"], "Interval": 3600_000_000_000, "StartPeriod": 3600_000_000_000,
            "StartInterval": 20_000_000,
        },
    }  # fmt: skip
    made = client.api._post_json(client.api._url("/containers/create"), data=body).json()
    client.api.start(made["Id"])
    wait_until(lambda: len(health(client, made["Id"])["Log"]) >= 2)


def test_a_change_is_an_event(daemon: Daemon, client: docker.DockerClient) -> None:
    seen: list[str] = []
    stream = client.events(decode=True, filters={"event": "health_status"})

    def listen() -> None:
        seen.extend(event["Action"] for event in stream)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    run(client, "telling", check("exit 1"))
    wait_until(lambda: seen)
    assert seen == ["health_status: unhealthy"]
    stream.close()


def test_a_stopped_container_keeps_its_last_results_and_a_start_begins_anew(client: docker.DockerClient) -> None:
    container = run(client, "kept", check("exit 3"))
    wait_until(lambda: health(client, "kept")["Status"] == "unhealthy")
    container.stop(timeout=0)
    kept = health(client, "kept")
    assert (kept["Status"], kept["Log"][-1]["ExitCode"]) == ("unhealthy", 3)
    assert client.containers.get("kept").attrs["State"]["Status"] == "exited"
    container.start()
    assert health(client, "kept")["Status"] in ("starting", "unhealthy")


def test_probing_goes_on_with_the_next_daemon(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = run(client, "lasting", check("test -e /tmp/well"))
    wait_until(lambda: health(client, "lasting")["Status"] == "unhealthy")
    own_daemon.restart(signal.SIGKILL)
    client = own_daemon.client()
    assert health(client, "lasting")["Status"] == "unhealthy"
    client.containers.get(container.id).exec_run(["touch", "/tmp/well"])
    wait_until(lambda: health(client, "lasting")["Status"] == "healthy")
    client.close()


def test_none_switches_an_images_check_off(daemon: Daemon, client: docker.DockerClient) -> None:
    base = client.containers.create("busybox", ["sleep", "1000"])
    base.commit("checked", changes="HEALTHCHECK --interval=1h CMD echo from the image")
    base.remove()
    try:
        with_check = client.containers.create("checked")
        config = client.api.inspect_container(with_check.id)["Config"]["Healthcheck"]
        assert config["Test"] == ["CMD-SHELL", "echo from the image"]
        assert daemon.cli("run", "-d", "--no-healthcheck", "--name", "without", "checked").returncode == 0
        assert "Health" not in client.api.inspect_container("without")["State"]
    finally:
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.images.remove("checked", force=True)


@pytest.mark.parametrize(
    ("healthcheck", "words"),
    [
        ({"Test": ["CMD", "true"], "Interval": 5}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "Timeout": -5}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "true"], "StartPeriod": 5}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_bad_checks_are_refused(client: docker.DockerClient, healthcheck: dict[str, Any], words: str) -> None:
    body = {"Image": "busybox", "Healthcheck": healthcheck}
    response = client.api._post_json(client.api._url("/containers/create"), data=body)
    assert (response.status_code, words in json.loads(response.text)["message"]) == (400, True), response.text
