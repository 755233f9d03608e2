"""`docker run` and its relatives by the stock docker CLI and docker-py, against a real daemon."""

import json
import subprocess
import threading
import time
from pathlib import Path

import docker
import pytest

from ..docker_oracle import CLI_VERSION
from .conftest import Daemon, make_daemon, wait_until


def test_output_and_exit_status_reach_the_cli(daemon: Daemon) -> None:
    done = daemon.cli("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_stdin_is_piped_and_its_end_is_seen(daemon: Daemon) -> None:
    payload = bytes(range(256)) * 4096
    done = subprocess.run(
        ["docker", "-H", daemon.url, "run", "-i", "--rm", "busybox", "cat"],
        input=payload, capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout == payload


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["busybox", "nonexist"], 127, "executable file not found"),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["busybox", "/etc"], 126 if CLI_VERSION >= 23 else 125, "is a directory"),
        (["-u", "nobodyx", "busybox", "true"], 125, "unable to find user nobodyx"),
        (["--cap-add", "FOO", "busybox", "true"], 125, "CAP_FOO"),
        (["-v", "/x:rel", "busybox", "true"], 125, "mount path must be absolute"),
        (["-m", "1m", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["--network", "nowhere", "busybox", "true"], 125, "network nowhere not found"),
        (["--mount", "type=bind,src=/nonexistent,dst=/x", "busybox", "true"], 125, "bind source path does not exist"),
    ],
)
def test_what_cannot_run_gives_dockers_status_and_words(
    daemon: Daemon, words: list[str], status: int, text: str
) -> None:
    done = daemon.cli("run", "--rm", *words)
    assert done.returncode == status
    assert text in done.stderr
    wait_until(lambda: daemon.cli("ps", "-aq").stdout == "")


def test_a_terminal_is_a_terminal_of_the_asked_size(daemon: Daemon) -> None:
    script = f"stty rows 33 cols 77; docker -H {daemon.url} run --rm -it busybox sh -c 'sleep 0.5; tty; stty size'"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"], capture_output=True, text=True, timeout=30, check=True
    )
    assert "/dev/pts/0" in done.stdout
    assert "33 77" in done.stdout


def test_detach_keys_leave_the_container_running(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", tty=True, stdin_open=True, name="detached")
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    sock._sock.sendall(b"typed\n")
    seen = b""
    while b"typed\r\ntyped\r\n" not in seen:
        seen += sock._sock.recv(4096)
    sock._sock.sendall(b"\x10\x11")
    while sock._sock.recv(4096):
        pass
    container.reload()
    assert container.status == "running"


def test_the_first_byte_of_an_attached_container_is_not_lost(client: docker.DockerClient) -> None:
    for number in range(10):
        container = client.containers.create("busybox", ["echo", f"line {number}"])
        stream = container.attach(stream=True, stdout=True)
        container.start()
        assert b"".join(stream) == f"line {number}\n".encode()


def test_wait_answers_by_its_condition(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "exit 5"])
    assert container.wait()["StatusCode"] == 0  # created: it is not running
    found = []
    waiter = threading.Thread(target=lambda: found.append(container.wait(condition="next-exit")["StatusCode"]))
    waiter.start()
    time.sleep(0.1)
    container.start()
    waiter.join(10)
    assert found == [5]
    removed = []
    remover = threading.Thread(target=lambda: removed.append(container.wait(condition="removed")["StatusCode"]))
    remover.start()
    time.sleep(0.1)
    assert not removed
    container.remove()
    remover.join(10)
    assert removed == [5]


def test_states_give_dockers_statuses(client: docker.DockerClient) -> None:
    api = client.api
    container = client.containers.run("busybox", "sleep 100", detach=True, name="states")
    url = f"{api.base_url}/v{api._version}/containers/{container.id}"
    assert api.post(f"{url}/start").status_code == 304
    assert api.delete(url).status_code == 409
    assert "Stop the container before attempting removal" in api.delete(url).json()["message"]
    assert api.post(f"{url}/pause").status_code == 204
    assert api.post(f"{url}/pause").status_code == 409
    assert api.post(f"{url}/exec", json={"Cmd": ["true"]}).status_code == 409
    assert api.post(f"{url}/unpause").status_code == 204
    assert api.post(f"{url}/stop?t=0").status_code == 204
    assert api.post(f"{url}/stop?t=0").status_code == 304
    assert api.post(f"{url}/kill").status_code == 409
    assert api.post(f"{api.base_url}/v1.41/containers/create?name=states", json={"Image": "busybox"}).status_code == 409
    assert api.get(f"{api.base_url}/v1.41/containers/nope/json").json() == {"message": "No such container: nope"}


