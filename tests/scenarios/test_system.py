"""What the daemon says of itself, of the disk and of what happened; what it has not, and says so."""

from typing import Any

import docker
import pytest

from .conftest import Daemon

NO_SWARM = "This node is not a swarm manager."


def call(client: docker.DockerClient, method: str, path: str, **options: Any) -> Any:
    return client.api.request(method, client.api._url(path), timeout=20, **options)


# -- disk usage --


def test_df_counts_images_containers_and_volumes(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.run("busybox", ["sh", "-c", "echo 1234 > /big; echo 12 > /v/x"], name="fat", volumes=["v1:/v"])
    found = client.df()
    image = found["Images"][0]
    assert (image["RepoTags"], image["Containers"], image["SharedSize"]) == (["busybox:latest"], 1, 0)
    assert found["LayersSize"] == image["Size"] > 1000
    container = found["Containers"][0]
    assert (container["Names"], container["SizeRw"]) == (["/fat"], 5)
    assert container["SizeRootFs"] == image["Size"] + 5
    volume = found["Volumes"][0]
    assert (volume["Name"], volume["UsageData"]) == ("v1", {"Size": 3, "RefCount": 1})
    shown = daemon.cli("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").stdout.splitlines()
    assert shown == ["Images 1 1", "Containers 1 0", "Local Volumes 1 1", "Build Cache 0 0"]
    daemon.remove_all()
    client.volumes.prune({"all": True})


def test_df_looks_at_the_asked_types_only(client: docker.DockerClient) -> None:
    found = call(client, "GET", "/system/df", params={"type": ["volume", "container"]}).json()
    assert (found["Volumes"], found["Containers"]) == ([], [])
    assert (found["Images"], found["BuildCache"]) == (None, None)
    refused = call(client, "GET", "/system/df", params={"type": "moon"})
    assert (refused.status_code, refused.json()["message"]) == (400, "unknown object type: moon")


def test_a_system_prune_takes_what_is_not_used(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.run("busybox", "true", name="ended")
    client.containers.run("busybox", ["sleep", "100"], name="living", detach=True)
    done = daemon.cli("system", "prune", "-f", "--volumes")
    assert (done.returncode, "Deleted Containers" in done.stdout) == (0, True), done.stderr
    assert [container.name for container in client.containers.list(all=True)] == ["living"]
    assert client.images.list("busybox")
    assert daemon.cli("builder", "prune", "-f").returncode == 0 or "buildx" in daemon.cli("builder", "prune").stderr


# -- info and version --


def test_info_is_complete_and_warns_of_nothing_untrue(daemon: Daemon) -> None:
    done = daemon.cli("info")
    assert done.returncode == 0
    assert "WARNING" not in done.stderr
    lines = ("Storage Driver: overlay2", "Cgroup Driver: cgroupfs", "Swarm: inactive", "Live Restore Enabled: true")
    for line in lines:
        assert line in done.stdout
    assert "blkio" not in done.stdout


def test_version_has_its_components(client: docker.DockerClient) -> None:
    found = client.version()
    engine = next(part for part in found["Components"] if part["Name"] == "Engine")
    assert engine["Version"] == found["Version"]
    assert engine["Details"]["ApiVersion"] == found["ApiVersion"] == "1.44"


# -- events --


def past(client: docker.DockerClient, **filters: Any) -> list[str]:
    until = client.info()["SystemTime"]
    return [event["Action"] for event in client.events(since=0, until=until, decode=True, filters=filters or None)]


def test_since_0_is_from_the_beginning(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "true", detach=True, name="only-once", labels={"colour": "green"})
    container.wait()
    container.remove()
    whole = ["create", "start", "die", "destroy"]
    assert past(client, container=container.id) == whole
    assert past(client, container=container.id[:12]) == whole
    assert past(client, container="only-once", event=["start", "die"]) == ["start", "die"]
    assert past(client, container="only-once", image="busybox", type="container", label="colour=green") == whole
    assert past(client, container="only-once", label="colour=red") == []
    assert past(client, container="only-once", type="volume") == []
    assert past(client, container="only-once", scope="swarm") == []


def test_until_alone_gives_what_was_before_it(client: docker.DockerClient) -> None:
    client.containers.run("busybox", "true", name="before", remove=True)
    until = client.info()["SystemTime"]
    client.containers.run("busybox", "true", name="behind", remove=True)
    names = {
        event["Actor"]["Attributes"].get("name")
        for event in client.events(until=until, decode=True, filters={"event": "destroy", "type": "container"})
    }
    assert "before" in names
    assert "behind" not in names


def test_bounds_that_contradict_are_refused(client: docker.DockerClient) -> None:
    answer = call(client, "GET", "/events", params={"since": "10", "until": "5"})
    assert answer.status_code == 400
    assert answer.json()["message"] == "`since` time (10) cannot be after `until` time (5)"


# -- what is not there --


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/swarm"), ("GET", "/swarm/unlockkey"), ("POST", "/swarm/update"), ("GET", "/nodes"),
        ("GET", "/nodes/x"), ("GET", "/services"), ("POST", "/services/create"), ("GET", "/services/x"),
        ("DELETE", "/services/x"), ("GET", "/services/x/logs"), ("GET", "/tasks"), ("GET", "/tasks/x"),
        ("GET", "/secrets"), ("POST", "/secrets/create"), ("DELETE", "/secrets/x"), ("GET", "/configs"),
        ("POST", "/configs/create"), ("POST", "/configs/x/update"),
    ],
)  # fmt: skip
def test_cluster_calls_answer_as_a_daemon_outside_of_a_swarm(
    client: docker.DockerClient, method: str, path: str
) -> None:
    answer = call(client, method, path)
    assert (answer.status_code, answer.json()["message"][: len(NO_SWARM)]) == (503, NO_SWARM)


