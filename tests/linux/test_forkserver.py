"""The fork server: what a child gets, what it does not get, and how either side ends."""

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux.forkserver import ForkedProcess, ForkServer, ForkServerDied

ENTRIES = '''
import json, os, resource, signal, time
from minidocker.linux.forkserver_loop import serve

prepared = []
LINK = "/proc/self/fd/"

def report(request, fds):
    """Say by the last descriptor how this child is placed."""
    placed = {
        "request": request.decode() if len(request) < 1000 else len(request),
        "fds": fds,
        "open": {fd: os.readlink(LINK + fd) for fd in os.listdir(LINK) if os.path.lexists(LINK + fd)},
        "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "cwd": os.getcwd(),
        "environment": dict(os.environ), "argv": open("/proc/self/cmdline").read().split("\\0"),
        "exe": os.readlink("/proc/self/exe"), "name": open("/proc/self/comm").read(),
        "sigchld": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, "wakeup": signal.set_wakeup_fd(-1),
        "prepared": [len(item) for item in prepared], "umask": os.umask(0),
    }
    os.write(fds[-1], json.dumps(placed).encode())

def reports(sock, exec_root):
    serve(sock, report)

def prepare(request):
    if request == b"bad":
        raise ValueError("this request is bad")
    if request == b"interrupt me":
        os.kill(os.getppid(), signal.SIGUSR2)
        signal.pause()
    prepared.append(request)

def prepares(sock, exec_root):
    serve(sock, report, prepare=prepare)

def act(request, fds):
    if request == b"raise":
        raise RuntimeError("on purpose")
    if request == b"live":
        os.write(fds[0], b"1")
        signal.pause()
    if request == b"orphan":
        if os.fork() == 0:
            os.write(fds[0], str(os.getpid()).encode())
            os.read(fds[1], 1)
    if request == b"wait for a child":
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        os.write(fds[0], str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())

def acts(sock, exec_root):
    serve(sock, act)

def no_forks(sock, exec_root):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    os.fork = refuse
    serve(sock, report)

def few_files(sock, exec_root):
    resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))
    serve(sock, report)
'''


class Servers:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[ForkServer] = []
        (directory / "entries_of_the_test.py").write_text(ENTRIES)

    def spawn(self, function: str, module: str = "entries_of_the_test") -> ForkServer:
        server = ForkServer.spawn(
            "test-forkserver",
            f"{module}:{function}",
            exec_root=self.directory / "exec",
            python_path=[str(self.directory)],
        )
        self.running.append(server)
        return server


@pytest.fixture
def servers(tmp_path: Path, leftovers: object) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    for server in made.running:
        server.close()


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(60_000))


def _answer(server: ForkServer, request: bytes, fds: tuple[int, ...] = ()) -> tuple[ForkedProcess, Any]:
    """Fork with `fds` and the end of a pipe; what the child wrote there until it ended."""
    reader, writer = os.pipe()
    try:
        forked = server.fork(request, [*fds, writer])
    finally:
        os.close(writer)
    os.close(forked.pidfd)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    return forked, json.loads(text)


def test_a_child_gets_the_request_and_its_descriptors_and_nothing_else(servers: Servers, tmp_path: Path) -> None:
    server = servers.spawn("reports")
    with open(tmp_path / "passed", "w") as file:
        forked, child = _answer(server, b"hello", (file.fileno(),))
    assert child["request"] == "hello"
    assert (child["pid"], child["parent"]) == (forked.pid, server.pid)
    first, last = (str(fd) for fd in child["fds"])
    assert child["open"][first] == str(tmp_path / "passed")
    assert child["open"][last].startswith("pipe:")
    assert {child["open"][fd] for fd in "012"} == {"/dev/null"}
    assert set(child["open"]) == {"0", "1", "2", first, last}


