"""Volumes: what is in them, who owns them, how long they live."""

import subprocess
from pathlib import Path

import docker
import pytest

from minidocker.storage.volumes import VolumeStore

from ..docker_oracle import recent_client
from .conftest import Daemon

ANONYMOUS = "com.docker.volume.anonymous"


@pytest.fixture(autouse=True)
def no_volumes_left(daemon: Daemon, client: docker.DockerClient):  # type: ignore[no-untyped-def]
    yield
    daemon.remove_all()
    client.volumes.prune(filters={"all": True})
    assert client.volumes.list() == []


def names(client: docker.DockerClient, **filters: object) -> list[str]:
    return sorted(volume.name for volume in client.volumes.list(filters=filters or None))


def test_a_volume_keeps_what_containers_write(client: docker.DockerClient) -> None:
    volume = client.volumes.create("kept", labels={"colour": "blue"})
    assert volume.attrs["Labels"] == {"colour": "blue"}
    assert (volume.attrs["Driver"], volume.attrs["Scope"]) == ("local", "local")
    client.containers.run("busybox", ["sh", "-c", "echo text > /data/file"], volumes=["kept:/data"], remove=True)
    seen = client.containers.run("busybox", ["cat", "/data/file"], volumes=["kept:/data:ro"], remove=True)
    assert seen == b"text\n"
    assert client.volumes.create("kept").attrs == volume.attrs


