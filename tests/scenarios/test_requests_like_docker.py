"""Requests at the edge of the API: what dockerd takes, passes over or refuses, seen by plain HTTP."""

import io
import json
import tarfile
import time
from typing import Any

import docker
import pytest


def call(client: docker.DockerClient, method: str, path: str, version: str = "", **options: Any) -> Any:
    url = f"{client.api.base_url}/{version or f'v{client.api.api_version}'}{path}"
    return client.api.request(method, url, timeout=20, **options)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("OPTIONS", "/", 200), ("OPTIONS", "/containers/json", 200), ("OPTIONS", "/no/such/thing", 200),
        ("HEAD", "/_ping", 200), ("HEAD", "/info", 404), ("HEAD", "/version", 404), ("HEAD", "/containers/json", 404),
        ("HEAD", "/images/json", 404), ("HEAD", "/networks", 404), ("GET", "/networks/", 200),
        ("DELETE", "/containers/", 400), ("GET", "/networks?filters=null", 200), ("GET", "/volumes?filters=null", 200),
        ("GET", "/containers/json?limit=-2", 200),
        ("GET", "/events?since=1&until=2&filters={\"colour\":[\"red\"]}", 200),
        ("GET", "/containers/json?filters={\"is-task\":[\"x\"]}", 400),
        ("GET", "/containers/json?filters={\"publish\":[\"x\"]}", 400),
        ("GET", "/containers/json?filters={\"expose\":[\"9-8\"]}", 400),
        ("GET", "/networks?filters={\"dangling\":[\"true\",\"false\"]}", 400),
        ("GET", "/networks/none?verbose=maybe", 400), ("GET", "/networks/none?verbose=true", 200),
        ("GET", "/images/search?term=x&limit=101", 400), ("GET", "/images/search?term=x&limit=many", 400),
        ("GET", "/images/search?term=x&filters={\"colour\":[\"red\"]}", 400),
        ("GET", "/images/search?term=x&filters={\"stars\":[\"many\"]}", 400),
        ("GET", "/images/search?term=x&filters={\"is-official\":[\"maybe\"]}", 400),
        ("POST", "/build/prune?keep-storage=much", 400), ("POST", "/build/prune?keep-storage=-1", 200),
        ("POST", "/build/prune?filters={\"colour\":[\"red\"]}", 400),
        ("POST", "/build/prune?filters={\"until\":[\"1h\"]}", 200),
        ("POST", "/commit", 400), ("POST", "/containers/nobody/rename", 400),
        ("POST", "/containers/nobody/rename?name=x", 404),
        ("GET", "/containers/nobody/logs", 400), ("GET", "/containers/nobody/logs?stdout=1", 404),
    ],
)  # fmt: skip
def test_the_status_is_dockers(client: docker.DockerClient, method: str, path: str, status: int) -> None:
    assert call(client, method, path).status_code == status


def test_names_of_fields_in_any_case_and_fields_of_nobody(client: docker.DockerClient) -> None:
    body = {"image": "busybox", "cmd": ["true"], "nobody": {"knows": 1}, "hostConfig": {"memory": 8 << 20, "New": [1]}}
    made = call(client, "POST", "/containers/create", json=body)
    assert made.status_code == 201, made.text
    assert client.containers.get(made.json()["Id"]).attrs["HostConfig"]["Memory"] == 8 << 20
    volume = call(client, "POST", "/volumes/create", json={"name": "lower", "labels": {"a": "b"}}).json()
    assert (volume["Name"], volume["Labels"]) == ("lower", {"a": "b"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"HostConfig": {"CapAdd": "NET_ADMIN", "CapDrop": "MKNOD"}}, 201),
        ({"Healthcheck": {"Test": ["true"]}}, 201),
        ({"HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 2}}}, 201),
        ({"HostConfig": {"NetworkMode": "container"}}, 400),
        ({"HostConfig": {"PortBindings": {"80-81/tcp": [{"HostPort": "1"}]}}}, 400),
    ],
)
def test_what_a_create_takes_and_refuses(client: docker.DockerClient, body: dict[str, Any], status: int) -> None:
    made = call(client, "POST", "/containers/create", json={"Image": "busybox", "Cmd": ["true"], **body})
    assert made.status_code == status, made.text


@pytest.mark.parametrize(("platform", "status"), [("linux", 201), ("linux/s390x", 404), ("moon", 400)])
def test_the_platform_of_a_create(client: docker.DockerClient, platform: str, status: int) -> None:
    made = call(client, "POST", f"/containers/create?platform={platform}", json={"Image": "busybox"})
    assert made.status_code == status, made.text


def test_a_bad_host_port_is_quoted(client: docker.DockerClient) -> None:
    host = {"PortBindings": {"8080/tcp": [{"HostPort": "aa80"}]}}
    refused = call(client, "POST", "/containers/create", json={"Image": "busybox", "HostConfig": host})
    assert (refused.status_code, refused.json()["message"]) == (400, 'invalid port specification: "aa80"')


