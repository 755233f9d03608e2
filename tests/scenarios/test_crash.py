"""Kill -9 of the daemon and of all that belongs to it: what lives goes on, what ended is told, nothing stays behind."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import requests

from minidocker.network.host import names

from .conftest import Daemon, make_daemon, wait_until
from .image_archive import archive

COUNT = "i=0; while :; do echo line $i; i=$((i+1)); usleep 2000; done"
GONE = (docker.errors.DockerException, requests.RequestException, OSError, ValueError)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def pids(daemon: Daemon, name: str) -> list[int]:
    """The daemon's processes of that name; forks of the launcher have its name in their argv, too."""
    return [int(e.split()[1].rstrip(":")) for e in daemon.leftovers() if f": {name} " in e]


def groups(daemon: Daemon) -> set[str]:
    """The control groups below this daemon's parent, in any tree."""
    parent = "minidocker-" + names(daemon.exec_root).table.rpartition("-")[2]
    return {path.name for path in Path("/sys/fs/cgroup").glob(f"*/{parent}/*") if path.is_dir()} | {
        path.name for path in Path("/sys/fs/cgroup").glob(f"{parent}/*") if path.is_dir()
    }


def listing(directory: Path) -> set[str]:
    return set(os.listdir(directory)) if directory.is_dir() else set()


def blobs_needed(daemon: Daemon) -> set[str]:
    index = json.loads((daemon.data_root / "images.json").read_text())
    digests = set(index["images"])
    for image in index["images"].values():
        digests |= {layer["digest"] for layer in image.get("layers", [])} | {image.get("manifest")}
    return {digest.removeprefix("sha256:") for digest in digests if digest}


def leftovers(daemon: Daemon) -> dict[str, object]:
    """What is there of containers, execs and images that no listing shows; empty values: nothing."""
    api = daemon.client("1.44").api
    listed = {c["Id"]: c for c in api.containers(all=True)}
    living = {id for id, c in listed.items() if c["State"] in ("running", "paused")}
    execs = {exec_id for id in living for exec_id in api.inspect_container(id)["ExecIDs"] or []}
    data, runs = daemon.data_root, daemon.exec_root
    owned = {m["Name"] for id in listed for m in api.inspect_container(id)["Mounts"] if m["Type"] == "volume"}
    launchers = pids(daemon, "minidocker-launcher")
    return {
        "containers": listing(data / "containers") ^ set(listed),
        "runtime": listing(runs / "containers") ^ living,
        "execs": listing(runs / "execs") - execs,
        "groups": groups(daemon) ^ living,
        "blobs": listing(data / "blobs" / "sha256") ^ blobs_needed(daemon),
        "partial": listing(data / "blobs" / "partial"),
        "staged": listing(data / "layers" / "staged"),
        "volumes": {name for name in listing(data / "volumes") if len(name) == 64} - owned,
        "mounts": [line for line in daemon.leftovers() if not line.startswith("process")],
        "processes": launchers if len(launchers) > 1 + len(living) + len(execs) else [],
    }


def clean(daemon: Daemon) -> bool:
    return not any(leftovers(daemon).values())


