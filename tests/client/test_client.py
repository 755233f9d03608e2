"""The object client, on Docker's daemon and on ours."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import minidocker
from minidocker import errors
from minidocker.client.client import Client
from minidocker.client.container_body import create_body
from minidocker.client.containers import ContainerError


@pytest.fixture(params=["dockerd", "minidockerd"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with minidocker.connect(request.getfixturevalue(request.param)) as made:
        yield made
        for container in made.containers.list(all=True):
            container.remove(force=True, volumes=True)


@pytest.fixture
def on_docker(dockerd: str) -> Iterator[Client]:
    """For what our own daemon does not serve yet."""
    with minidocker.connect(dockerd) as made:
        yield made
        for container in made.containers.list(all=True):
            container.remove(force=True, volumes=True)


def test_it_answers(client: Client) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"]
    assert client.info()["Images"] == 1


def test_run_gives_the_output_of_the_command(client: Client) -> None:
    assert client.containers.run("box:1", ["echo", "hi"], remove=True) == b"hi\n"
    assert client.containers.run("box:1", "sh -c 'echo o; echo e >&2'", remove=True) == b"o\n"
    both = client.containers.run("box:1", "sh -c 'echo o; echo e >&2'", remove=True, stderr=True)
    assert sorted(both.split()) == [b"e", b"o"]
    assert client.containers.list(all=True) == []


def test_run_passes_any_amount_of_stdin(client: Client) -> None:
    sent = os.urandom(2_000_000)
    assert client.containers.run("box:1", ["cat"], remove=True, stdin=sent) == sent


def test_a_command_that_fails_is_an_error_with_its_words(client: Client) -> None:
    with pytest.raises(ContainerError, match="ended with status 3: oh") as caught:
        client.containers.run("box:1", "sh -c 'echo oh >&2; exit 3'", remove=True)
    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"oh\n"


def test_a_command_that_cannot_start_leaves_nothing(client: Client) -> None:
    with pytest.raises(errors.MinidockerError, match="nosuch"):
        client.containers.run("box:1", ["nosuch"], remove=True)
    with pytest.raises(errors.MinidockerError, match="nosuch"):
        client.containers.run("box:1", ["nosuch"], remove=True, detach=True)
    assert client.containers.list(all=True) == []


def test_options_reach_the_container(client: Client) -> None:
    output = client.containers.run("box:1", "sh -c 'echo $A; pwd; id -u; hostname; ls /v'", remove=True, user="5",
                                   environment={"A": "b"}, working_dir="/tmp", hostname="h",
                                   volumes={"/etc": "/v:ro"}, memory_bytes=64 << 20, cap_drop=["ALL"])
    assert output.splitlines()[:4] == [b"b", b"/tmp", b"5", b"h"]
    assert b"passwd" in output


def test_an_option_that_does_not_exist_is_refused() -> None:
    options: Any = {"memroy_bytes": 5}
    with pytest.raises(errors.InvalidArgument, match="memroy_bytes"):
        create_body("box:1", None, options)


def test_ports_become_bindings() -> None:
    body: Any = create_body("box:1", None, {"ports": {"80": 8080, "53/udp": ("127.0.0.1", 53), "443/tcp": None}})
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}], "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
        "443/tcp": [{"HostIp": "", "HostPort": ""}]}
    assert set(body["ExposedPorts"]) == {"80/tcp", "53/udp", "443/tcp"}


def test_a_containers_life(client: Client) -> None:
    container = client.containers.create("box:1", "sh -c 'echo begun; exec sleep 1000'", name="life", labels={"a": "b"})
    assert container.short_id == container.id[:12]
    container.start()
    container.start()       # nothing to do is no failure
    container.reload()
    assert (container.name, container.status, container.tty) == ("life", "running", False)
    assert [found.name for found in client.containers.list(filters={"label": ["a=b"]})] == ["life"]
    assert next(container.follow_logs()) == b"begun\n"
    assert container.exec_run("sh -c 'cat; exit 4'", stdin=b"in") == (4, b"in")
    assert container.exec_run("true", detach=True) == (None, b"")
    container.pause()
    with pytest.raises(errors.Conflict):
        container.exec_run("true")
    container.unpause()
    container.rename("other")
    assert container.top()["Titles"]
    container.kill()
    assert container.wait() == 137
    assert container.logs() == b"begun\n"
    container.remove()
    with pytest.raises(errors.NotFound, match="No such container"):
        client.containers.get("other")


def test_files_go_in_and_out_as_archives(client: Client) -> None:
    container = client.containers.run("box:1", "sleep 1000", detach=True)
    container.put_archive("/tmp", b"".join(container.get_archive("/etc/passwd")))
    assert b"root" in container.exec_run("cat /tmp/passwd").output
    assert {"Path": "/tmp/passwd", "Kind": 1} in container.diff()


def test_images_are_made_of_containers_and_of_archives(client: Client) -> None:
    container = client.containers.run("box:1", "sh -c 'echo x > /tmp/x; sleep 1000'", detach=True)
    wait = container.exec_run("sh -c 'until [ -s /tmp/x ]; do :; done'")
    assert wait.exit_code == 0
    image = container.commit("made", "1", message="why", changes=['CMD ["cat", "/tmp/x"]'])
    assert image.tags == ["made:1"]
    assert client.containers.run("made:1", network="none") == b"x\n"
    other = client.images.import_archive(container.export(), "made", "2", changes=['CMD ["cat", "/tmp/x"]'])
    assert other.tags == ["made:2"]
    assert client.containers.run("made:2", network="none") == b"x\n"
    for one in client.containers.list(all=True):
        one.remove(force=True)
    for name in ("made:1", "made:2"):
        client.images.remove(name)


def test_disk_use_is_told(on_docker: Client) -> None:
    assert "LayersSize" in on_docker.df()


def test_attach_is_live_in_both_directions(client: Client) -> None:
    container = client.containers.create("box:1", "cat", stdin_open=True)
    with container.attach(stdin=True) as streams:
        container.start()
        streams.send(b"one")
        assert next(iter(streams)) == b"one"
        streams.send(b"two")
        assert next(iter(streams)) == b"two"


def test_events_tell_what_happened(client: Client) -> None:
    container = client.containers.create("box:1", "true", name="seen")
    now = int(time.time())
    events = client.events(since=now - 60, until=now + 1, filters={"container": [container.id]})
    assert [event["Action"] for event in events] == ["create"]


def test_images_are_found_tagged_and_saved(client: Client) -> None:
    image = client.images.get("box:1")
    image.tag("named", "2")
    assert set(client.images.get("named:2").tags) >= {"box:1", "named:2"}
    assert image.history()[0]["Size"]
    archive = b"".join(client.images.save(["named:2"]))
    assert {"Untagged": "named:2"} in client.images.remove("named:2")
    assert client.images.load(archive) == ["Loaded image: named:2"]
    assert b"named" in b"".join(client.images.get("named:2").save())
    client.images.remove("named:2", force=True)
    with pytest.raises(errors.NotFound):
        client.images.get("nosuch")


def test_a_pull_that_fails_in_its_stream_is_an_error(client: Client) -> None:
    with pytest.raises(errors.MinidockerError):
        client.images.pull("127.0.0.1:1/nosuch:1")


def test_volumes_are_made_found_and_removed(on_docker: Client) -> None:
    volume = on_docker.volumes.create("own-volume", labels={"a": "b"})
    assert [found.name for found in on_docker.volumes.list(filters={"label": ["a=b"]})] == ["own-volume"]
    volume.remove()
    with pytest.raises(errors.NotFound):
        on_docker.volumes.get("own-volume")


def test_networks_are_found(client: Client) -> None:
    assert client.networks.get("none").attrs["Driver"] == "null"
    assert {"none", "host"} <= {network.name for network in client.networks.list()}