def test_stop_sends_the_stop_signal_first(client: docker.DockerClient) -> None:
    script = "trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True, stop_signal="SIGUSR1")
    wait_until(lambda: container.logs() == b"ready\n")
    container.stop(timeout=20)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 42


def test_limits_and_identity_are_seen_inside(client: docker.DockerClient) -> None:
    script = (
        "ulimit -n; id -u; id -g; pwd; hostname; echo $MINE $FROM_IMAGE; cat /proc/sys/net/ipv4/ip_default_ttl; id -G"
    )
    out = client.containers.run(
        "busybox", ["sh", "-c", script], remove=True, user="student", working_dir="/made/here", hostname="inside",
        environment={"MINE": "1"}, sysctls={"net.ipv4.ip_default_ttl": "33"}, group_add=["wheel", "77"],
        ulimits=[docker.types.Ulimit(name="nofile", soft=123, hard=200)],
    )  # fmt: skip
    lines = out.decode().splitlines()
    assert lines[:7] == ["123", "1000", "1000", "/made/here", "inside", "1 yes", "33"]
    assert {"10", "77"} <= set(lines[7].split())


def test_out_of_memory_is_reported(client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "x=a; while :; do x=$x$x$x; done"], detach=True, mem_limit="16m", memswap_limit="16m"
    )
    assert container.wait()["StatusCode"] == 137
    container.reload()
    assert container.attrs["State"]["OOMKilled"] is True


def test_named_volume_is_filled_from_the_image_once_and_kept(daemon: Daemon) -> None:
    assert (
        daemon.cli("run", "--rm", "-v", "keep:/var/data", "busybox", "cat", "/var/data/seed").stdout
        == "from the image\n"
    )
    daemon.cli("run", "--rm", "-v", "keep:/var/data", "busybox", "sh", "-c", "echo mine > /var/data/seed")
    assert daemon.cli("run", "--rm", "-v", "keep:/var/data", "busybox", "cat", "/var/data/seed").stdout == "mine\n"
    assert daemon.cli("run", "--rm", "-v", "keep:/v:ro", "busybox", "touch", "/v/x").returncode == 1


def test_binds_and_tmpfs_are_mounted_as_asked(daemon: Daemon, tmp_path: object) -> None:
    done = daemon.cli(
        "run", "--rm", "-v", f"{tmp_path}/made:/b", "--tmpfs", "/t:size=1m,exec", "--read-only", "--shm-size", "8m",
        "busybox", "sh", "-c", "echo x > /b/file; touch /root/y; grep -E ' (/t|/dev/shm|/) ' /proc/mounts",
    )  # fmt: skip
    assert "Read-only file system" in done.stderr
    mounts = {line.split()[1]: line.split()[3].split(",") for line in done.stdout.splitlines()}
    assert "ro" in mounts["/"]
    assert "size=1024k" in mounts["/t"] and "noexec" not in mounts["/t"] and "nosuid" in mounts["/t"]
    assert "size=8192k" in mounts["/dev/shm"]


def test_auto_removed_containers_leave_nothing(daemon: Daemon) -> None:
    daemon.cli("run", "--rm", "-v", "/anonymous", "busybox", "true")
    wait_until(lambda: not list((daemon.data_root / "containers").iterdir()))
    assert not list((daemon.exec_root / "containers").iterdir())


def test_namespaces_are_shared_as_asked(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.run("busybox", "sleep 100", detach=True, name="owner")
    look = "for kind in net ipc pid uts; do readlink /proc/self/ns/$kind; done"
    owner = daemon.cli("exec", "owner", "sh", "-c", look).stdout.split()
    modes = ("--net", "container:owner", "--pid", "container:owner")
    joined = daemon.cli("run", "--rm", *modes, "busybox", "sh", "-c", look)
    found = joined.stdout.split()
    assert (found[0], found[2]) == (owner[0], owner[2])
    assert found[1] != owner[1] and found[3] != owner[3]


def test_what_is_not_supported_is_refused_and_what_nobody_knows_passed_over(client: docker.DockerClient) -> None:
    api = client.api
    url = f"{api.base_url}/v1.44/containers/create"
    for body, word in (
        ({"HostConfig": {"StorageOpt": {"size": "1G"}}}, "StorageOpt"),
        ({"HostConfig": {"SecurityOpt": ["what=ever"]}}, "security-opt"),
        ({"HostConfig": {"Sysctls": {"kernel.panic": "1"}}}, "kernel.panic"),
        ({"HostConfig": {"Memory": "much"}}, "Memory"),
    ):
        answer = api.post(url, json={"Image": "busybox", **body})
        assert answer.status_code == 400, answer.text
        assert word in answer.json()["message"]
    body = {"image": "busybox", "Flavour": "sweet", "HostConfig": {"SomethingNew": True, "cpushares": 7}}
    made = api.post(url, json=body)
    assert made.status_code == 201, made.text
    assert api.inspect_container(made.json()["Id"])["HostConfig"]["CpuShares"] == 7


def test_devices_of_a_driver_are_noted_and_refused_at_the_start(client: docker.DockerClient) -> None:
    wish = docker.types.DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu", "compute"], ["utility"]])
    container = client.containers.create("busybox", "true", device_requests=[wish])
    assert container.attrs["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu", "compute"], ["utility"]],
         "Options": {}}
    ]  # fmt: skip
    words = r'could not select device driver "nvidia" with capabilities: \[\[gpu compute\] \[utility\]\]'
    with pytest.raises(docker.errors.APIError, match=words):
        container.start()