def test_a_child_stands_in_a_session_apart_with_a_clean_environment(servers: Servers, monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CLIENT", "1")
    before = os.umask(0o077)
    try:
        server = servers.spawn("reports")
        _, child = _answer(server, b"")
    finally:
        os.umask(before)
    always = {"PYTHONHOME", "PATH", "LANG", "LD_BIND_NOW"}
    assert always <= set(child["environment"]) <= always | {"LD_LIBRARY_PATH"}
    assert child["session"] == server.pid != os.getsid(0)
    assert child["cwd"] == "/"
    assert child["umask"] == 0o022
    assert child["sigchld"]
    assert child["wakeup"] == -1


def test_ps_tells_whose_a_process_is(servers: Servers, tmp_path: Path) -> None:
    server = servers.spawn("reports")
    _, child = _answer(server, b"")
    assert child["argv"] == Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    assert child["argv"][0] == "test-forkserver"
    place = child["argv"].index("--exec-root")
    assert child["argv"][place + 1] == str(tmp_path / "exec")
    assert child["name"] == "test-forkserver\n"


def test_the_interpreter_is_a_copy_that_nobody_can_write_to(servers: Servers) -> None:
    server = servers.spawn("reports")
    _, child = _answer(server, b"")
    assert child["exe"] == "/memfd:test-forkserver (deleted)"
    with open(f"/proc/{server.pid}/exe", "rb") as copy, open("/proc/self/exe", "rb") as original:
        assert copy.read() == original.read()
    with pytest.raises(OSError):
        fd = os.open(f"/proc/{server.pid}/exe", os.O_WRONLY)
        os.write(fd, b"evil")


def test_the_server_holds_its_socket_and_no_descriptor_of_the_client(servers: Servers, tmp_path: Path) -> None:
    with open(tmp_path / "of the client", "w") as file:
        os.set_inheritable(file.fileno(), True)
        server = servers.spawn("reports")
        _answer(server, b"")
        held = {os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd")}
    assert {place.split(":")[0] for place in held} == {"/dev/null", "socket", "pipe"}


def test_a_large_request_arrives_whole(servers: Servers) -> None:
    server = servers.spawn("reports")
    for size in (64 * 1024 - 2, 64 * 1024 - 1, 64 * 1024, 1 << 20, 5 << 20):
        _, child = _answer(server, b"x" * size)
        assert child["request"] == size
        assert len(child["fds"]) == 1


def test_many_threads_fork_at_once_and_each_gets_its_own_child(servers: Servers) -> None:
    server = servers.spawn("reports")
    start = threading.Barrier(8)

    def several(thread: int) -> list[tuple[bool, str]]:
        start.wait()
        answers = [_answer(server, f"{thread}.{turn}".encode()) for turn in range(10)]
        return [(forked.pid == child["pid"], child["request"]) for forked, child in answers]

    with ThreadPoolExecutor(8) as pool:
        results = [pair for pairs in pool.map(several, range(8)) for pair in pairs]
    assert all(own for own, _ in results)
    assert [request for _, request in results] == [f"{thread}.{turn}" for thread in range(8) for turn in range(10)]


def test_what_prepare_keeps_is_there_for_later_children(servers: Servers) -> None:
    server = servers.spawn("prepares")
    assert _answer(server, b"1")[1]["prepared"] == [1]
    assert _answer(server, b"22")[1]["prepared"] == [1, 2]


def test_a_request_that_prepare_refuses_forks_nothing_and_says_why(servers: Servers) -> None:
    server = servers.spawn("prepares")
    with pytest.raises(InvalidArgument, match="test-forkserver refused the request: this request is bad"):
        server.fork(b"bad")
    assert _answer(server, b"good")[1]["prepared"] == [4]


def test_ended_children_and_orphans_are_reaped(servers: Servers) -> None:
    server = servers.spawn("acts")
    reader, writer = os.pipe()
    release, hold = os.pipe()
    pidfds = [server.fork(request).pidfd for request in (b"", b"raise", b"", b"")]
    pidfds.append(server.fork(b"orphan", [writer, release]).pidfd)
    orphan = int(os.read(reader, 20))
    assert all(map(_ended, pidfds))
    assert f"PPid:\t{server.pid}\n" in Path(f"/proc/{orphan}/status").read_text()
    pidfds.append(os.pidfd_open(orphan))
    os.write(hold, b"1")
    assert _ended(pidfds[-1])
    os.close(server.fork(b"").pidfd)  # the server passes through its loop
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    for _ in range(200):  # each passes through the loop again; the last child may just be ending
        last = server.fork(b"raise")
        pidfds.append(last.pidfd)
        assert _ended(last.pidfd)
        if len(children.read_text().split()) <= 1:
            break
    else:
        pytest.fail(f"not reaped: {children.read_text()}")
    for fd in (*pidfds, reader, writer, release, hold):
        os.close(fd)


def test_a_child_can_wait_for_children_of_its_own(servers: Servers) -> None:
    server = servers.spawn("acts")
    reader, writer = os.pipe()
    os.close(server.fork(b"wait for a child", [writer]).pidfd)
    os.close(writer)
    with open(reader) as pipe:
        assert pipe.read() == "7"


def test_the_server_ends_with_its_client_and_its_children_live_on(servers: Servers) -> None:
    server = servers.spawn("acts")
    reader, writer = os.pipe()
    child = server.fork(b"live", [writer])
    assert os.read(reader, 1) == b"1"
    watch = os.pidfd_open(server.pid)
    server.close()
    assert _ended(watch)
    signal.pidfd_send_signal(child.pidfd, 0)
    assert select.select([child.pidfd], [], [], 0)[0] == []
    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    assert _ended(child.pidfd)
    for fd in (watch, reader, writer, child.pidfd):
        os.close(fd)
    server.close()
    with pytest.raises(ForkServerDied, match="closed"):
        server.fork(b"")


def test_a_client_that_is_killed_takes_its_server_along(tmp_path: Path, servers: Servers) -> None:
    script = (
        "import os, sys; from pathlib import Path; from minidocker.linux.forkserver import ForkServer\n"
        f"server = ForkServer.spawn('test-forkserver', 'entries_of_the_test:acts', exec_root=Path({str(tmp_path)!r}), "
        f"python_path=[{str(tmp_path)!r}])\n"
        "server.fork(b''); print(server.pid, flush=True); sys.stdin.read()"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert client.stdout is not None
    assert client.stdin is not None
    watch = os.pidfd_open(int(client.stdout.readline()))
    client.kill()
    client.wait()
    assert _ended(watch)
    os.close(watch)
    client.stdin.close()
    client.stdout.close()


def test_a_server_that_was_killed_is_noticed_at_once_and_before_a_request(servers: Servers) -> None:
    server = servers.spawn("acts")
    os.close(server.fork(b"").pidfd)
    signal.pidfd_send_signal(server.pidfd, signal.SIGKILL)
    assert _ended(server.pidfd)
    for _ in range(2):
        with pytest.raises(ForkServerDied, match=rf"test-forkserver \(pid {server.pid}\) has ended"):
            server.fork(b"")


@pytest.mark.parametrize(
    ("module", "function", "reason"),
    [
        ("no_such_module", "main", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("entries_of_the_test", "no_such_function", "AttributeError"),
    ],
)
def test_a_server_that_cannot_start_tells_why(module: str, function: str, reason: str, servers: Servers) -> None:
    server = servers.spawn(function, module)
    assert _ended(server.pidfd)
    with pytest.raises(ForkServerDied, match=reason):
        server.fork(b"")


def test_a_limit_of_processes_is_an_error_of_this_request_only(servers: Servers) -> None:
    server = servers.spawn("no_forks")
    for _ in range(2):
        with pytest.raises(KernelError) as caught:
            server.fork(b"")
        assert caught.value.errno == errno.EAGAIN


def test_a_request_whose_descriptors_do_not_fit_is_not_run_with_half_of_them(servers: Servers) -> None:
    server = servers.spawn("few_files")
    reader, writer = os.pipe()
    with pytest.raises(KernelError) as caught:
        server.fork(b"", [writer] * 20)
    assert caught.value.errno == errno.EMFILE
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert _answer(server, b"few")[1]["request"] == "few"


def test_a_descriptor_that_is_not_open_is_an_error_of_this_request_only(servers: Servers) -> None:
    server = servers.spawn("reports")
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    for request in (b"small", b"x" * 100_000):
        with pytest.raises(KernelError) as caught:
            server.fork(request, [writer])
        assert caught.value.errno == errno.EBADF
    assert _answer(server, b"still there")[1]["request"] == "still there"


def test_more_descriptors_than_a_packet_takes_are_refused(servers: Servers) -> None:
    server = servers.spawn("acts")
    with pytest.raises(InvalidArgument, match="251 descriptors"):
        server.fork(b"", [0] * 251)


def test_an_interrupted_client_never_takes_an_old_answer_for_a_new_one(servers: Servers) -> None:
    server = servers.spawn("prepares")
    _answer(server, b"up")

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        with pytest.raises(Interrupted):
            server.fork(b"interrupt me")  # the server does so instead of an answer
    finally:
        signal.signal(signal.SIGUSR2, before)
    with pytest.raises(ForkServerDied):
        server.fork(b"")
    signal.pidfd_send_signal(server.pidfd, signal.SIGKILL)


def test_debians_interpreter_serves_too_without_a_virtual_environment(servers: Servers, tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip(f"needs a second interpreter: {python}")
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
    )
    if version.stdout != "True\n":
        pytest.skip(f"needs Python 3.11: {python} is older")
    script = (
        "import os, sys; from pathlib import Path; from minidocker.linux.forkserver import ForkServer\n"
        f"with ForkServer.spawn('test-forkserver', 'entries_of_the_test:reports', exec_root=Path({str(tmp_path)!r}), "
        f"python_path=[{str(tmp_path)!r}]) as server:\n"
        "    server.fork(b'from Debian', [1])"
    )
    done = subprocess.run(
        [python, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    assert '"request": "from Debian"' in done.stdout
    assert '"exe": "/memfd:test-forkserver (deleted)"' in done.stdout


def test_no_descriptor_of_the_client_is_lost(servers: Servers) -> None:
    def here() -> list[str]:
        return os.listdir("/proc/self/fd")

    before = here()
    server = servers.spawn("prepares")
    os.close(server.fork(b"x").pidfd)
    os.close(server.fork(b"x" * 100_000).pidfd)
    with pytest.raises(InvalidArgument):
        server.fork(b"bad")
    server.close()
    assert here() == before
