"""Containers become images: docker's command and its Python SDK are the users."""

import io
import tarfile
import time

import docker
import pytest

from .conftest import Daemon, wait_until

SCRIPT = "echo new > /tmp/new; rm /etc/group; rm -r /var/data; mkdir /var/data; echo v > /vol/v; sleep 1000"


@pytest.fixture
def changed(client: docker.DockerClient) -> object:
    container = client.containers.run(
        "busybox", ["sh", "-c", SCRIPT], network_mode="none", detach=True, environment={"A": "1"}, labels={"x": "y"},
        volumes={"committed": {"bind": "/vol"}}, name="to-commit", user="root",
    )  # fmt: skip
    wait_until(lambda: container.exec_run("test -s /vol/v").exit_code == 0)
    return container


def test_a_commit_holds_what_changed_and_nothing_of_volumes(client: docker.DockerClient, changed: object) -> None:
    image = changed.commit("made", "1", message="why", author="who")  # type: ignore[attr-defined]
    look = "cat /tmp/new; ls /etc/group /var/data /vol"
    shown = client.containers.run("made:1", ["sh", "-c", f"{look} 2>&1; true"], network_mode="none").decode()
    assert shown == "new\nls: /etc/group: No such file or directory\n/var/data:\n\n/vol:\n"
    attrs = image.attrs
    assert (attrs["Author"], attrs["Comment"], len(attrs["RootFS"]["Layers"])) == ("who", "why", 2)
    assert attrs["Parent"] == changed.image.id  # type: ignore[attr-defined]
    assert {"A=1", "FROM_IMAGE=yes"} <= set(attrs["Config"]["Env"])
    assert attrs["Config"]["Labels"] == {"x": "y", "origin": "test"}
    assert attrs["Config"]["Cmd"] == ["sh", "-c", SCRIPT]
    newest = image.history()[0]
    assert (newest["Comment"], newest["CreatedBy"], newest["Tags"]) == ("why", f"sh -c {SCRIPT}", ["made:1"])
    client.images.remove("made:1", force=True)


def test_a_commit_survives_its_container_and_a_restart(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = client.containers.create("busybox", ["sh", "-c", "echo x > /root/x"], network_mode="none")
    container.start()
    container.wait()
    container.commit("kept", "1")
    container.remove()
    own_daemon.restart()
    assert client.containers.run("kept:1", "cat /root/x", network_mode="none", remove=True) == b"x\n"
    client.close()


def test_changes_come_by_the_stock_command(daemon: Daemon, client: docker.DockerClient, changed: object) -> None:
    lines = ['CMD ["x", "y"]', "ENV B=$A", "EXPOSE 81/udp", "LABEL l=m", "USER 5", "VOLUME /data", "WORKDIR /w",
             "ONBUILD RUN true", 'ENTRYPOINT ["e"]']  # fmt: skip
    done = daemon.cli("commit", *(word for line in lines for word in ("-c", line)), "to-commit", "made:2")
    assert done.returncode == 0, done.stderr
    config = client.images.get("made:2").attrs["Config"]
    assert (config["Cmd"], config["Entrypoint"], config["User"], config["WorkingDir"]) == (["x", "y"], ["e"], "5", "/w")
    assert "B=1" in config["Env"]
    assert (config["ExposedPorts"], config["OnBuild"]) == ({"81/udp": {}}, ["RUN true"])
    assert config["Volumes"] == {"/data": {}, "/vol": {}}
    refused = daemon.cli("commit", "-c", "RUN x", "to-commit")
    assert "run is not a valid change command" in refused.stderr
    client.images.remove("made:2", force=True)


def test_the_body_configures_the_image(client: docker.DockerClient, changed: object) -> None:
    image = changed.commit(conf={"Cmd": ["z"], "Env": ["A=2"], "Labels": {"b": "c"}})  # type: ignore[attr-defined]
    assert image.attrs["Config"]["Cmd"] == ["z"]
    assert "A=2" in image.attrs["Config"]["Env"]
    assert image.attrs["Config"]["Labels"] == {"b": "c", "x": "y", "origin": "test"}
    client.images.remove(image.id)


def test_the_container_stands_still_meanwhile_unless_told_otherwise(
    client: docker.DockerClient, changed: object
) -> None:
    only = {"container": changed.id}  # type: ignore[attr-defined]

    def actions() -> list[str]:
        events = client.events(since=1, until=int(time.time()) + 1, filters=only, decode=True)
        return [event["Action"] for event in events if event["Action"] in ("pause", "unpause", "commit")]

    first = changed.commit()  # type: ignore[attr-defined]
    assert actions() == ["pause", "unpause", "commit"]
    second = changed.commit(pause=False)  # type: ignore[attr-defined]
    assert actions() == ["pause", "unpause", "commit", "commit"]
    changed.reload()  # type: ignore[attr-defined]
    assert changed.status == "running"  # type: ignore[attr-defined]
    changed.pause()  # type: ignore[attr-defined]
    third = changed.commit()  # type: ignore[attr-defined]
    changed.reload()  # type: ignore[attr-defined]
    assert changed.status == "paused"  # type: ignore[attr-defined]
    for image in {first.id, second.id, third.id}:
        client.images.remove(image)


def test_a_commit_without_changes_adds_no_layer(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", network_mode="none")
    image = container.commit("empty", "1")
    assert len(image.attrs["RootFS"]["Layers"]) == 1
    assert image.history()[0]["Size"] == 0
    assert image.id != container.image.id
    client.images.remove("empty:1")


def test_mount_points_of_the_runtime_are_no_changes(client: docker.DockerClient) -> None:
    """The image has neither /etc/hosts nor its like, so the runtime makes them."""
    container = client.containers.run("busybox", "true", network_mode="none", detach=True)
    container.wait()
    assert container.diff() is None
    image = container.commit()
    fresh = client.containers.create(image.id, network_mode="none")
    with tarfile.open(fileobj=io.BytesIO(b"".join(fresh.export()))) as archive:
        assert not {"etc/hosts", "etc/hostname", "etc/resolv.conf"} & set(archive.getnames())
    fresh.remove()
    client.images.remove(image.id)


@pytest.mark.parametrize("name", ["BAD NAME", "Bad", "a/b@sha256:" + "0" * 64])
def test_what_is_no_name_is_refused(client: docker.DockerClient, name: str) -> None:
    container = client.containers.create("busybox", network_mode="none")
    before = len(client.images.list(all=True))
    with pytest.raises(docker.errors.APIError) as caught:
        container.commit(name)
    assert caught.value.status_code == 400
    assert len(client.images.list(all=True)) == before


def test_a_missing_container_is_not_found(daemon: Daemon) -> None:
    assert "No such container: nosuch" in daemon.cli("commit", "nosuch", "x").stderr


def test_a_container_that_ends_meanwhile_is_committed(client: docker.DockerClient) -> None:
    """Its end comes between the question whether it runs and the freezing, at some of these times."""
    for number in range(12):
        container = client.containers.create("busybox", ["touch", f"/{number}"], network_mode="none")
        container.start()
        image = container.commit()
        container.remove(force=True)
        client.images.remove(image.id)


def test_the_image_tells_what_its_container_ran_with(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["true"], network_mode="none", hostname="told")
    image = container.commit()
    shown = image.attrs["ContainerConfig"]
    assert (image.attrs["Container"], shown["Image"], shown["Cmd"], shown["Hostname"]) == (
        container.id, "busybox", ["true"], "told",
    )  # fmt: skip
    assert (image.attrs["Config"]["Image"], image.attrs["Config"]["Hostname"]) == ("", "")
    client.images.remove(image.id)
