"""A daemon of its own for these tests: own roots and socket, an image from busybox-static, nothing left at the end."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from minidocker.oci.reference import Reference
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import ImageLayer, ImageStore
from minidocker.storage.layers import LayerStore
from minidocker.storage.worker import Worker

BUSYBOX = Path("/usr/bin/busybox")
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0

FOLDERS = ("bin", "etc", "dev", "proc", "sys", "root", "tmp", "var", "var/data", "home", "mnt")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nstudent:x:1000:1000::/home:/bin/sh\n"
GROUP = b"root:x:0:\nstudent:x:1000:\nwheel:x:10:student\n"


def layer_tar() -> bytes:
    """A small root filesystem: busybox with its links, two users, a directory with a file for copy-up."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        files = (
            ("bin/busybox", BUSYBOX.read_bytes(), 0o755),
            ("etc/passwd", PASSWD, 0o644),
            ("etc/group", GROUP, 0o644),
            ("var/data/seed", b"from the image\n", 0o644),
        )
        for name, content, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
        applets = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
    return buffer.getvalue()


def store_image(data_root: Path, exec_root: Path) -> None:
    """Put `busybox:latest` into the stores of a daemon that does not run."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    blobs, worker = BlobStore(data_root), Worker(exec_root)
    content = layer_tar()
    digest = blobs.put(content)
    LayerStore(data_root, worker).apply(blobs.path(digest), LAYER_TYPE, digest, None)
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Labels": {"origin": "test"}},
        "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
    }
    image_id = blobs.put(json.dumps(config).encode())
    layers = (ImageLayer(digest, digest, len(content), LAYER_TYPE),)
    ImageStore(data_root, blobs).add(image_id, layers, references=[Reference.parse("busybox")])
    worker.close()


@dataclass
class Daemon:
    """One minidockerd process on roots of its own."""

    root: Path
    flags: list[str] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        return self.root / "d.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def exec_root(self) -> Path:
        return self.root / "exec"

    def command(self, *more: str) -> list[str]:
        roots = ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root), "-H", self.url]
        return [sys.executable, "-m", "minidocker.daemon.main", *roots, *self.flags, *more]

    def start(self) -> None:
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=REPOSITORY)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not start:\n{self.log()}")
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            client = docker.DockerClient(base_url=self.url, version="1.41", timeout=5)
            return bool(client.ping())
        except docker.errors.DockerException:
            return False
        except Exception as error:
            if "Connection" in type(error).__name__:
                return False
            raise

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.end(number)
        self.start()

    def log(self) -> str:
        return (self.root / "log").read_text()

    def client(self, version: str = "auto") -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, version=version, timeout=30)

    def cli(self, *words: str, stdin: bytes | None = None, timeout: float = 30) -> "subprocess.CompletedProcess[str]":
        """The stock docker command against this daemon."""
        done = subprocess.run(
            ["docker", "-H", self.url, *words], input=stdin, capture_output=True, timeout=timeout, check=False
        )
        text = [stream.decode(errors="replace") for stream in (done.stdout, done.stderr)]
        return subprocess.CompletedProcess(done.args, done.returncode, *text)

    def remove_all(self) -> None:
        client = self.client()
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
        client.volumes.prune({"all": True})
        client.close()

    def leftovers(self) -> list[str]:
        """What names this daemon's roots and should be gone: mounts, processes."""
        found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.root) in line]
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.exec_root) in words:
                    found.append(f"process {entry.name}: {words[:200]}")
        return found


def wait_until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for what no event tells a test of; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def image_root() -> Iterator[Path]:
    """Roots with the image in them, to be copied by each daemon fixture."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, cgroups and mounts")
    if not BUSYBOX.exists():
        pytest.skip("needs Debian's busybox-static")
    root = Path(tempfile.mkdtemp(prefix="md-image-", dir="/tmp"))
    try:
        (root / "data").mkdir()
        (root / "exec").mkdir()
        store_image(root / "data", root / "exec")
        yield root
    finally:
        shutil.rmtree(root)


def make_daemon(
    image_root: Path, flags: list[str], made: Callable[[Path, list[str]], Daemon] = Daemon
) -> Iterator[Daemon]:
    root = Path(tempfile.mkdtemp(prefix="md-test-", dir="/tmp"))
    shutil.copytree(image_root / "data", root / "data", symlinks=True)
    daemon = made(root, flags)
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is None:
            daemon.start()
        daemon.remove_all()
        daemon.end()
        wait_until(lambda: not daemon.leftovers())
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def shared(image_root: Path) -> Iterator[Daemon]:
    """The daemon that most tests share; they clean up after themselves by `daemon`."""
    yield from make_daemon(image_root, ["--bridge", "none"])


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """The shared daemon; all containers and volumes are removed after each test."""
    yield shared
    shared.remove_all()


@pytest.fixture
def own_daemon(image_root: Path) -> Iterator[Daemon]:
    """A daemon that a test may kill."""
    yield from make_daemon(image_root, ["--bridge", "none"])


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    """docker-py at the newest version that the daemon speaks."""
    made = daemon.client()
    yield made
    made.close()
