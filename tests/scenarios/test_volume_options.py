"""Volumes of the local driver that are mounted at their first use: what the kernel says, inside and outside."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import requests
from docker.models.containers import Container

from minidocker.linux.mounts import mountinfo

from .conftest import Daemon, wait_until

TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,mode=0700"}
SLEEP = ["sleep", "1000"]


@pytest.fixture(autouse=True)
def no_volumes_left(daemon: Daemon, client: docker.DockerClient) -> Iterator[None]:
    yield
    daemon.remove_all()
    for volume in client.volumes.list():
        volume.remove()


def place(daemon: Daemon, name: str) -> str:
    return str(daemon.data_root / "volumes" / name / "_data")


def mounted(daemon: Daemon, name: str) -> list[str]:
    """What is mounted on a volume, as the host sees it."""
    return [mount.fstype for mount in mountinfo() if mount.mount_point == place(daemon, name)]


def inside(container: Container, destination: str) -> str:
    """A container's own line of mountinfo."""
    lines = container.exec_run(["cat", "/proc/self/mountinfo"]).output.decode().splitlines()
    return next(line for line in lines if line.split()[4] == destination)


def test_a_tmpfs_is_there_from_the_first_user_to_the_last(daemon: Daemon, client: docker.DockerClient) -> None:
    volume = client.volumes.create("vt", driver="local", driver_opts=TMPFS)
    assert volume.attrs["Options"] == TMPFS
    assert mounted(daemon, "vt") == []
    first = client.containers.run("busybox", SLEEP, volumes=["vt:/x"], detach=True)
    assert mounted(daemon, "vt") == ["tmpfs"]
    line = inside(first, "/x")
    assert " - tmpfs tmpfs " in line and "size=1024k" in line and "uid=1000" in line
    assert first.exec_run(["stat", "-c", "%u %a", "/x"]).output == b"1000 700\n"
    second = client.containers.run("busybox", SLEEP, volumes=["vt:/y:ro"], detach=True)
    first.exec_run(["sh", "-c", "echo shared > /x/file"])
    assert second.exec_run(["cat", "/y/file"]).output == b"shared\n"
    full = first.exec_run(["dd", "if=/dev/zero", "of=/x/big", "bs=1M", "count=2"])
    assert b"No space left" in full.output
    first.kill()
    first.wait()
    assert mounted(daemon, "vt") == ["tmpfs"]
    assert second.exec_run(["cat", "/y/file"]).output == b"shared\n"
    second.kill()
    second.wait()
    assert mounted(daemon, "vt") == []
    third = client.containers.run("busybox", ["ls", "/x"], volumes=["vt:/x"], remove=True)
    assert third == b""
    assert mounted(daemon, "vt") == []


