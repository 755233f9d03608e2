"""Files in and out of containers, through the socket: docker's command and its Python SDK are the users."""

import base64
import io
import json
import socket
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from minidocker.client import connect
from minidocker.errors import Forbidden

from ..docker_oracle import recent_client
from .conftest import Daemon, wait_until

STATES = ("created", "running", "paused", "exited")


def tree(*members: tuple[str, str | None]) -> bytes:
    """An archive of (name, content); None: a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mode = 7, 8, 0o640
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO((content or "").encode()))
    return out.getvalue()


def read(container: Any, path: str) -> dict[str, tarfile.TarInfo]:
    """The members of what `get_archive` gives."""
    pieces, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {member.name: member for member in archive.getmembers()}


def text(container: Any, path: str) -> str:
    pieces, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        assert file is not None
        return file.read().decode()


def in_state(client: docker.DockerClient, state: str, **options: Any) -> Any:
    container = client.containers.create("busybox", ["sleep", "1000"], network_mode="none", **options)
    if state != "created":
        container.start()
    if state == "paused":
        container.pause()
    if state == "exited":
        container.kill()
        container.wait()
    return container


@pytest.mark.parametrize("state", STATES)
def test_files_go_in_and_out_in_every_state(client: docker.DockerClient, state: str) -> None:
    container = in_state(client, state)
    assert container.put_archive("/tmp", tree(("d", None), ("d/f", "hello")))
    found = read(container, "/tmp/d")
    assert {name: (m.uid, m.gid, m.mode) for name, m in found.items()} == {"d": (7, 8, 0o750), "d/f": (7, 8, 0o640)}
    assert text(container, "/tmp/d/f") == "hello"
    assert container.diff() == [
        {"Path": "/tmp", "Kind": 0}, {"Path": "/tmp/d", "Kind": 1}, {"Path": "/tmp/d/f", "Kind": 1}
    ]  # fmt: skip
    container.reload()
    assert container.status == state


@pytest.mark.parametrize("state", ["running", "exited"])
def test_volumes_binds_and_generated_files_are_seen(client: docker.DockerClient, state: str, tmp_path: Path) -> None:
    (tmp_path / "bound").write_text("of the host")
    binds = {"seeded": {"bind": "/var/data", "mode": "rw"}, str(tmp_path): {"bind": "/bound", "mode": "rw"}}
    container = in_state(client, state, volumes=binds)
    assert text(container, "/var/data/seed") == "from the image\n"
    assert text(container, "/bound/bound") == "of the host"
    assert "localhost" in text(container, "/etc/hosts")
    container.put_archive("/bound", tree(("new", "x")))
    assert (tmp_path / "new").read_text() == "x"
    container.put_archive("/var/data", tree(("new", "y")))
    shown = client.containers.run("busybox", "cat /v/new", volumes={"seeded": {"bind": "/v"}}, network_mode="none")
    assert shown == b"y"


@pytest.mark.parametrize("state", ["running", "exited"])
def test_what_is_read_only_refuses_files(client: docker.DockerClient, state: str) -> None:
    binds = {"vol-rw": {"bind": "/rw", "mode": "rw"}, "vol-ro": {"bind": "/ro", "mode": "ro"}}
    container = in_state(client, state, read_only=True, volumes=binds)
    refused = {"/tmp": "container rootfs is marked read-only", "/ro": "mounted volume is marked read-only"}
    for path, words in refused.items():
        with pytest.raises(docker.errors.APIError, match=words) as caught:
            container.put_archive(path, tree(("f", "x")))
        assert caught.value.status_code == 403
    container.put_archive("/rw", tree(("f", "x")))
    assert text(container, "/rw/f") == "x"


def test_our_client_tells_forbidden(daemon: Daemon, client: docker.DockerClient) -> None:
    container = in_state(client, "created", read_only=True)
    with connect(daemon.url) as ours, pytest.raises(Forbidden):
        ours.containers.get(container.id).put_archive("/tmp", tree(("f", "x")))


def test_mount_points_of_a_running_container_stay(client: docker.DockerClient) -> None:
    container = in_state(client, "running")
    before = text(container, "/etc/hosts")
    with pytest.raises(docker.errors.APIError, match="EBUSY"):
        container.put_archive("/etc", tree(("hosts", "evil")))
    assert container.exec_run("cat /etc/hosts").output.decode() == before
    assert b"/etc/hosts" in container.exec_run("cat /proc/mounts").output


def test_what_the_kernel_makes_up_is_not_copied(client: docker.DockerClient) -> None:
    container = in_state(client, "running")
    names = read(container, "/")
    assert {"proc", "sys"} <= {name.strip("/") for name in names}
    assert not [name for name in names if name.strip("/").startswith(("proc/", "sys/"))]
    for path in ("/proc/cpuinfo", "/proc/1/root/etc/passwd", "/proc/sys/kernel/hostname", "/sys/kernel"):
        with pytest.raises(docker.errors.NotFound, match="Could not find the file"):
            container.get_archive(path)


def test_the_stat_header_speaks_go(daemon: Daemon, client: docker.DockerClient) -> None:
    container = in_state(client, "running")
    container.exec_run("sh -c 'ln -s /etc/../etc/passwd /root/l; mkfifo /root/p; chmod 6755 /root/p'")
    wanted = {
        "/tmp": ("tmp", 1 << 31 | 1 << 20 | 0o777, ""),
        "/etc/passwd": ("passwd", 0o644, ""),
        "/root/l": ("l", 1 << 27 | 0o777, "/etc/passwd"),
        "/root/p": ("p", 1 << 25 | 1 << 23 | 1 << 22 | 0o755, ""),
        "/dev/null": ("null", 1 << 26 | 1 << 21 | 0o666, ""),
    }
    for path, (name, mode, target) in wanted.items():
        for verb in (client.api.head, client.api.get):
            url = client.api._url("/containers/{0}/archive", container.id)
            response: requests.Response = verb(url, params={"path": path})
            stat = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
            assert (stat["name"], stat["mode"], stat["linkTarget"]) == (name, mode, target)
            assert stat["mtime"].endswith("Z")


def test_kinds_replace_each_other_only_if_that_is_wanted(client: docker.DockerClient) -> None:
    container = in_state(client, "created")
    container.put_archive("/tmp", tree(("x", None), ("x/f", "f")))
    url = client.api._url("/containers/{0}/archive", container.id)
    query = {"path": "/tmp", "noOverwriteDirNonDir": "true"}
    refused = client.api.put(url, params=query, data=tree(("x", "file")))
    assert refused.status_code == 409
    assert "cannot overwrite directory" in refused.json()["message"]
    container.put_archive("/tmp", tree(("x", "file")))
    assert text(container, "/tmp/x") == "file"


@pytest.mark.parametrize(("user", "owner"), [("student", (1000, 1000)), ("5:6", (5, 6)), ("", (7, 8))])
def test_copy_uid_gid_gives_files_to_the_containers_user(
    client: docker.DockerClient, user: str, owner: tuple[int, int]
) -> None:
    container = in_state(client, "created", user=user)
    url = client.api._url("/containers/{0}/archive", container.id)
    assert client.api.put(url, params={"path": "/tmp", "copyUIDGID": "1"}, data=tree(("f", "x"))).status_code == 200
    member = read(container, "/tmp/f")["f"]
    assert (member.uid, member.gid) == owner


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("", tree(("f", "x")), 400),
        ("/nosuch", tree(("f", "x")), 404),
        ("/etc/passwd", tree(("f", "x")), 400),
        ("/etc/passwd/x", tree(("f", "x")), 404),
        ("/tmp", b"no archive at all" * 100, 400),
        ("/tmp", tree(("../../f", "x")), 400),
        ("/tmp", b"", 200),
    ],
)
def test_bad_requests_get_their_status(client: docker.DockerClient, path: str, body: bytes, status: int) -> None:
    container = in_state(client, "created")
    url = client.api._url("/containers/{0}/archive", container.id)
    assert client.api.put(url, params={"path": path}, data=body).status_code == status


@recent_client
def test_names_that_are_not_there_are_told_as_docker_does(daemon: Daemon, client: docker.DockerClient) -> None:
    container = in_state(client, "created")
    with pytest.raises(docker.errors.NotFound, match=f"Could not find the file /nosuch in container {container.id}"):
        container.get_archive("/nosuch")
    words = f"Could not find the file /nosuch in container {container.name}"
    assert words in daemon.cli("cp", f"{container.name}:/nosuch", "-").stderr
    assert "No such container: nosuch" in daemon.cli("cp", "nosuch:/x", "-").stderr


def test_a_symlink_exchange_never_reaches_the_host(client: docker.DockerClient, tmp_path: Path) -> None:
    """CVE-2018-15664: the container exchanges a directory and a link to a path of the host while files are copied."""
    secret = tmp_path / "canary"
    secret.write_text("of the host")
    script = (
        f"mkdir -p /a/dir {tmp_path}; echo inside > /a/dir/canary; echo inside > {tmp_path}/canary;"
        f"ln -s {tmp_path} /a/l;"
        "echo ready; while true; do mv /a/dir /a/x; mv -T /a/l /a/dir; mv -T /a/dir /a/l; mv /a/x /a/dir; done"
    )
    container = client.containers.run("busybox", ["sh", "-c", script], network_mode="none", detach=True)
    wait_until(lambda: b"ready" in container.logs())
    seen = set()
    for _ in range(40):
        try:
            seen.add(text(container, "/a/dir/canary"))
            container.put_archive("/a/dir", tree(("written", "evil")))
        except docker.errors.APIError as error:
            assert error.status_code in (404, 400)
    assert seen <= {"inside\n"}
    assert seen
    assert secret.read_text() == "of the host"
    assert [entry.name for entry in tmp_path.iterdir()] == ["canary"]


def test_a_client_that_stops_reading_holds_up_nobody(daemon: Daemon, client: docker.DockerClient) -> None:
    container = in_state(client, "running")
    container.exec_run("dd if=/dev/zero of=/tmp/big bs=1M count=64")
    held = [_asked(daemon, f"/containers/{container.id}/archive?path=/tmp/big") for _ in range(6)]
    assert all(connection.recv(1000).startswith(b"HTTP/1.1 200") for connection in held)
    other = in_state(client, "exited")
    assert text(other, "/etc/passwd").startswith("root:")
    assert len(_children_at_work(daemon)) == len(held)
    for connection in held:
        connection.close()
    wait_until(lambda: not _children_at_work(daemon))


def _asked(daemon: Daemon, path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(daemon.socket))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    return connection


def _children_at_work(daemon: Daemon) -> list[str]:
    """The worker's children, which have its name; the worker itself is the daemon's child."""
    assert daemon.process is not None
    found = []
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().partition(")")
            ours = str(daemon.exec_root).encode() in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if ours and name.endswith("(minidocker-work") and int(rest.split()[1]) != daemon.process.pid:
            found.append(entry.name)
    return found


def test_a_stopped_container_can_be_started_after_and_while_files_are_copied(client: docker.DockerClient) -> None:
    container = in_state(client, "exited")
    failures: list[Exception] = []

    def copy() -> None:
        try:
            for number in range(10):
                container.put_archive("/tmp", tree((f"f{number}", "x")))
        except Exception as error:
            failures.append(error)

    copying = threading.Thread(target=copy)
    copying.start()
    container.start()
    copying.join()
    assert failures == []
    assert container.exec_run("ls /tmp").output.split() == [f"f{n}".encode() for n in range(10)]


def test_events_tell_of_copies(client: docker.DockerClient) -> None:
    container = in_state(client, "created")
    container.put_archive("/tmp", tree(("f", "x")))
    text(container, "/tmp/f")
    events = client.events(since=1, until=int(time.time()) + 1, filters={"container": container.id}, decode=True)
    assert [event["Action"] for event in events if event["Action"] != "create"] == ["extract-to-dir", "archive-path"]


def test_the_stock_command_copies_both_ways(daemon: Daemon, client: docker.DockerClient, tmp_path: Path) -> None:
    container = in_state(client, "running", name="cp-stock")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("x")
    (source / "link").symlink_to("sub/file")
    for operands in ([f"{source}", "cp-stock:/tmp"], [f"{source}", "cp-stock:/new"], [f"{source}/.", "cp-stock:/mnt"]):
        done = daemon.cli("cp", *operands)
        assert (done.returncode, done.stderr) == (0, "")
    shown = container.exec_run("cat /tmp/source/sub/file /new/link /mnt/sub/file").output
    assert shown == b"xxx"
    for operands in (["cp-stock:/new", f"{tmp_path}"], ["cp-stock:/new/.", f"{tmp_path}/again"],
                     ["-L", "cp-stock:/new/link", f"{tmp_path}/followed"]):  # fmt: skip
        done = daemon.cli("cp", *operands)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "new/sub/file").read_text() == (tmp_path / "again/link").read_text() == "x"
    assert (tmp_path / "followed").read_text() == "x"
    assert not (tmp_path / "followed").is_symlink()
