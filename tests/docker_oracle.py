"""Docker's own daemon and client, run with roots of their own: the oracle of the client and the command line."""

import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "box:1"


def client_version() -> int:
    """The first number of the docker command's version (Debian 12's is 20); 0: there is none."""
    if shutil.which("docker") is None:
        return 0
    words = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return int(words[2].partition(".")[0])


CLI_VERSION = client_version()
recent_client = pytest.mark.skipif(
    CLI_VERSION < 23, reason="needs docker's client 23 or later as the oracle: older ones ask and say otherwise"
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """A program and the environment that it gets."""

    program: list[str]
    environment: dict[str, str]

    def __call__(self, line: str, *, stdin: bytes | None = None, **more: str) -> Ended:
        """Run one command line, split as a shell would; `more` goes into the environment."""
        done = subprocess.run([*self.program, *shlex.split(line)], capture_output=True, check=False, timeout=120,
                              input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                              env={**self.environment, **more})
        return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def _base_image(directory: Path) -> Path:
    """A root filesystem of nothing but the static busybox, as a tar archive."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox-static: the image of these tests is made of it")
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    shutil.copy(busybox, root / "bin/busybox")
    for name in ("sh", "cat", "echo", "sleep", "true", "false", "stty", "id", "env", "ls", "pwd", "hostname", "kill"):
        (root / "bin" / name).symlink_to("busybox")
    archive = directory / "box.tar"
    with tarfile.open(archive, "w") as file:
        file.add(root, ".")
    return archive


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Docker's own daemon, started with roots of its own; it has the image `box:1`."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        pytest.skip("needs docker.io: its daemon is the oracle")
    if os.geteuid() != 0:
        pytest.skip("needs root: dockerd makes namespaces")
    base = tmp_path_factory.mktemp("dockerd")
    url = f"unix://{base}/docker.sock"
    log = (base / "log").open("wb")
    daemon = subprocess.Popen(
        ["dockerd", "--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "--pidfile", f"{base}/pid", "-H", url,
         "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
         "--group", "root"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        docker = CommandLine(["docker"], {**os.environ, "DOCKER_HOST": url})
        deadline = time.monotonic() + 60
        while docker("version").status != 0:
            assert daemon.poll() is None, (base / "log").read_text()
            assert time.monotonic() < deadline, "dockerd does not answer"
        archive = _base_image(base)
        assert docker(f"import -c 'CMD [\"sh\"]' {archive} {IMAGE}").status == 0
        yield url
        remove_all(docker)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        log.close()
        # dockerd leaves the mount of a network namespace behind.
        subprocess.run(["umount", f"{base}/exec/netns/default"], capture_output=True, check=False)


@pytest.fixture(scope="session")
def minidockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of minidocker's daemon, started with roots of its own; it has the image `box:1`."""
    if os.geteuid() != 0:
        pytest.skip("needs root: minidockerd makes namespaces")
    base = tmp_path_factory.mktemp("minidockerd")
    url = f"unix://{base}/s"
    log = (base / "log").open("wb")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "minidocker.daemon.main", "--data-root", f"{base}/data", "--exec-root", f"{base}/exec",
         "--pidfile", f"{base}/pid", "-H", url, "--bridge", "none"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while b"ready" not in (base / "log").read_bytes():
            assert daemon.poll() is None, (base / "log").read_text()
            assert time.monotonic() < deadline, "minidockerd does not come up"
        line = CommandLine([sys.executable, "-m", "minidocker.cli"], {**os.environ, "DOCKER_HOST": url})
        loaded = line("load", stdin=_docker_archive(_base_image(base)))
        assert loaded.out == f"Loaded image: {IMAGE}\n", loaded.err
        yield url
        remove_all(line)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        log.close()


def _docker_archive(layer: Path) -> bytes:
    """The layer as an image in docker's archive format."""
    content = layer.read_bytes()
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
              "created": "2026-01-01T00:00:00Z",
              "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "the tests"}],
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]}}
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, member in (("layer.tar", content), ("config.json", json.dumps(config).encode()),
                             ("manifest.json", json.dumps(manifest).encode())):
            header = tarfile.TarInfo(name)
            header.size = len(member)
            archive.addfile(header, io.BytesIO(member))
    return out.getvalue()


def remove_all(docker: CommandLine) -> None:
    left = docker("ps -aq").out.split()
    if left:
        docker(f"rm -fv {' '.join(left)}")