def test_leaving_no_swarm(daemon: Daemon, client: docker.DockerClient) -> None:
    answer = call(client, "POST", "/swarm/leave", params={"force": "1"})
    assert (answer.status_code, answer.json()["message"]) == (503, "This node is not part of a swarm")
    assert "clusters are not supported" in daemon.cli("swarm", "init").stderr


def test_no_plugin_is_there_and_none_can_be_installed(daemon: Daemon, client: docker.DockerClient) -> None:
    assert client.plugins.list() == []
    assert daemon.cli("plugin", "ls", "-q").stdout == ""
    assert call(client, "GET", "/plugins/a/b:c/json").json()["message"] == 'plugin "a/b:c" not found'
    told = call(client, "POST", "/plugins/pull", params={"remote": "x"})
    assert (told.status_code, "plugins from a registry are not supported" in told.text) == (501, True)


@pytest.mark.parametrize("path", ["/session", "/grpc"])
def test_buildkit_is_refused_at_once(client: docker.DockerClient, path: str) -> None:
    answer = call(client, "POST", path, headers={"Connection": "Upgrade", "Upgrade": "h2c"})
    assert (answer.status_code, "BuildKit is not supported" in answer.text) == (404, True)


def test_checkpoints_are_refused_with_the_reason(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/one")):
        answer = call(client, method, f"/containers/{container.id}/checkpoints{path}")
        assert (answer.status_code, "CRIU" in answer.text) == (501, True)
    assert call(client, "GET", "/containers/nobody/checkpoints").status_code == 404


def test_inspect_of_nothing_asks_everybody_and_says_so(daemon: Daemon) -> None:
    done = daemon.cli("inspect", "nothing")
    assert (done.stdout.strip(), "no such object: nothing" in done.stderr.lower()) == ("[]", True)


# -- what the kernel cannot limit --


def test_what_was_dropped_from_a_create_is_a_warning(daemon: Daemon, client: docker.DockerClient) -> None:
    body = {"Image": "busybox", "HostConfig": {"OomKillDisable": True}}
    made = client.api._post_json(client.api._url("/containers/create"), data=body).json()
    version_2 = client.info()["CgroupVersion"] == "2"
    words = "OomKillDisable discarded" if version_2 else "OOM killer is disabled for the container"
    assert len(made["Warnings"]) == 1 and words in made["Warnings"][0]
    assert client.api.inspect_container(made["Id"])["HostConfig"]["OomKillDisable"] is (not version_2)
    done = daemon.cli("run", "--rm", "--cpuset-cpus", "4000", "busybox", "true")
    assert "Requested CPUs are not available - requested 4000" in done.stderr


def test_top_takes_the_arguments_of_ps(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "100"], detach=True, name="topped")
    pid = str(client.api.inspect_container(container.id)["State"]["Pid"])
    assert container.top(ps_args="-o pid,comm") == {"Titles": ["PID", "COMMAND"], "Processes": [[pid, "sleep"]]}
    assert past(client, container=container.id) == ["create", "start", "top"]
    assert "Couldn't find PID field in ps output" in daemon.cli("top", "topped", "-o", "comm").stderr


def test_df_of_older_clients_names_the_builders_size(daemon: Daemon) -> None:
    old = daemon.client("1.41")
    assert old.df()["BuilderSize"] == 0
    old.close()
