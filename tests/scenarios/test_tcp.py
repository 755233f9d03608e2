"""The daemon on TCP: who is let in, and streams whose input ends before their output."""

import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.tls import TLSConfig

import minidocker
from minidocker import errors
from minidocker.client.transport import TlsFiles

from .authorities import Authority, Pair
from .conftest import REPOSITORY, Daemon, make_daemon, wait_until

TWO_HALVES = ("sh", "-c", "cat; echo after the end of stdin; echo aside >&2; exit 5")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> list[tuple[str, int]]:
    """(address, inode) of every TCP socket that listens on `port`, as the kernel lists them."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, number = fields[1].split(":")
        if int(number, 16) == port and fields[3] == "0A":
            found.append((socket.inet_ntoa(int(address, 16).to_bytes(4, "little")), int(fields[9])))
    return found


def inodes(pid: int) -> set[int]:
    """The sockets that a process holds."""
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {int(target[8:-1]) for target in targets if target.startswith("socket:[")}


@dataclass(frozen=True)
class Place:
    """A daemon on TCP, its address, and what a client needs to get in."""

    daemon: Daemon
    url: str
    port: int
    authority: Authority | None = None
    client: Pair | None = None

    @property
    def words(self) -> list[str]:
        """The command line's global options."""
        if self.authority is None or self.client is None:
            return ["-H", self.url]
        files = (self.authority.certificate, self.client.certificate, self.client.key)
        named = [f"--{name}={path}" for name, path in zip(("tlscacert", "tlscert", "tlskey"), files, strict=True)]
        return ["-H", self.url, "--tlsverify", *named]

    def files(self, *, certificate: bool = True) -> TlsFiles | None:
        if self.authority is None or self.client is None:
            return None
        pair = (str(self.client.certificate), str(self.client.key)) if certificate else (None, None)
        return TlsFiles(str(self.authority.certificate), *pair)

    def sdk(self) -> docker.DockerClient:
        if self.authority is None or self.client is None:
            return docker.DockerClient(base_url=self.url, timeout=30)
        pair = (str(self.client.certificate), str(self.client.key))
        return docker.DockerClient(
            base_url=self.url, timeout=30, tls=TLSConfig(pair, str(self.authority.certificate), verify=True)
        )

    def run(self, *words: str, program: str = "docker", stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        start = [program] if program == "docker" else [sys.executable, "-m", "minidocker.cli"]
        return subprocess.run(
            [*start, *self.words, *words], input=stdin, capture_output=True, timeout=60, check=False, cwd=REPOSITORY
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "the operator's CA")


@pytest.fixture(scope="module")
def plain(image_root: Path) -> Iterator[Place]:
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    for daemon in make_daemon(image_root, ["--bridge", "none", "-H", url, "--tlsverify=false"]):
        yield Place(daemon, url, port)


@pytest.fixture(scope="module")
def guarded(image_root: Path, authority: Authority) -> Iterator[Place]:
    port, server = free_port(), authority.issue("daemon")
    url = f"tcp://127.0.0.1:{port}"
    flags = ["--tlsverify", f"--tlscacert={authority.certificate}", f"--tlscert={server.certificate}",
             f"--tlskey={server.key}"]  # fmt: skip
    for daemon in make_daemon(image_root, ["--bridge", "none", "-H", url, *flags]):
        yield Place(daemon, url, port, authority, authority.issue("student"))


@pytest.fixture(params=["plain", "guarded"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    found: Place = request.getfixturevalue(request.param)
    yield found
    found.daemon.remove_all()


@pytest.fixture(autouse=True)
def no_foreign_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's HTTP library would take these variables for more than the CA that it is given."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


# -- what is refused at the start --


@pytest.mark.parametrize(
    ("address", "flags"),
    [
        ("127.0.0.1", []),  # loopback too wants an explicit word
        ("localhost", ["--tls=false"]),
        ("0.0.0.0", []),
        ("0.0.0.0", ["--tlsverify=false"]),
        ("[::]", ["--tlsverify=false"]),
        ("", []),
    ],
)
def test_tcp_without_client_certificates_is_refused(tmp_path: Path, address: str, flags: list[str]) -> None:
    port = free_port()
    daemon = Daemon(tmp_path, ["--bridge", "none", "-H", f"tcp://{address}:{port}", *flags])
    done = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
    assert done.returncode == 1
    assert re.search(r"^minidockerd: tcp://\S* without client certificates would give everyone", done.stderr, re.M)
    assert not listening(port)
    assert not daemon.socket.exists(), "the other socket must not outlive the refusal"


def test_encryption_without_client_certificates_is_refused(tmp_path: Path, authority: Authority) -> None:
    server = authority.issue("lonely")
    flags = ["--tls", f"--tlscert={server.certificate}", f"--tlskey={server.key}", "-H", f"tcp://0.0.0.0:{free_port()}"]
    command = Daemon(tmp_path, ["--bridge", "none", *flags]).command()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
    assert (done.returncode, "without client certificates" in done.stderr) == (1, True)


def test_a_tcp_socket_that_is_handed_over_follows_the_same_rule(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        script = 'exec 3<&$0; LISTEN_FDS=1 exec "$@"'
        command = [*Daemon(tmp_path, ["--bridge", "none", "-H", "fd://", "--tlsverify=false"]).command()]
        done = subprocess.run(
            ["bash", "-c", script, str(listener.fileno()), *command], pass_fds=(listener.fileno(),),
            capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False,
        )  # fmt: skip
    assert (done.returncode, "without client certificates" in done.stderr) == (1, True)


def test_a_unix_socket_goes_with_its_daemon_and_one_that_was_handed_over_stays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        handed = tmp_path / "handed.sock"
        listener.bind(str(handed))
        listener.listen()
        daemon = Daemon(tmp_path, ["--bridge", "none", "-H", "fd://"])
        script = 'exec 3<&$0; LISTEN_FDS=1 exec "$@"'
        with subprocess.Popen(["bash", "-c", script, str(listener.fileno()), *daemon.command()],
                              pass_fds=(listener.fileno(),), cwd=REPOSITORY) as process:  # fmt: skip
            try:
                wait_until(daemon.answers, 30)
            finally:
                process.terminate()
        assert process.returncode == 0
    assert handed.exists() and not daemon.socket.exists()


# -- clients --


def test_the_kernel_shows_one_socket_on_loopback_that_the_daemon_holds(place: Place) -> None:
    assert place.daemon.process is not None
    [(address, inode)] = listening(place.port)
    assert address == "127.0.0.1"
    assert inode in inodes(place.daemon.process.pid)


@pytest.mark.parametrize("program", ["docker", "minidocker"])
def test_the_command_line_gets_all_output_after_the_end_of_its_input(place: Place, program: str) -> None:
    done = place.run("run", "-i", "busybox", *TWO_HALVES, program=program, stdin=b"x\n")
    assert (done.stdout, done.stderr) == (b"x\nafter the end of stdin\n", b"aside\n")
    assert done.returncode == 5


@pytest.mark.parametrize("program", ["docker", "minidocker"])
def test_exec_with_input_works(place: Place, program: str) -> None:
    assert place.run("run", "-d", "--name", "box", "busybox", "sleep", "100").returncode == 0
    done = place.run("exec", "-i", "box", *TWO_HALVES, program=program, stdin=b"y\n")
    assert (done.stdout, done.stderr) == (b"y\nafter the end of stdin\n", b"aside\n")
    assert done.returncode == 5


@pytest.mark.parametrize("program", ["docker", "minidocker"])
def test_megabytes_come_back_as_they_went(place: Place, program: str) -> None:
    sent = os.urandom(1 << 20) * 5
    done = place.run("run", "-i", "--rm", "busybox", "cat", program=program, stdin=sent)
    assert done.stdout == sent, done.stderr


def test_docker_py_runs_execs_and_attaches(place: Place) -> None:
    client = place.sdk()
    container = client.containers.run("busybox", ["sh", "-c", "read x; echo got $x"], detach=True, stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw = getattr(stream, "_sock", stream)
    raw.send(b"word\n")
    assert raw.recv(100)[8:] == b"got word\n"
    stream.close()
    assert container.wait()["StatusCode"] == 0
    assert container.logs() == b"got word\n"
    box = client.containers.run("busybox", "sleep 100", detach=True)
    for _ in range(20):
        assert box.exec_run(["echo", "all of it"]).output == b"all of it\n"
    client.close()


def test_our_client_runs(place: Place) -> None:
    with minidocker.connect(place.url, tls=place.files()) as client:
        assert client.containers.run("busybox", ["echo", "hi"]) == b"hi\n"


def test_a_log_that_is_followed_ends_with_its_container(place: Place) -> None:
    place.run("run", "-d", "--name", "speaker", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; done")
    assert place.run("logs", "-f", "speaker").stdout == b"1\n2\n3\n"


# -- who is let in --


def test_docker_without_a_certificate_is_refused(guarded: Place) -> None:
    done = subprocess.run(
        ["docker", "-H", guarded.url, "--tls", f"--tlscacert={guarded.authority.certificate}", "ps"],  # type: ignore[union-attr]
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "certificate required" in done.stderr or "bad certificate" in done.stderr


def test_a_foreign_certificate_is_refused(guarded: Place, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "foreign", "the operator's CA").issue("student")  # the same names, another key
    foreign = Place(guarded.daemon, guarded.url, guarded.port, guarded.authority, stranger)
    for program in ("docker", "minidocker"):
        done = foreign.run("ps", program=program)
        assert done.returncode != 0, program
        assert b"CONTAINER ID" not in done.stdout
    with pytest.raises(docker.errors.DockerException):
        foreign.sdk()
    with pytest.raises((errors.Unavailable, OSError)):
        minidocker.connect(guarded.url, tls=foreign.files()).ping()
    with pytest.raises((errors.Unavailable, OSError)):
        minidocker.connect(guarded.url, tls=guarded.files(certificate=False)).ping()
    assert "a TLS client is refused" in guarded.daemon.log()


def test_plain_http_to_the_tls_port_gets_no_answer(guarded: Place) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as sock:
        sock.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        try:
            while piece := sock.recv(4096):
                answer += piece
        except ConnectionError:
            pass
    assert b"HTTP/1." not in answer


def test_a_client_that_never_shakes_hands_holds_nobody_up(guarded: Place) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port)), socket.create_connection(("127.0.0.1", guarded.port)):
        assert guarded.run("version").returncode == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_close_notify_ends_stdin_only(guarded: Place, version: ssl.TLSVersion) -> None:
    """By hand, in both versions of TLS: output that is written seconds after our close_notify still comes."""
    client = guarded.daemon.client()
    made = client.containers.create("busybox", list(TWO_HALVES), stdin_open=True)
    assert guarded.authority is not None and guarded.client is not None
    context = ssl.create_default_context(cafile=str(guarded.authority.certificate))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(guarded.client.certificate, guarded.client.key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as sock:

        def until(step: "object") -> bytes:
            while True:
                try:
                    result = step()  # type: ignore[operator]
                    sock.sendall(outgoing.read())
                    return result or b""
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    piece = sock.recv(65536)
                    if not piece:
                        return b""
                    incoming.write(piece)

        until(tls.do_handshake)
        path = f"/containers/{made.id}/attach?stream=1&stdin=1&stdout=1"
        tls.write(f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        assert until(lambda: tls.read(4096)).startswith(b"HTTP/1.1 101")
        tls.write(b"typed\n")
        try:
            tls.unwrap()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
        made.start()
        seen = b""
        while True:
            try:
                piece = until(lambda: tls.read(4096))
            except (ssl.SSLZeroReturnError, ssl.SSLError):
                break
            if not piece:
                break
            seen += piece
    assert b"typed\n" in seen and b"after the end of stdin\n" in seen
    guarded.daemon.remove_all()
