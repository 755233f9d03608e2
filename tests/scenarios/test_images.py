"""Images through the socket: the stock docker CLI, docker-py and raw HTTP against a daemon and a real registry."""

import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from minidocker.lab.setup import base_image
from minidocker.lab.setup import registry as real_registry

pytestmark = pytest.mark.needs_root


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry with the base image in it; gives its domain."""
    if shutil.which("docker-registry", path="/usr/bin:/usr/sbin") is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
    root, port = tmp_path_factory.mktemp("registry"), free_port()
    real_registry.start(root, port)
    base_image.ensure(f"127.0.0.1:{port}")
    yield f"127.0.0.1:{port}"
    real_registry.stop(root)


@pytest.fixture
def box(daemon: Any, registry: str) -> Iterator[str]:
    """The base image, pulled; removed with all its names after the test."""
    name = f"{registry}/library/busybox:latest"
    done = daemon.cli("pull", name)
    assert done.returncode == 0, done.stderr
    yield name
    daemon.remove_all()
    client = daemon.client()
    for image in client.images.list():
        if any(registry in tag for tag in image.tags) or not image.tags:
            client.images.remove(image.id, force=True)
    client.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def call(daemon: Any, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = _Unix(daemon.socket)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.split(b"\r\n") if line]


def test_pull_says_what_docker_says(daemon: Any, registry: str, box: str) -> None:
    again = daemon.cli("pull", box).stdout.splitlines()
    assert again[0] == "latest: Pulling from library/busybox"
    assert again[1].startswith("Digest: sha256:")
    assert again[2:] == [f"Status: Image is up to date for {box}", box]
    daemon.cli("rmi", box)
    status, body = call(daemon, "POST", f"/v1.41/images/create?fromImage={registry}/library/busybox&tag=latest")
    assert status == 200
    moving = [line for line in lines(body) if line.get("progressDetail")]
    assert all(set(line["progressDetail"]) == {"current", "total"} and ">" in line["progress"] for line in moving)
    assert [line["status"] for line in lines(body)][-1] == f"Status: Downloaded newer image for {box}"


def test_a_pull_that_cannot_begin_has_a_status_and_one_that_breaks_an_error_line(daemon: Any, registry: str) -> None:
    status, body = call(daemon, "POST", f"/v1.44/images/create?fromImage={registry}/nosuch&tag=1")
    assert status == 404
    message = f"manifest for {registry}/nosuch:1 not found: manifest unknown: manifest unknown"
    assert json.loads(body) == {"message": message}
    for query in ("fromImage=", "fromImage=UPPER", "fromImage=x&tag=bad%20tag", "fromImage=x&platform=a/b/c/d"):
        assert call(daemon, "POST", f"/v1.44/images/create?{query}")[0] == 400, query
    status, body = call(daemon, "POST", f"/v1.44/images/{registry}/nosuch/push?tag=1", **{"X-Registry-Auth": "e30="})
    assert status == 200
    assert lines(body)[-1]["error"] == f"An image does not exist locally with the tag: {registry}/nosuch"
    unknown = json.loads(call(daemon, "POST", "/v1.44/images/create?fromImage=x&platform=foobar")[1])
    assert unknown["message"] == '"foobar": unknown operating system or architecture: invalid argument'


def test_tag_push_remove_and_pull_back_by_digest(daemon: Any, registry: str, box: str) -> None:
    copy = f"{registry}/t/copy:2"
    assert daemon.cli("tag", box, copy).returncode == 0
    pushed = daemon.cli("push", copy)
    assert "Mounted from library/busybox" in pushed.stdout or "Pushed" in pushed.stdout
    digest = pushed.stdout.split("digest: ")[1].split()[0]
    assert daemon.cli("rmi", copy).stdout.splitlines() == [f"Untagged: {copy}", f"Untagged: {registry}/t/copy@{digest}"]
    assert daemon.cli("pull", f"{registry}/t/copy@{digest}").returncode == 0
    assert daemon.cli("rmi", f"{registry}/t/copy@{digest}").returncode == 0


def test_a_container_runs_from_what_was_pulled_and_holds_its_image(daemon: Any, box: str) -> None:
    done = daemon.cli("run", "--rm", box, "sh", "-c", "id -u; ls -d /tmp; cat /etc/passwd | head -1")
    assert done.stdout.splitlines() == ["0", "/tmp", "root:x:0:0:root:/root:/bin/sh"], done.stderr
    id = daemon.cli("run", "-d", box, "sleep", "1000").stdout.strip()
    refused = daemon.cli("rmi", box)
    assert f'unable to remove repository reference "{box}" (must force) - container {id[:12]}' in refused.stderr


def test_save_and_load_through_the_socket(daemon: Any, box: str, tmp_path: Path) -> None:
    assert daemon.cli("save", "-o", str(tmp_path / "a.tar"), box).returncode == 0
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert "manifest.json" in archive.getnames() and "oci-layout" in archive.getnames()
    assert daemon.cli("rmi", "-f", box).returncode == 0
    loaded = daemon.cli("load", "-i", str(tmp_path / "a.tar"))
    assert loaded.stdout.splitlines()[-1] == f"Loaded image: {box}", loaded.stderr
    assert daemon.cli("load", stdin=b"not a tar").returncode == 1
    assert daemon.cli("save", "nosuch").stderr.strip().endswith("No such image: nosuch:latest")


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\0" * 1024])
def test_a_load_that_fails_says_so_in_its_stream(daemon: Any, content: bytes) -> None:
    status, body = call(daemon, "POST", "/v1.44/images/load", content, **{"Content-Type": "application/x-tar"})
    (line,) = lines(body)
    assert status == 200 and line["error"] == line["errorDetail"]["message"] != ""
    with pytest.raises(docker.errors.ImageLoadError):
        daemon.client().images.load(content)


@pytest.mark.parametrize(
    ("query", "name"),
    [("repo=t/one&tag=a", "t/one:a"), ("repo=t/two:b", "t/two:b"), ("repo=t/three:c&tag=d", "t/three:d"),
     ("repo=docker.io/library/four", "four:latest")],
)  # fmt: skip
def test_the_tag_beside_a_name_counts_more_than_the_one_in_it(daemon: Any, box: str, query: str, name: str) -> None:
    assert call(daemon, "POST", f"/v1.44/images/{box}/tag?{query}")[0] == 201
    assert name in json.loads(call(daemon, "GET", f"/v1.44/images/{box}/json")[1])["RepoTags"]
    assert call(daemon, "DELETE", f"/v1.44/images/{name}")[0] == 200


@pytest.mark.parametrize(
    ("query", "words"),
    [("repo=sha256&tag=a", "ambiguous tag"), ("repo=x&tag=-bad", "invalid tag format"),
     ("repo=X", "must be lowercase")],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused(daemon: Any, box: str, query: str, words: str) -> None:
    status, body = call(daemon, "POST", f"/v1.44/images/{box}/tag?{query}")
    assert status == 400 and words in json.loads(body)["message"]


def test_events_tell_of_tags_saves_and_prunes(daemon: Any, box: str) -> None:
    client = daemon.client()
    seen = client.events(decode=True, filters={"type": "image"})
    image = client.images.get(box)
    image.tag("told")
    assert len(b"".join(image.save())) > 1_000_000
    client.images.prune()
    told = [next(seen) for _ in range(3)]
    shown = [(one["Action"], one["Actor"]["Attributes"].get("name")) for one in told]
    assert shown == [("tag", "told"), ("save", image.id), ("prune", None)]
    assert told[2]["Actor"]["Attributes"] == {"reclaimed": "0"}
    seen.close()
    client.images.remove("told")
    client.close()


def test_a_loaded_image_is_compressed_when_pushed(daemon: Any, registry: str, box: str) -> None:
    """docker-archives hold plain layers."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        entry = tarfile.TarInfo("zeros")
        entry.size = 1 << 20
        layer.addfile(entry, io.BytesIO(bytes(1 << 20)))
    diff_id = "sha256:" + hashlib.sha256(content.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    name = f"{registry}/t/loaded:1"
    members = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": content.getvalue(),
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode(),
    }
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w") as archive:
        for member, data in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert daemon.cli("load", stdin=outer.getvalue()).stdout.strip().endswith(name)
    assert daemon.cli("push", name).returncode == 0
    seen = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    )
    (layer_sent,) = json.loads(seen.stdout)["layers"]
    assert layer_sent["mediaType"].endswith("tar.gzip") and layer_sent["size"] < 20_000


