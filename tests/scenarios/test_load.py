"""Many at once, much output, readers that stop: everyone else goes on, nothing is lost, memory is bounded.

The figures are in benchmarks/load.py; here is what must be right whatever the machine's speed.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from .conftest import Daemon, wait_until

MIB = 1 << 20
GROWTH_MIB = 24  # what a stream of any length may cost


def memory_mib(pid: int) -> float:
    """Memory that is the process's own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def monitor_of(container: docker.models.containers.Container) -> int:
    container.reload()
    stat = Path(f"/proc/{container.attrs['State']['Pid']}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


@contextlib.contextmanager
def bounded(*pids: int) -> Iterator[None]:
    """Fails if one of the processes grows too much while the block runs."""
    before = {pid: memory_mib(pid) for pid in pids}
    peak, done = dict(before), threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for pid in pids:
                with contextlib.suppress(OSError):
                    peak[pid] = max(peak[pid], memory_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert all(peak[pid] - before[pid] < GROWTH_MIB for pid in pids), (before, peak)


def test_twenty_clients_create_start_log_and_remove_at_once(daemon: Daemon) -> None:
    failures: list[str] = []

    def one(number: int) -> None:
        try:
            client = daemon.client("1.44")
            for turn in range(3):
                word = f"{number}-{turn}"
                container = client.containers.run("busybox", ["echo", word], detach=True, name=f"box{word}")
                client.api.containers(all=True)
                assert container.wait()["StatusCode"] == 0
                assert container.logs().decode() == f"{word}\n"
                container.remove()
            client.close()
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert daemon.client().containers.list(all=True) == []


def test_a_hundred_megabytes_through_attach_and_logs_with_bounded_memory(daemon: Daemon) -> None:
    client, size = daemon.client("1.44"), 100 * 10**6
    script = f"read go; yes {'x' * 499} | head -c {size}"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True, stdin_open=True, tty=False)
    assert daemon.process is not None
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})._sock
    with bounded(daemon.process.pid, monitor_of(container)):
        sock.sendall(b"go\n")
        frames = Frames(sock)
        assert frames.payload_bytes() == size
    container.wait()
    with bounded(daemon.process.pid):
        answer = client.api._get(
            client.api._url("/containers/{0}/logs", container.id), params={"stdout": 1}, stream=True
        )
        assert Frames(answer.raw).payload_bytes() == size
    assert container.logs(tail=2) == b"x" * 499 + b"\n" + b"x" * 499 + b"\n"


class Frames:
    """Docker's frames from a socket or an HTTP answer; what they carry is only counted."""

    def __init__(self, source: object) -> None:
        self._take = source.recv if isinstance(source, socket.socket) else source.read1  # type: ignore[attr-defined]
        if not isinstance(source, socket.socket):
            self._take = lambda size: source.read(size)  # type: ignore[attr-defined]

    def payload_bytes(self) -> int:
        total, head, left = 0, b"", 0
        while piece := self._take(MIB):
            while piece:
                if left:
                    step = min(left, len(piece))
                    total, left, piece = total + step, left - step, piece[step:]
                    continue
                head, piece = (head + piece)[:8], piece[8 - len(head) :]
                if len(head) == 8:
                    head, left = b"", int.from_bytes(head[4:], "big")
        return total


@pytest.mark.parametrize("how", ["attach", "logs"])
def test_a_reader_that_stops_harms_nobody_else(daemon: Daemon, how: str) -> None:
    client = daemon.client("1.44")
    log = docker.types.LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"})
    flood = client.containers.run("busybox", ["yes", "y" * 200], detach=True, log_config=log)
    calm = client.containers.run(
        "busybox", ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done"], detach=True
    )
    assert daemon.process is not None
    with bounded(daemon.process.pid, monitor_of(flood)), stalled(daemon, flood.id, how):
        lines = calm.logs(stream=True, follow=True)
        seen = b""
        while seen.count(b"\n") < 200:
            seen += next(lines)
        numbers = [int(line) for line in seen.splitlines()]
        assert numbers == list(range(len(numbers)))
        assert client.containers.run("busybox", "echo others go on", remove=True) == b"others go on\n"
        assert set(flood.logs(tail=3).split()) == {b"y" * 200}
        assert flood.exec_run("echo inside").output == b"inside\n"
        if how == "logs":  # it holds up nobody: the container goes on writing
            before = flood.logs(tail=1, timestamps=True)
            wait_until(lambda: flood.logs(tail=1, timestamps=True) != before)
        flood.stop(timeout=0)
    flood.reload()
    assert flood.status == "exited"


def test_a_container_that_a_reader_held_up_goes_on_when_the_reader_goes(daemon: Daemon) -> None:
    client = daemon.client("1.44")
    script = f"yes {'y' * 200} | head -c 4020000; touch /done; sleep 1000"
    flood = client.containers.create("busybox", ["sh", "-c", script])
    with stalled(daemon, flood.id, "attach"):
        flood.start()
        wait_until(lambda: flood.logs(tail=1) != b"")
        assert flood.exec_run("test -e /done").exit_code == 1  # 4 MB do not fit into what lies between
    wait_until(lambda: flood.exec_run("test -e /done").exit_code == 0)
    wait_until(lambda: len(flood.logs()) == 4020000)


@contextlib.contextmanager
def stalled(daemon: Daemon, id: str, how: str) -> Iterator[None]:
    """A client that asks for a container's output and never reads it."""
    head = f"POST /v1.44/containers/{id}/attach?stream=1&stdout=1 HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n"
    if how == "logs":
        head = f"GET /v1.44/containers/{id}/logs?stdout=1&follow=1 HTTP/1.1\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(f"{head}Host: docker\r\n\r\n".encode())
        assert sock.recv(5) == b"HTTP/"
        yield


def test_a_hundred_containers_run_at_once_and_leave_nothing(daemon: Daemon) -> None:
    client = daemon.client("1.44")
    containers = [client.containers.create("busybox", "sleep 1000") for _ in range(100)]
    for container in containers:
        container.start()
    assert len(client.containers.list()) == 100
    stopped = [threading.Thread(target=container.remove, kwargs={"force": True}) for container in containers]
    for thread in stopped:
        thread.start()
    for thread in stopped:
        thread.join()
    assert client.containers.list(all=True) == []
    assert list((daemon.exec_root / "containers").iterdir()) == []
    wait_until(lambda: sum("minidocker-launcher" in line for line in daemon.leftovers()) <= 1)
