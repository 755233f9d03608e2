"""The command line's tests: the command as it is installed, and Docker's own daemon and client as oracles."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fake_daemon.py
ROOT = Path(__file__).resolve().parents[2]
START = [str(Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}"), "-ISE",
         str(ROOT / "minidocker/cli/__main__.py")]
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


def alike(text: str) -> str:
    """`text` without what must differ between two runs: the program's name, IDs, names in {x}, how long ago."""
    text = text.replace("minidocker", "docker")
    text = re.sub(r"\b(dd|mm)(?=\d)", "xx", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID64", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID12", text)
    text = re.sub(r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes)( ago)?", "TIME", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\d]*(Z| \+0000 UTC)?", "MOMENT", text)
    return re.sub(r" {2,}|-{2,}", "  ", text)


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
        _remove_all(docker)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        log.close()


def _remove_all(docker: CommandLine) -> None:
    left = docker("ps -aq").out.split()
    if left:
        docker(f"rm -fv {' '.join(left)}")


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command without a daemon."""
    return CommandLine(START, {"HOME": str(tmp_path), "PATH": os.environ["PATH"],
                               "DOCKER_HOST": f"unix://{tmp_path}/no.sock"})


@pytest.fixture
def docker(dockerd: str, tmp_path: Path) -> Iterator[CommandLine]:
    """Docker's client on Docker's daemon; the containers that a test made go at its end."""
    line = CommandLine(["docker"], {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "DOCKER_HOST": dockerd})
    yield line
    _remove_all(line)


@pytest.fixture
def mini(docker: CommandLine) -> CommandLine:
    """Our client on Docker's daemon."""
    return CommandLine(START, docker.environment)


@pytest.fixture
def same(docker: CommandLine, mini: CommandLine) -> Callable[[str], None]:
    """Assert that both clients say the same on the same daemon; `{x}` in a line is a name of each one's own."""

    def check(line: str) -> None:
        theirs = docker(line.replace("{x}", "dd"))
        ours = mini(line.replace("{x}", "mm"))
        assert (ours.status, alike(ours.out), alike(ours.err)) == (theirs.status, alike(theirs.out), alike(theirs.err))

    return check