def test_shapes_follow_the_version_of_the_request(daemon: Any, box: str) -> None:
    old, new = (json.loads(call(daemon, "GET", f"/{version}/images/json")[1]) for version in ("v1.41", "v1.44"))
    assert set(old[0]) - set(new[0]) == {"VirtualSize"}
    expected = {"Containers", "Created", "Id", "Labels", "ParentId", "RepoDigests", "RepoTags", "SharedSize", "Size"}
    assert set(new[0]) == expected
    inspected = json.loads(call(daemon, "GET", f"/v1.44/images/{box}/json")[1])
    assert inspected["Config"]["Cmd"] == ["sh"] and inspected["RootFS"]["Type"] == "layers"
    history = json.loads(call(daemon, "GET", f"/v1.44/images/{box}/history")[1])
    assert history[0]["Id"] == inspected["Id"] and history[1]["Id"] == "<missing>" and history[1]["Size"] > 1_000_000


def test_docker_py_pulls_lists_tags_and_removes(daemon: Any, registry: str, box: str) -> None:
    client = daemon.client()
    image = client.images.pull(f"{registry}/library/busybox", tag="latest")
    assert image.tags == [box]
    assert image.tag("again", "1")
    assert set(client.images.get("again:1").tags) == {box, "again:1"}
    client.images.remove("again:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("again:1")
    assert client.images.get_registry_data(box).attrs["Platforms"]
    assert image.history()[0]["Id"] == image.id
    client.close()


def test_login_and_search(daemon: Any, registry: str) -> None:
    body = json.dumps({"username": "a", "password": "b", "serveraddress": registry}).encode()
    status, answer = call(daemon, "POST", "/v1.44/auth", body, **{"Content-Type": "application/json"})
    assert (status, json.loads(answer)) == (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    assert call(daemon, "GET", "/v1.44/images/search?term=x")[0] == 501


def test_a_pulled_image_survives_kill_9_of_the_daemon(own_daemon: Any, registry: str) -> None:
    name = f"{registry}/library/busybox:latest"
    assert own_daemon.cli("pull", name).returncode == 0
    orphan = own_daemon.data_root / "blobs" / "sha256" / ("0" * 64)
    orphan.write_bytes(b"half of something")
    own_daemon.restart(signal.SIGKILL)
    assert not orphan.exists()
    assert own_daemon.cli("run", "--rm", name, "echo", "alive").stdout == "alive\n"
    assert os.path.isdir(own_daemon.data_root / "layers")