def test_a_directory_of_the_host_is_bound_and_survives_the_volume(
    daemon: Daemon, client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("of the host\n")
    client.volumes.create("vb", driver_opts={"type": "none", "device": str(tmp_path), "o": "bind"})
    assert client.containers.run("busybox", ["cat", "/x/kept"], volumes=["vb:/x"], remove=True) == b"of the host\n"
    client.volumes.create("vr", driver_opts={"type": "none", "device": str(tmp_path), "o": "bind,ro"})
    told = daemon.cli("run", "--rm", "-v", "vr:/x", "busybox", "touch", "/x/new")
    assert "Read-only file system" in told.stderr
    daemon.remove_all()
    subprocess.run(["mount", "--bind", str(tmp_path), place(daemon, "vb")], check=True)  # as a crash may leave it
    client.volumes.get("vb").remove()
    client.volumes.get("vr").remove()
    assert (tmp_path / "kept").read_text() == "of the host\n"
    assert mounted(daemon, "vb") == []


def test_any_filesystem_of_the_kernel_can_be_mounted(
    client: docker.DockerClient, daemon: Daemon, tmp_path: Path
) -> None:
    for name in ("low", "up", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/file").write_text("below\n")
    words = f"lowerdir={tmp_path}/low,upperdir={tmp_path}/up,workdir={tmp_path}/work"
    client.volumes.create("vo", driver_opts={"type": "overlay", "device": "overlay", "o": words})
    command = ["sh", "-c", "cat /x/file; echo changed > /x/file; grep ' /x ' /proc/self/mountinfo"]
    seen = client.containers.run("busybox", command, volumes=["vo:/x"], remove=True).decode()
    assert seen.startswith("below\n") and " - overlay overlay " in seen
    assert (tmp_path / "up/file").read_text() == "changed\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "none", "device": "/nope", "o": "bind"}, "mount /nope:{}, flags: 0x1000: no such file or directory"),
        ({"type": "strangefs", "device": "x", "o": "zzz=1"}, "mount x:{}, data: zzz=1: no such device"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=bad"}, "mount tmpfs:{}, data: size=bad: invalid argument"),
    ],
)
def test_what_cannot_be_mounted_is_told_in_dockers_words(
    daemon: Daemon, client: docker.DockerClient, options: dict[str, str], words: str
) -> None:
    client.volumes.create("bad", driver_opts=options)
    told = daemon.cli("run", "--name", "one", "-v", "bad:/x:nocopy", "busybox", "true")
    where = place(daemon, "bad")
    expected = f"error while mounting volume '{where}': failed to mount local volume: {words.format(where)}"
    assert (told.returncode != 0, expected in told.stderr) == (True, True), told.stderr
    assert client.containers.get("one").attrs["State"]["Status"] == "created"
    assert mounted(daemon, "bad") == []


def test_a_name_as_address_of_nfs_is_looked_up(daemon: Daemon, client: docker.DockerClient) -> None:
    client.volumes.create("vn", driver_opts={"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"})
    told = daemon.cli("run", "--rm", "-v", "vn:/x:nocopy", "busybox", "true", timeout=60)
    assert "error resolving passed in network volume address: lookup no.such.host.invalid" in told.stderr
    client.volumes.create("vl", driver_opts={"type": "nfs", "device": ":/x", "o": "addr=localhost,nolock"})
    told = daemon.cli("run", "--rm", "-v", "vl:/x:nocopy", "busybox", "true", timeout=60)
    assert "data: addr=127.0.0.1,nolock" in told.stderr or "data: addr=::1,nolock" in told.stderr


def test_a_start_that_fails_leaves_nothing_mounted(daemon: Daemon, client: docker.DockerClient) -> None:
    client.volumes.create("vt", driver_opts=TMPFS)
    assert daemon.cli("run", "--rm", "-v", "vt:/x", "busybox", "/no/such/command").returncode == 127
    assert mounted(daemon, "vt") == []
    client.volumes.get("vt").remove()


def test_files_are_copied_into_the_volume_of_a_stopped_container(
    daemon: Daemon, client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "file").write_text("copied\n")
    client.volumes.create("vb", driver_opts={"type": "none", "device": str(tmp_path / "device"), "o": "bind"})
    client.containers.create("busybox", "true", name="stopped", volumes=["vb:/x"])
    assert daemon.cli("cp", str(tmp_path / "file"), "stopped:/x/").returncode == 0
    assert (tmp_path / "device/file").read_text() == "copied\n"
    assert mounted(daemon, "vb") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_users_are_counted_right_after_the_daemon_came_back(own_daemon: Daemon, number: int) -> None:
    client = own_daemon.client()
    client.volumes.create("vt", driver_opts=TMPFS)
    first, second = (client.containers.run("busybox", SLEEP, volumes=["vt:/x"], detach=True) for _ in range(2))
    first.exec_run(["touch", "/x/file"])
    own_daemon.restart(number)
    third = client.containers.run("busybox", ["ls", "/x"], volumes=["vt:/x"], remove=True)
    assert third == b"file\n"
    first.kill()
    first.wait()
    assert mounted(own_daemon, "vt") == ["tmpfs"]
    second.kill()
    second.wait()
    assert mounted(own_daemon, "vt") == []
    own_daemon.remove_all()
    client.volumes.get("vt").remove()
    client.close()


def test_a_mount_whose_users_ended_without_the_daemon_is_unmounted(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    client.volumes.create("vt", driver_opts=TMPFS)
    client.volumes.create("left", driver_opts=TMPFS)
    container = client.containers.run("busybox", SLEEP, volumes=["vt:/x"], detach=True)
    container.reload()
    pid = container.attrs["State"]["Pid"]
    own_daemon.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}/root/bin").exists())
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place(own_daemon, "left")], check=True)
    assert mounted(own_daemon, "vt") == ["tmpfs"]
    own_daemon.start()
    assert mounted(own_daemon, "vt") == mounted(own_daemon, "left") == []
    own_daemon.remove_all()
    for name in ("vt", "left"):
        client.volumes.get(name).remove()
    client.close()


def test_prune_and_disk_usage_leave_out_what_lies_elsewhere(daemon: Daemon, client: docker.DockerClient) -> None:
    client.volumes.create("vt", driver_opts=TMPFS)
    client.volumes.create("plain")
    assert [volume["Name"] for volume in client.df()["Volumes"]] == ["plain"]
    assert client.volumes.prune({"all": True})["VolumesDeleted"] == ["plain"]
    client.volumes.get("vt").remove()


