"""The command line's tests: the command as it is installed, and Docker's own daemon and client as oracles."""

import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # fake_daemon.py, docker_oracle.py

from docker_oracle import CommandLine, dockerd, minidockerd, remove_all  # noqa: E402

__all__ = ["dockerd", "minidockerd"]

ROOT = Path(__file__).resolve().parents[2]
START = [str(Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}"), "-ISE",
         str(ROOT / "minidocker/cli/__main__.py")]


def alike(text: str) -> str:
    """`text` without what must differ between two runs: the program's name, IDs, names in {x}, how long ago."""
    text = text.replace("minidocker", "docker")
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID64", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID12", text)
    text = re.sub(r"\b(dd|mm)(?=\d)", "xx", text)  # after the IDs: one may begin so
    text = re.sub(r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes)( ago)?", "TIME", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\d]*(Z| \+0000 UTC)?", "MOMENT", text)
    return re.sub(r" {2,}|-{2,}", "  ", text)


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
    remove_all(line)


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