def test_the_images_files_come_into_an_empty_volume_with_their_owners(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    base = client.containers.run("busybox", ["chown", "-R", "1000:10", "/var/data"], detach=True)
    base.wait()
    base.commit("owned")
    base.remove()
    try:
        command = ["sh", "-c", "stat -c %u:%g /var/data /var/data/seed; cat /var/data/seed"]
        seen = client.containers.run("owned", command, volumes=["filled:/var/data"], remove=True)
        assert seen == b"1000:10\n1000:10\nfrom the image\n"
    finally:
        daemon.remove_all()
        client.images.remove("owned", force=True)


def test_a_volume_is_filled_at_create_and_only_while_it_is_empty(client: docker.DockerClient) -> None:
    client.containers.create("busybox", "true", volumes=["once:/var/data"])
    look = ["sh", "-c", "cat /v/seed; echo changed > /v/seed"]
    assert client.containers.run("busybox", look, volumes=["once:/v"], remove=True) == b"from the image\n"
    again = client.containers.run("busybox", ["cat", "/var/data/seed"], volumes=["once:/var/data"], remove=True)
    assert again == b"changed\n"


def test_nocopy_leaves_it_empty(daemon: Daemon) -> None:
    mount = "type=volume,src=empty,dst=/var/data,volume-nocopy,volume-label=made=here"
    assert daemon.cli("run", "--rm", "--mount", mount, "busybox", "ls", "/var/data").stdout == ""
    assert daemon.cli("volume", "inspect", "-f", "{{.Labels.made}}", "empty").stdout == "here\n"
    assert daemon.cli("run", "--rm", "-v", "other:/var/data:nocopy", "busybox", "ls", "/var/data").stdout == ""


def test_anonymous_volumes_go_with_rm_v_and_named_ones_stay(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.create("busybox", "true", name="one", volumes=["/anonymous", "named:/named"])
    assert len(names(client)) == 2
    assert daemon.cli("rm", "one").returncode == 0
    assert len(names(client)) == 2
    client.containers.create("busybox", "true", name="two", volumes=["/anonymous"])
    assert daemon.cli("rm", "-v", "two").returncode == 0
    assert len(names(client)) == 2
    assert daemon.cli("run", "--rm", "-v", "/anonymous", "busybox", "true").returncode == 0
    assert len(names(client)) == 2
    assert [bool(v.attrs["Labels"]) for v in client.volumes.list(filters={"label": ANONYMOUS})] == [True]


def test_volumes_from_shares_them_and_the_last_one_takes_an_anonymous_one_along(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    owner = client.containers.run("busybox", ["touch", "/shared/file"], detach=True, name="owner", volumes=["/shared"])
    owner.wait()
    client.containers.create("busybox", ["ls", "/shared"], name="other", volumes_from=["owner:ro"])
    assert daemon.cli("rm", "-v", "owner").returncode == 0
    assert daemon.cli("start", "-a", "other").stdout == "file\n"
    assert daemon.cli("rm", "-v", "other").returncode == 0
    assert names(client) == []


def test_read_only_from_another_container_is_read_only(client: docker.DockerClient) -> None:
    client.containers.create("busybox", "true", name="writer", volumes=["/shared"])
    with pytest.raises(docker.errors.ContainerError) as told:
        client.containers.run("busybox", ["touch", "/shared/x"], volumes_from=["writer:ro"])
    assert b"Read-only file system" in told.value.stderr


def test_one_in_use_is_not_removed_not_even_by_force(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true", volumes=["used:/data"])
    volume = client.volumes.get("used")
    with pytest.raises(docker.errors.APIError) as told:
        volume.remove()
    assert told.value.response.status_code == 409
    assert told.value.explanation == f"remove used: volume is in use - [{container.id}]"
    assert "volume is in use" in daemon.cli("volume", "rm", "-f", "used").stderr
    container.remove()
    volume.remove()
    with pytest.raises(docker.errors.NotFound, match="get used: no such volume"):
        client.volumes.get("used")
    assert daemon.cli("volume", "rm", "-f", "used").returncode == 0
    with pytest.raises(docker.errors.NotFound):
        client.api.remove_volume("used")


def test_filters(client: docker.DockerClient) -> None:
    client.volumes.create("apple", labels={"kind": "fruit"})
    client.volumes.create("leek", labels={"kind": "vegetable", "green": ""})
    client.containers.create("busybox", "true", volumes=["apple:/data"])
    assert names(client, dangling=True) == ["leek"]
    assert names(client, dangling="0") == ["apple"]
    assert names(client, label="kind=fruit") == ["apple"]
    assert names(client, label=["kind", "green"]) == ["leek"]
    assert names(client, name="pp") == ["apple"]
    assert names(client, driver="local") == ["apple", "leek"]
    assert names(client, driver="nfs") == []
    for bad in ({"colour": "x"}, {"dangling": "maybe"}):
        with pytest.raises(docker.errors.APIError, match="invalid filter"):
            client.volumes.list(filters=bad)


def test_prune_takes_anonymous_ones_unless_told_all(daemon: Daemon, client: docker.DockerClient) -> None:
    named, anonymous = client.volumes.create("named", labels={"keep": "no"}), client.volumes.create()
    client.containers.run("busybox", ["sh", "-c", "echo 12345 > /v/x"], volumes=[f"{anonymous.name}:/v"], remove=True)
    kept = client.volumes.create("precious", labels={"keep": "yes"})
    assert client.volumes.prune() == {"VolumesDeleted": [anonymous.name], "SpaceReclaimed": 6}
    assert client.volumes.prune() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    assert client.volumes.prune({"all": True, "label!": ["keep=yes"]})["VolumesDeleted"] == [named.name]
    old = daemon.client("1.41")
    assert old.volumes.prune()["VolumesDeleted"] == [kept.name]
    old.close()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Name": "../x"}, 400, "includes invalid characters for a local volume name"),
        ({"Name": "x"}, 400, "volume name is too short"),
        ({"Name": "fine", "DriverOpts": {"colour": "x"}}, 400, 'create fine: invalid option: "colour"'),
        ({"Name": "fine", "DriverOpts": {"type": "nfs"}}, 400, 'create fine: missing required option: "device"'),
        ({"Name": "fine", "DriverOpts": {"device": "x"}}, 400, 'create fine: missing required option: "type"'),
        ({"Name": "fine", "DriverOpts": {"size": "5m"}}, 400, "quota size requested but no quota support"),
        ({"Name": "fine", "Driver": "glue"}, 404, 'plugin "glue" not found'),
    ],
)
def test_what_cannot_be_made_is_refused(
    client: docker.DockerClient, body: dict[str, object], status: int, words: str
) -> None:
    response = client.api._post_json(client.api._url("/volumes/create"), data=body)
    assert (response.status_code, words in response.json()["message"]) == (status, True), response.text


def test_their_lives_are_events(client: docker.DockerClient) -> None:
    client.containers.run("busybox", "true", volumes=["told:/data"], remove=True)
    client.volumes.get("told").remove()
    stream = client.events(since=0, until=_now(client), decode=True, filters={"volume": "told"})
    assert [event["Action"] for event in stream] == ["create", "mount", "unmount", "destroy"]


def _now(client: docker.DockerClient) -> str:
    now: str = client.info()["SystemTime"]
    return now


def test_volumes_outlive_the_daemon_with_their_labels(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    client.volumes.create("lasting", labels={"a": "b"})
    client.containers.run("busybox", ["touch", "/v/x"], volumes=["lasting:/v"], remove=True)
    own_daemon.restart()
    client = own_daemon.client()
    assert client.volumes.get("lasting").attrs["Labels"] == {"a": "b"}
    assert client.containers.run("busybox", ["ls", "/v"], volumes=["lasting:/v"], remove=True) == b"x\n"
    assert [volume.name for volume in VolumeStore(own_daemon.data_root).list()] == ["lasting"]
    client.close()


@recent_client
def test_a_read_only_bind_covers_the_mounts_below_it(
    daemon: Daemon, client: docker.DockerClient, tmp_path: Path
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(below)], check=True)
    try:
        write, binds = ["touch", "/x/below/file"], [f"{tmp_path}:/x:ro"]
        with pytest.raises(docker.errors.ContainerError) as told:
            client.containers.run("busybox", write, volumes=binds)
        assert b"Read-only file system" in told.value.stderr
        mount = f"type=bind,src={tmp_path},dst=/x,ro"
        assert daemon.cli("run", "--rm", "--mount", mount, "busybox", *write).returncode == 1
        forced = daemon.cli("run", "--rm", "--mount", mount + ",bind-recursive=readonly", "busybox", *write)
        assert (forced.returncode, "rprivate" in forced.stderr) == (125, True)
        mount += ",bind-recursive=readonly,bind-propagation=rprivate"
        assert daemon.cli("run", "--rm", "--mount", mount, "busybox", *write).returncode == 1
        assert not list(below.iterdir())
        writable = f"type=bind,src={tmp_path},dst=/x,ro,bind-recursive=writable"
        assert daemon.cli("run", "--rm", "--mount", writable, "busybox", *write).returncode == 0
        (below / "file").unlink()
        old = daemon.client("1.43")
        old.containers.run("busybox", write, volumes=binds, remove=True)
        old.close()
        assert [entry.name for entry in below.iterdir()] == ["file"]
    finally:
        daemon.remove_all()
        subprocess.run(["umount", str(below)], check=True)
