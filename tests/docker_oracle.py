"""Docker's own daemon and client, run with roots of their own: the oracle of the client and the command line."""

import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "box:1"


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


def remove_all(docker: CommandLine) -> None:
    left = docker("ps -aq").out.split()
    if left:
        docker(f"rm -fv {' '.join(left)}")