def test_an_attach_to_nothing_ends_and_a_failed_one_is_told_in_plain_text(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    nothing = call(client, "POST", f"/containers/{container.id}/attach?stdout=1")
    assert (nothing.status_code, nothing.content) == (200, b"")
    assert nothing.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    missing = call(client, "POST", "/containers/nobody/attach?stream=1")
    assert (missing.status_code, missing.content) == (404, b"No such container: nobody\r\n")


def test_an_exec_that_never_started_is_gone_with_its_containers_run(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    waiting = client.api.exec_create(container.id, "true")["Id"]
    container.restart(timeout=0)
    assert call(client, "POST", f"/exec/{waiting}/start", json={"Detach": True}).status_code == 404


def test_an_exec_start_reads_its_body_before_it_looks_for_the_exec(client: docker.DockerClient) -> None:
    headers = {"Content-Type": "text/plain"}
    assert call(client, "POST", "/exec/nobody/start", data="{}", headers=headers).status_code == 400
    assert call(client, "POST", "/exec/nobody/resize?h=a&w=b").status_code == 400
    assert call(client, "POST", "/exec/nobody/start", json={}).status_code == 404


def test_a_stop_before_142_sends_the_containers_own_signal(client: docker.DockerClient) -> None:
    script = "trap 'exit 3' TERM; trap 'exit 4' INT; echo ready; while true; do sleep 0.02; done"
    for version, code in (("v1.41", 3), ("v1.44", 4)):
        container = client.containers.run("busybox", ["sh", "-c", script], detach=True)
        next(iter(container.logs(stream=True)))
        stopped = call(client, "POST", f"/containers/{container.id}/stop?signal=INT", version)
        assert stopped.status_code == 204
        assert container.wait()["StatusCode"] == code


def test_a_container_that_ended_still_shows_the_id_of_its_network(client: docker.DockerClient) -> None:
    network = client.networks.get("none")
    container = client.containers.create("busybox", "true", network="none")
    assert container.attrs["NetworkSettings"]["Networks"]["none"]["NetworkID"] == ""
    container.start()
    container.wait()
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"]["none"]["NetworkID"] == network.id


def test_images_are_before_and_since_others_to_the_nanosecond(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    made = [container.commit("moments", f"v{number}") for number in range(4)]
    images = {image.id for image in client.images.list(filters={"since": made[0].id, "before": made[3].id})}
    assert images == {made[1].id, made[2].id}
    until = {"since": made[0].id, "until": [made[2].attrs["Created"], made[3].attrs["Created"]]}
    assert [image.id for image in client.images.list(filters=until)] == [made[1].id]
    container.remove()
    for image in made:
        client.images.remove(image.id, force=True)


def test_info_of_the_oldest_version(client: docker.DockerClient) -> None:
    old = call(client, "GET", "/info", "v1.24").json()
    assert (old["ExecutionDriver"], "seccomp" in old["SecurityOptions"]) == ("<not supported>", True)
    assert "ExecutionDriver" not in call(client, "GET", "/info", "v1.25").json()


def test_a_failed_copy_calls_the_container_as_its_user_did(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true", name="called")
    for name in ("called", container.id[:12]):
        missing = call(client, "GET", f"/containers/{name}/archive?path=/dne")
        assert missing.json()["message"] == f"Could not find the file /dne in container {name}"


def test_what_an_image_exposes_may_join_a_network_but_not_what_is_asked_for(client: docker.DockerClient) -> None:
    base = client.containers.create("busybox", "true", name="joined")
    image = base.commit("exposes", changes=["EXPOSE 80"])
    body = {"Image": "exposes", "Cmd": ["true"]}
    wishes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"PublishAllPorts": True}),
        ({"ExposedPorts": {"90/tcp": {}}}, {}),
        ({"Hostname": "x"}, {}),
        ({"MacAddress": "02:00:00:00:00:01"}, {}),
        ({}, {"Dns": ["192.0.2.1"]}),
        ({}, {"ExtraHosts": ["a:192.0.2.1"]}),
    ]
    for config, host in wishes:
        host["NetworkMode"] = "container:joined"
        answer = call(client, "POST", "/containers/create", json={**body, **config, "HostConfig": host})
        assert answer.status_code == 400 and "conflicting options" in answer.json()["message"]
    container = client.containers.create("exposes", "true", network_mode="container:joined")
    container.remove()
    base.remove()
    client.images.remove(image.id, force=True)


def test_an_update_takes_cpus_where_the_quota_is_none(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    for body in ({"CpuQuota": -1}, {"NanoCpus": 500_000_000}, {"PidsLimit": 20}, {"PidsLimit": -1}):
        assert call(client, "POST", f"/containers/{container.id}/update", json=body).status_code == 200
    container.reload()
    assert (container.attrs["HostConfig"]["NanoCpus"], container.attrs["HostConfig"]["PidsLimit"]) == (500_000_000, 0)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/images/create?fromImage=127.0.0.1:1/nothing&tag=x", None),
        ("POST", "/images/create?fromSrc=http://127.0.0.1:1/x.tar", None),
        ("GET", "/distribution/127.0.0.1:1/nothing/json", None),
        ("POST", "/auth", {"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"}),
    ],
)
def test_nobody_at_an_address_is_the_daemons_failure(
    client: docker.DockerClient, method: str, path: str, body: dict[str, str] | None
) -> None:
    answer = call(client, method, path, json=body)
    assert answer.status_code == 500 and "127.0.0.1:1" in answer.json()["message"]


def test_a_saved_configuration_has_the_time_of_its_image(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    image = container.commit("timed")
    with tarfile.open(fileobj=io.BytesIO(b"".join(image.save()))) as saved:
        document = saved.extractfile("manifest.json")
        assert document is not None
        when = saved.getmember(json.loads(document.read())[0]["Config"]).mtime
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) == image.attrs["Created"][:19]
    container.remove()
    client.images.remove("timed")