def check_clean(daemon: Daemon) -> None:
    """Fails with what is left, after the time that background removals may take."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: clean(daemon), 10)
    assert {what: left for what, left in leftovers(daemon).items() if left} == {}


def numbers(log: bytes) -> list[int]:
    return [int(line.split()[1]) for line in log.splitlines()]


def test_containers_live_on_and_the_next_daemon_has_them(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    client.containers.run("busybox", "sleep 1000", detach=True, name="lives")
    client.containers.run("busybox", ["sh", "-c", "sleep 0.5; exit 7"], detach=True, name="ends")
    client.containers.run("busybox", "sleep 0.5", detach=True, name="temporary", remove=True)
    before = client.containers.get("lives").attrs["State"]
    own_daemon.end(signal.SIGKILL)
    subprocess.run(["sleep", "1"], check=True)
    own_daemon.start()
    client = own_daemon.client()
    lives, ends = client.containers.get("lives"), client.containers.get("ends")
    assert (lives.status, lives.attrs["State"]["Pid"]) == ("running", before["Pid"])
    assert lives.attrs["State"]["StartedAt"] == before["StartedAt"]
    assert (ends.status, ends.attrs["State"]["ExitCode"]) == ("exited", 7)
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("temporary")
    assert lives.exec_run("echo still here").output == b"still here\n"
    client.containers.run("busybox", "true", name="temporary", remove=True)
    lives.stop(timeout=0)
    assert client.containers.get("lives").attrs["State"]["ExitCode"] == 137


def test_a_running_exec_is_known_to_the_next_daemon(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    made = client.api.exec_create(container.id, ["sh", "-c", "sleep 2; exit 4"])
    client.api.exec_start(made["Id"], detach=True)
    own_daemon.restart(signal.SIGKILL)
    client = own_daemon.client()
    assert client.api.exec_inspect(made["Id"])["Running"] is True
    wait_until(lambda: not client.api.exec_inspect(made["Id"])["Running"])
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 4


def test_wait_and_attach_work_on_an_adopted_container(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = client.containers.run("busybox", "cat", detach=True, stdin_open=True, tty=True)
    own_daemon.restart(signal.SIGKILL)
    container = own_daemon.client().containers.get(container.id)
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    sock._sock.sendall(b"again\n")
    seen = b""
    while b"again\r\nagain\r\n" not in seen:
        seen += sock._sock.recv(4096)
    sock._sock.sendall(b"\x04")
    assert container.wait()["StatusCode"] == 0


def test_sigterm_leaves_containers_running_by_default(own_daemon: Daemon) -> None:
    container = own_daemon.client().containers.run("busybox", "sleep 1000", detach=True)
    assert own_daemon.end() == 0
    own_daemon.start()
    assert own_daemon.client().containers.get(container.id).status == "running"


def test_a_dead_launcher_is_started_again(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    client.containers.run("busybox", "true", remove=True)
    for entry in own_daemon.leftovers():
        if "minidocker-launcher" in entry:
            subprocess.run(["kill", "-9", entry.split()[1].rstrip(":")], check=True)
    assert client.containers.run("busybox", "echo again", remove=True) == b"again\n"


@pytest.fixture
def stopping_daemon(image_root: object) -> Iterator[Daemon]:
    yield from make_daemon(image_root, ["--bridge", "none", "--live-restore=false"])  # type: ignore[arg-type]


def test_without_live_restore_sigterm_stops_them(stopping_daemon: Daemon) -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    container = stopping_daemon.client().containers.run("busybox", ["sh", "-c", script], detach=True)
    wait_until(lambda: container.logs() == b"ready\n")
    assert stopping_daemon.end() == 0
    assert not stopping_daemon.leftovers()
    stopping_daemon.start()
    state = stopping_daemon.client().containers.get(container.id).attrs["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 5)


def test_two_daemons_on_one_root_are_refused(own_daemon: Daemon) -> None:
    second = subprocess.run(
        [*own_daemon.command("--pidfile", f"{own_daemon.root}/second.pid"), "-H", f"unix://{own_daemon.root}/second.sock"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "already" in second.stderr or "in use" in second.stderr


def test_tcp_without_tls_is_refused(own_daemon: Daemon) -> None:
    for address, flag in (("tcp://0.0.0.0:0", "--tlsverify=false"), ("tcp://127.0.0.1:0", "--tlsverify=")):
        command = [word for word in own_daemon.command() if word != "-H" and not word.startswith("unix:")]
        flags = ["-H", address] + ([flag] if flag.endswith("false") else [])
        done = subprocess.run(
            [*command, "--pidfile", f"{own_daemon.root}/t.pid", *flags],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert "would give everyone who reaches it root" in done.stderr


def test_the_socket_is_closed_to_others(own_daemon: Daemon) -> None:
    assert own_daemon.socket.stat().st_mode & 0o777 == 0o660


# -- streams of an earlier daemon, with the next one --


def test_a_running_logs_f_ends_and_the_next_daemon_continues_without_a_gap(own_daemon: Daemon) -> None:
    container = own_daemon.client().containers.run("busybox", ["sh", "-c", COUNT], detach=True)
    seen: list[bytes] = []

    def follow() -> None:
        with contextlib.suppress(*GONE):
            seen.extend(container.logs(stream=True, follow=True))

    follower = threading.Thread(target=follow)
    follower.start()
    wait_until(lambda: len(seen) > 50)
    own_daemon.end(signal.SIGKILL)
    follower.join(10)
    assert not follower.is_alive()
    own_daemon.start()
    again = own_daemon.client().containers.get(container.id)
    stream = again.logs(stream=True, follow=True)
    after = b""
    while after.count(b"\n") < len(seen) + 200:
        after += next(stream)
    whole = numbers(after[: after.rindex(b"\n") + 1])
    assert whole == list(range(len(whole)))
    assert b"".join(seen)[:-20] == after[: len(b"".join(seen)) - 20]


def test_an_attached_exec_goes_on_and_can_be_asked_for_its_end(own_daemon: Daemon) -> None:
    api = own_daemon.client().api
    container = own_daemon.client().containers.run("busybox", "sleep 1000", detach=True)
    made = api.exec_create(container.id, ["sh", "-c", "while ! [ -e /go ]; do usleep 10000; done; touch /done; exit 9"])
    sock = api.exec_start(made["Id"], socket=True)
    wait_until(lambda: api.exec_inspect(made["Id"])["Running"])
    own_daemon.restart(signal.SIGKILL)
    assert sock._sock.recv(100) == b""  # the stream ended with its daemon
    container = own_daemon.client().containers.get(container.id)
    assert own_daemon.client().api.exec_inspect(made["Id"])["Running"] is True
    container.exec_run("touch /go")
    wait_until(lambda: container.exec_run("test -e /done").exit_code == 0)
    wait_until(lambda: own_daemon.client().api.exec_inspect(made["Id"])["ExitCode"] == 9)
    check_clean(own_daemon)


def test_rm_of_one_that_runs_on_and_wait_for_it(own_daemon: Daemon) -> None:
    run = {"detach": True, "remove": True, "stdin_open": True}
    container = own_daemon.client().containers.run("busybox", ["sh", "-c", "read x; exit 6"], **run)
    own_daemon.restart(signal.SIGKILL)
    client = own_daemon.client()
    container = client.containers.get(container.id)
    codes: list[int] = []
    waits = [
        threading.Thread(target=lambda c=c: codes.append(container.wait(condition=c)["StatusCode"]))
        for c in ("not-running", "next-exit", "removed")
    ]
    for wait in waits:
        wait.start()
    sock = container.attach_socket(params={"stdin": 1, "stream": 1})
    wait_until(lambda: own_daemon.client().containers.get(container.id).status == "running")
    sock._sock.sendall(b"end\n")
    for wait in waits:
        wait.join(20)
    assert codes == [6, 6, 6]
    assert client.containers.list(all=True) == []
    client.containers.run("busybox", "true", name=container.name, remove=True)
    check_clean(own_daemon)


def test_restart_policies_are_kept_by_the_next_daemon(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    always = {"detach": True, "restart_policy": {"Name": "always"}}
    client.containers.run("busybox", "sleep 0.3", name="ends", **always)
    client.containers.run("busybox", "sleep 1000", name="stopped", **always).stop(timeout=0)
    own_daemon.end(signal.SIGKILL)
    subprocess.run(["sleep", "0.5"], check=True)  # it ends while nobody looks
    own_daemon.start()
    client = own_daemon.client()
    wait_until(lambda: client.containers.get("ends").status == "running")
    assert client.containers.get("stopped").status in ("running", "restarting")  # as Docker: always is always


# -- each of the daemon's processes dies --


def test_a_dead_monitor_takes_its_container_along(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    container = client.containers.run("busybox", ["sh", "-c", "sleep 999 & sleep 1000"], detach=True, name="dies")
    pid = container.attrs["State"]["Pid"] or own_daemon.client().containers.get("dies").attrs["State"]["Pid"]
    kill(parent_of(pid))
    assert container.wait()["StatusCode"] == 137
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    container.reload()
    assert "monitor" in container.attrs["State"]["Error"]
    container.start()
    container.reload()
    assert container.status == "running"
    container.remove(force=True)
    check_clean(own_daemon)


def test_a_dead_monitor_of_an_exec_ends_that_exec_alone(own_daemon: Daemon) -> None:
    api = own_daemon.client().api
    container = own_daemon.client().containers.run("busybox", "sleep 1000", detach=True)
    made = api.exec_create(container.id, "sleep 1000")
    sock = api.exec_start(made["Id"], socket=True)
    wait_until(lambda: api.exec_inspect(made["Id"])["Running"])
    pid = api.exec_inspect(made["Id"])["Pid"]
    kill(parent_of(pid))
    assert sock._sock.recv(100) == b""
    wait_until(lambda: api.exec_inspect(made["Id"])["ExitCode"] == 137)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert container.exec_run("echo fine").output == b"fine\n"
    check_clean(own_daemon)


def test_monitors_that_die_while_no_daemon_looks(own_daemon: Daemon) -> None:
    client = own_daemon.client()
    for name, more in (("stays", {}), ("temporary", {"remove": True})):
        client.containers.run("busybox", "sleep 1000", detach=True, name=name, **more)
    victims = [client.containers.get(name).attrs["State"]["Pid"] for name in ("stays", "temporary")]
    own_daemon.end(signal.SIGKILL)
    for pid in victims:
        kill(parent_of(pid))
    own_daemon.start()
    client = own_daemon.client()
    assert [c.name for c in client.containers.list(all=True)] == ["stays"]
    assert client.containers.get("stays").attrs["State"]["ExitCode"] == 137
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in victims))
    client.containers.get("stays").start()
    client.containers.get("stays").remove(force=True)
    check_clean(own_daemon)


def test_pid_1_killed_from_outside_is_an_exit(own_daemon: Daemon) -> None:
    container = own_daemon.client().containers.run("busybox", "sleep 1000", detach=True, remove=True)
    container.reload()
    kill(container.attrs["State"]["Pid"])
    wait_until(lambda: own_daemon.client().containers.list(all=True, ignore_removed=True) == [])
    check_clean(own_daemon)


def test_starts_survive_a_launcher_that_keeps_dying(own_daemon: Daemon) -> None:
    stop = threading.Event()

    def hunt() -> None:
        while not stop.wait(0.15):
            for pid in pids(own_daemon, "minidocker-launcher"):
                with contextlib.suppress(OSError, IndexError):
                    if own_daemon.process is not None and parent_of(pid) == own_daemon.process.pid:
                        kill(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    client = own_daemon.client()
    outcomes = []
    try:
        for number in range(150):  # on a busy machine many a start takes longer than a launcher lives here
            if number >= 15 and outcomes.count(0) >= 5:
                break
            container = client.containers.create("busybox", "true")
            try:
                container.start()
                outcomes.append(container.wait()["StatusCode"])
            except docker.errors.APIError as error:
                assert "launcher" in str(error) or "ended" in str(error)
            container.remove(force=True)
    finally:
        stop.set()
        hunter.join()
    assert outcomes.count(0) >= 5
    assert client.containers.run("busybox", "echo fine", remove=True) == b"fine\n"
    check_clean(own_daemon)


def test_a_dead_worker_fails_its_load_and_leaves_nothing(own_daemon: Daemon) -> None:
    content, client = archive("worker:1", 24 << 20, 400), own_daemon.client()
    failure: list[str] = []

    def load() -> None:
        answer = client.api._post(client.api._url("/images/load"), data=content)
        failure.append(answer.text)

    loading = threading.Thread(target=load)
    loading.start()
    wait_until(lambda: listing(own_daemon.data_root / "layers" / "staged") or failure)
    for pid in pids(own_daemon, "minidocker-worker"):
        kill(pid)
    loading.join(20)
    if "Loaded image" not in failure[0]:  # the kill came in time
        assert "worker" in failure[0]
        assert [image.tags for image in client.images.list()] == [["busybox:latest"]]
        check_clean(own_daemon)
    client.images.load(content)
    assert client.images.get("worker:1").tags == ["worker:1"]


# -- random moments --


class Client(threading.Thread):
    """Does one thing again and again until its daemon is gone; a failure of any other kind is kept."""

    def __init__(self, daemon: Daemon, what: Callable[[docker.DockerClient, int], object]) -> None:
        super().__init__(daemon=True)
        self.server, self.what, self.stopping, self.failures = daemon, what, False, list[str]()

    def run(self) -> None:
        for number in range(10_000):
            if self.stopping:
                return
            try:
                client = docker.DockerClient(base_url=self.server.url, version="1.44", timeout=20)
                self.what(client, number)
                client.close()
            except docker.errors.APIError as error:
                if error.response is not None and error.response.status_code >= 500 and not self.stopping:
                    self.failures.append(f"{self.what.__name__}: {error}")
            except GONE:
                self.stopping = True


def lives(client: docker.DockerClient, number: int) -> None:
    container = client.containers.create("busybox", "sleep 1000", name=f"life{number % 3}", volumes=["/anonymous"])
    container.start()
    if number % 2:
        container.stop(timeout=0)
    container.remove(force=True, v=True)


def temporaries(client: docker.DockerClient, number: int) -> None:
    client.containers.run("busybox", f"sleep 0.{number % 4}", detach=True, remove=True)


def execs(client: docker.DockerClient, number: int) -> None:
    client.containers.get("keeper").exec_run(f"sleep 0.0{number % 9}", detach=bool(number % 2))


def renames(client: docker.DockerClient, number: int) -> None:
    container = client.containers.create("busybox", "true", name=f"old{number % 2}")
    container.rename(f"new{number % 2}")
    container.remove()


def readers(client: docker.DockerClient, number: int) -> None:
    for _ in client.containers.get("keeper").logs(stream=True, follow=True, tail=2):
        pass


def tags(client: docker.DockerClient, number: int) -> None:
    client.images.get("busybox").tag("tagged", str(number % 3))
    client.images.remove(f"tagged:{number % 3}")


def loads(client: docker.DockerClient, number: int) -> None:
    name = f"load{number % 2}:1"
    client.images.load(archive(name, 4 << 20, 100))
    if number % 2:
        client.images.remove(name, force=True)


WORK = (lives, temporaries, execs, renames, readers, tags, loads)


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_at_a_random_moment(own_daemon: Daemon, seed: int) -> None:
    moment = random.Random(seed)
    client = own_daemon.client()
    client.containers.run("busybox", ["sh", "-c", COUNT], detach=True, name="keeper")
    clients = [Client(own_daemon, what) for what in moment.sample(WORK, 5)]
    for one in clients:
        one.start()
    subprocess.run(["sleep", str(moment.uniform(0.1, 1.5))], check=True)
    for one in clients:
        one.stopping = True
    own_daemon.end(signal.SIGKILL)
    for one in clients:
        one.join(25)
    own_daemon.start()
    assert [failure for one in clients for failure in one.failures] == []
    client = own_daemon.client()
    wait_until(lambda: len([c for c in client.containers.list(all=True) if c.attrs["HostConfig"]["AutoRemove"]]) == 0)
    check_clean(own_daemon)
    whole = numbers(client.containers.get("keeper").logs())
    assert len(whole) > 10 and whole == list(range(len(whole)))
    for image in client.images.list():
        image.tag("probe", "1")
        own_daemon.cli("image", "save", "-o", "/dev/null", image.id)
    for container in client.containers.list(all=True):
        if container.name != "keeper":
            container.start()
            container.remove(force=True, v=True)
            client.containers.create("busybox", "true", name=container.name).remove()
    check_clean(own_daemon)
    assert "Traceback" not in own_daemon.log()


@contextlib.contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """The daemon and the workers that unpack for it stand still."""
    assert daemon.process is not None
    frozen = [daemon.process.pid, *pids(daemon, "minidocker-worker")]
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    yield
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_the_store_as_a_power_cut_would_leave_it_opens(own_daemon: Daemon, tmp_path: Path) -> None:
    """Copies of the data root, taken while images come and go, are opened by daemons of their own."""
    clients = [Client(own_daemon, what) for what in (loads, tags, lives)]
    for one in clients:
        one.start()
    copies = []
    for number in range(4):
        subprocess.run(["sleep", "0.3"], check=True)
        copy = tmp_path / f"c{number}"
        copy.mkdir()
        with stopped(own_daemon):  # so that the copy is of one moment
            subprocess.run(["cp", "-a", own_daemon.data_root, copy / "data"], check=True)
        copies.append(copy)
    for one in clients:
        one.stopping = True
    for one in clients:
        one.join(20)
    assert [failure for one in clients for failure in one.failures] == []
    for copy in copies:
        other = Daemon(copy, ["--bridge", "none"])
        other.start()
        try:
            client = other.client()
            assert client.containers.run("busybox", "echo whole", remove=True) == b"whole\n"
            for image in client.images.list():
                assert image.attrs["RootFS"]["Layers"]
            other.remove_all()
            check_clean(other)
        finally:
            other.end()
        wait_until(lambda other=other: not other.leftovers())
        shutil.rmtree(copy)