def test_wait_tells_why_the_start_failed(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["nosuchprogram"])
    with pytest.raises(docker.errors.APIError):
        container.start()
    ended = container.wait()
    assert ended["StatusCode"] == 127
    assert '"nosuchprogram": executable file not found in $PATH' in ended["Error"]["Message"]


def test_joined_containers_are_noted_by_id_and_must_exist(client: docker.DockerClient) -> None:
    owner = client.containers.run("busybox", "sleep 100", detach=True, name="owner")
    joined = client.containers.create("busybox", "true", pid_mode="container:owner")
    assert joined.attrs["HostConfig"]["PidMode"] == f"container:{owner.id}"
    owner.rename("other")
    joined.start()
    assert joined.wait()["StatusCode"] == 0
    for mode in ("pid_mode", "ipc_mode"):
        with pytest.raises(docker.errors.APIError, match="No such container: nobody"):
            client.containers.create("busybox", "true", **{mode: "container:nobody"})


def test_exec_runs_with_its_own_user_directory_and_environment(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 100", detach=True)
    code, out = container.exec_run(
        ["sh", "-c", "id -u; pwd; echo $X; exit 9"], user="student", workdir="/tmp", environment=["X=7"]
    )
    assert (code, out) == (9, b"1000\n/tmp\n7\n")
    code, streams = container.exec_run(["sh", "-c", "echo a; echo b >&2"], demux=True)
    assert streams == (b"a\n", b"b\n")


def test_exec_of_what_is_not_there_says_so(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.run("busybox", "sleep 100", detach=True, name="ex")
    done = daemon.cli("exec", "ex", "nonexist")
    assert done.returncode == (127 if CLI_VERSION >= 23 else 126)  # by the version of the API that it speaks
    assert "executable file not found" in done.stdout + done.stderr
    for version, code in (("1.41", 126), ("1.44", 127)):
        api = daemon.client(version).api
        made = api.exec_create("ex", ["nonexist"])
        api.exec_start(made["Id"])
        assert api.exec_inspect(made["Id"])["ExitCode"] == code
        api.close()


def test_an_exec_runs_once_and_its_refusal_is_in_the_stream(client: docker.DockerClient) -> None:
    api, container = client.api, client.containers.run("busybox", "sleep 100", detach=True)
    once = api.exec_create(container.id, ["echo", "once"])["Id"]
    assert api.exec_start(once) == b"once\n"
    assert api.exec_start(once) == f"Error: Exec command {once} has already run\r\n".encode()
    with pytest.raises(docker.errors.APIError) as refused:
        api.exec_start(once, detach=True)
    assert refused.value.status_code == 409
    stranger = api.exec_create(container.id, ["true"], user="nobody-knows")["Id"]
    assert api.exec_start(stranger) == b"unable to find user nobody-knows: no matching entries in passwd file\r\n"


def test_exec_exit_code_is_final_when_the_stream_ends(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 100", detach=True)
    for code in range(10):
        made = client.api.exec_create(container.id, ["sh", "-c", f"exit {code}"])
        client.api.exec_start(made["Id"])
        assert client.api.exec_inspect(made["Id"])["ExitCode"] == code


def test_top_shows_the_containers_processes_only(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 100", detach=True)
    table = container.top()
    assert [row[-1] for row in table["Processes"]] == ["sleep 100"]
    assert table["Titles"][-1] == "CMD"


def test_list_filters_and_shapes(client: docker.DockerClient) -> None:
    client.containers.run("busybox", "sleep 100", detach=True, name="first", labels={"a": "1"})
    client.containers.run("busybox", "true", detach=True, name="second", labels={"a": "2"}).wait()
    names = lambda **query: sorted(c.name for c in client.containers.list(**query))  # noqa: E731
    assert names() == ["first"]
    assert names(all=True) == ["first", "second"]
    assert names(all=True, filters={"label": "a=2"}) == ["second"]
    assert names(all=True, filters={"status": "exited"}) == ["second"]
    assert names(all=True, filters={"exited": "0"}) == ["second"]
    assert names(filters={"name": "fir"}) == ["first"]
    assert names(all=True, filters={"since": "first"}) == ["second"]
    assert names(all=True, filters={"ancestor": "busybox"}) == ["first", "second"]
    assert names(limit=1) == ["second"]
    with pytest.raises(docker.errors.APIError, match="invalid filter"):
        names(filters={"colour": "red"})


def test_events_tell_the_life_of_a_container(client: docker.DockerClient) -> None:
    since = int(time.time())
    container = client.containers.run("busybox", "true", detach=True, name="told")
    container.wait()
    container.remove()
    events = list(client.events(since=since, until=int(time.time()) + 1, decode=True, filters={"container": "told"}))
    actions = [event["Action"] for event in events]
    assert actions == ["create", "start", "die", "destroy"]
    assert events[2]["Actor"]["Attributes"]["exitCode"] == "0"


def test_prune_removes_what_is_stopped(client: docker.DockerClient) -> None:
    client.containers.run("busybox", "sleep 100", detach=True, name="stays")
    stopped = client.containers.run("busybox", "true", detach=True)
    stopped.wait()
    assert client.containers.prune()["ContainersDeleted"] == [stopped.id]
    assert [c.name for c in client.containers.list(all=True)] == ["stays"]


def test_restart_policy_starts_it_again(client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "exit 1"], detach=True, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}
    )

    def given_up() -> bool:
        container.reload()
        return container.attrs["RestartCount"] == 2 and container.status == "exited"

    wait_until(given_up)


@pytest.mark.parametrize("version", ["1.24", "1.41", "1.44"])
def test_docker_py_works_at_each_version(daemon: Daemon, version: str) -> None:
    client = daemon.client(version)
    assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    client.close()


def test_inspect_is_what_the_cli_formats(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "seen", "-e", "K=v", "--memory", "32m", "busybox", "sleep", "100")
    document = json.loads(daemon.cli("inspect", "seen").stdout)[0]
    assert document["Name"] == "/seen"
    assert document["Config"]["Env"] == ["K=v", "PATH=/bin", "FROM_IMAGE=yes"]
    assert document["HostConfig"]["Memory"] == 32 << 20
    assert document["HostConfig"]["MemorySwap"] == 64 << 20
    assert document["State"]["Status"] == "running"
    assert document["Path"] == "sleep" and document["Args"] == ["100"]


class _InTheBackground(Daemon):
    """A daemon that a script started with `&` or nohup: the shell had it ignore these signals."""

    def command(self, *more: str) -> list[str]:
        return ["sh", "-c", "trap '' INT QUIT HUP; exec \"$@\"", "sh", *super().command(*more)]


def test_a_daemon_in_the_background_ignores_signals_in_no_container(image_root: Path) -> None:
    for own in make_daemon(image_root, ["--bridge", "none"], _InTheBackground):
        client = own.client()
        script = "trap 'echo heard; exit 3' INT; grep SigIgn /proc/self/status; while :; do sleep 0.05; done"
        container = client.containers.run("busybox", ["sh", "-c", script], detach=True)
        wait_until(lambda container=container: b"SigIgn" in container.logs())
        assert container.exec_run(["grep", "SigIgn", "/proc/self/status"]).output.split()[1] == b"0" * 16
        container.kill("INT")
        assert container.wait(timeout=30)["StatusCode"] == 3
        assert container.logs().split() == [b"SigIgn:", b"0" * 16, b"heard"]
        client.close()


def test_a_container_has_dockers_mark_and_no_image_made_of_it(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "stat -c '%F %a %s' /.dockerenv"], detach=True)
    container.wait()
    assert container.logs() == b"regular empty file 755 0\n"
    assert container.diff() in (None, [])
    image = client.containers.create("busybox").commit("marked")
    assert len(image.attrs["RootFS"]["Layers"]) == 1
    client.images.remove("marked")
    from_export = daemon.cli("import", "-", "exported", stdin=b"".join(container.export()))
    assert from_export.returncode == 0
    again = client.containers.run("exported", ["true"], detach=True)
    again.wait()
    assert again.diff() in (None, [])
    again.remove()
    client.images.remove("exported")