def test_another_create_of_the_name_changes_nothing(client: docker.DockerClient) -> None:
    client.volumes.create("vt", driver_opts=TMPFS)
    assert client.volumes.create("vt", driver_opts={"type": "", "device": ""}).attrs["Options"] == TMPFS
    client.volumes.get("vt").remove()


def test_a_volume_cannot_be_updated_outside_of_a_cluster(daemon: Daemon, client: docker.DockerClient) -> None:
    client.volumes.create("plain")
    answer: requests.Response = client.api._put(client.api._url("/volumes/plain") + "?version=1", json={})
    assert (answer.status_code, "only valid for cluster volumes" in answer.json()["message"]) == (503, True)
    with docker.APIClient(base_url=daemon.url, version="1.41") as old:
        assert old._put(old._url("/volumes/plain") + "?version=1", json={}).status_code == 404


# -- subpath --

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def look(daemon: Daemon, client: docker.DockerClient) -> Run:
    """A volume with directories and links in it, and what a container sees in a part of it."""
    client.volumes.create("vv")
    make = "mkdir -p /v/a/b && echo deep > /v/a/b/file && ln -s a/b /v/inner && ln -s /etc /v/absolute && " \
           "ln -s ../../../../../../etc /v/outer && ln -s .. /v/a/up"  # fmt: skip
    client.containers.run("busybox", ["sh", "-c", make], volumes=["vv:/v"], remove=True)
    return lambda path: mount_part(daemon, path)


def mount_part(daemon: Daemon, path: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """By the API, without the checks that a client makes."""
    with docker.APIClient(base_url=daemon.url, version="1.44") as api:
        options = {"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": path}}
        body = {"Image": "busybox", "Cmd": list(command or ("ls", "/x")), "HostConfig": {"Mounts": [options]}}
        answer = api._post_json(api._url("/containers/create"), data=body)
        if answer.status_code != 201:
            return subprocess.CompletedProcess([], 125, "", answer.json()["message"])
        id = answer.json()["Id"]
        try:
            api.start(id)
        except docker.errors.APIError as error:
            return subprocess.CompletedProcess([], 125, "", str(error.explanation))
        code = api.wait(id)["StatusCode"]
        return subprocess.CompletedProcess([], code, api.logs(id).decode(), "")


def test_a_part_of_a_volume_is_seen_and_no_more(look: Run) -> None:
    assert look("a").stdout == "b\nup\n"
    assert look("a/b").stdout == "file\n"
    assert look("a/b/file").stdout == "/x\n"
    assert look("inner").stdout == "file\n"
    assert look("./a/../a/b/").stdout == "file\n"


@pytest.mark.parametrize("path", ["absolute", "outer", "absolute/passwd", "inner/../../../../../../etc"])
def test_no_link_leads_out_of_the_volume(look: Run, path: str) -> None:
    told = look(path)
    assert told.returncode == 125
    assert "leads out of the volume" in told.stderr or "must be a relative path" in told.stderr


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../.."])
def test_words_that_lead_out_are_refused_at_once(look: Run, path: str) -> None:
    told = look(path)
    assert (told.returncode, "subpath must be a relative path within the volume" in told.stderr) == (125, True)


def test_a_part_that_is_not_there_is_not_made(look: Run, daemon: Daemon) -> None:
    told = look("a/missing")
    assert f"cannot access path {place(daemon, 'vv')}/a/missing: no such file or directory" in told.stderr
    assert not (Path(place(daemon, "vv")) / "a/missing").exists()


def test_a_link_that_is_put_there_later_does_not_reach_the_host_by_cp(
    daemon: Daemon, client: docker.DockerClient, look: Run, tmp_path: Path
) -> None:
    options = {"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "a/b"}}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [options]}}
    answer = client.api._post_json(client.api._url("/containers/create"), data=body)
    id = answer.json()["Id"]
    assert daemon.cli("cp", f"{id}:/x/file", str(tmp_path)).returncode == 0
    target = Path(place(daemon, "vv")) / "a/b"
    target.rename(target.with_name("moved"))
    target.symlink_to(tmp_path)
    (tmp_path / "secret").write_text("of the host")
    told = daemon.cli("cp", f"{id}:/x/secret", "-")
    assert told.returncode != 0 and "of the host" not in told.stdout
    with pytest.raises(docker.errors.APIError, match="leads out of the volume"):
        client.api.start(id)
