"""An engine that runs on a learner's functions: it is another one, it is whole, and nothing of it stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.errors import MinidockerError
from minidocker.lab import swap
from minidocker.linux.cgroup_hierarchies import Hierarchies
from minidocker.network import host

pytestmark = pytest.mark.needs_root
pytest.importorskip("IPython", reason="needs the notebooks: pip install minidocker[notebooks]")

EXTRACT = "minidocker.storage.extract"


def traces(root: Path) -> list[str]:
    """What the engine at `root` has on the machine: links, mounts, control groups, rules, processes, files."""
    names = host.names(root / "exec")
    suffix = names.table.rpartition("-")[2]
    found = [*host.marked_bridges(names.table), *swap._processes(str(root))]
    found += [link for link in os.listdir("/sys/class/net") if link == names.bridge]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{root}/" in line]
    found += [path for tree in Hierarchies.detect().trees for path in Path(tree).glob(f"minidocker-{suffix}")]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    found += [table for table in tables.splitlines() if names.table in table]
    return [str(trace) for trace in [*found, *([root] if root.exists() else [])]]


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Where this test's engines were; after it, nothing of them is left."""
    found: list[Path] = []
    guard = swap._guard

    def recorded(root: Path) -> "subprocess.Popen[bytes]":
        found.append(root)
        return guard(root)

    monkeypatch.setattr(swap, "_guard", recorded)
    yield found
    deadline = time.monotonic() + 20
    while (left := [trace for root in found for trace in traces(root)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


ENDING = "!"


def shouted(text: str) -> str:
    """Stands for a learner's function, with a constant of another cell."""
    return text.upper() + ENDING


def unwritten(text: str) -> str:
    raise NotImplementedError()


SHOUTED_FILE = """
_own_file = Extractor._file

def _file(self, parent, leaf, entry, data):
    if leaf == "shells":
        text = FUNCTION(b"".join(bytes(piece) for _, piece in data).decode()).encode()
        entry.size, data = len(text), [(0, memoryview(text))]
    return _own_file(self, parent, leaf, entry, data)

Extractor._file = _file
"""
HELD = """
import sys
from minidocker.lab import swap
with swap.engine({}) as engine:
    engine.client.networks.create("another")
    engine.client.containers.run("busybox", ["sleep", "600"], detach=True, network="another")
    engine.client.containers.run("busybox", ["sleep", "600"], detach=True, ports={"80/tcp": ("127.0.0.1", 0)})
    print(engine.root, flush=True)
    sys.stdin.read()
"""


def test_a_container_runs_on_the_learners_function(roots: list[Path]) -> None:
    """The base image is unpacked by it, so what it did is in the container's files."""
    additions = {EXTRACT: SHOUTED_FILE.replace("FUNCTION", "shouted")}
    with swap.engine(additions, definitions=[shouted], network=False) as engine:
        seen = engine.client.containers.run("busybox", ["cat", "/etc/shells"], remove=True)
        assert seen == b"/BIN/SH\n/BIN/ASH\n!"
    assert "shouted" not in (swap.PACKAGE / "storage/extract.py").read_text()


def test_the_engine_is_whole_with_a_network_of_its_own(roots: list[Path]) -> None:
    with swap.engine({}) as engine:
        client = engine.client
        client.networks.create("another")
        one = client.containers.run("busybox", ["sleep", "600"], detach=True, network="another", name="one")
        client.containers.run("busybox", ["sleep", "600"], detach=True, ports={"80/tcp": ("127.0.0.1", 0)})
        assert client.containers.run("busybox", ["ping", "-c1", "one"], network="another", remove=True)
        assert one.exec_run(["id", "-u"]).output == b"0\n"
        assert any("ready" in line for line in engine.log())
        assert [engine.root] == roots and engine.url == f"unix://{engine.root}/d.sock"
        kinds = " ".join(traces(engine.root))
        assert all(word in kinds for word in ("/sys/fs/cgroup", "table ip", str(engine.root), "minidock-"))


def test_the_daemon_gets_the_flags_that_are_asked_for(roots: list[Path]) -> None:
    with swap.engine({}, network=False, busybox=False, flags=["--log-driver", "none"]) as engine:
        assert engine.client.info()["LoggingDriver"] == "none"


@pytest.mark.parametrize(
    ("additions", "words"),
    [
        ({"minidocker.engine.engine": "raise ValueError('broken at once')"}, "ValueError: broken at once"),
        ({"minidocker.storage.nothing": ""}, "no module minidocker.storage.nothing"),
        ({EXTRACT: "def ("}, "is no Python"),
        ({EXTRACT: SHOUTED_FILE.replace("FUNCTION", "unwritten")}, "cannot load the image"),
    ],
)
def test_what_breaks_the_engine_is_told_in_a_few_lines(
    additions: dict[str, str], words: str, roots: list[Path]
) -> None:
    with pytest.raises(swap.SwapFailed) as caught, swap.engine(additions, definitions=[unwritten], network=False):
        pass
    lines = caught.value._render_traceback_()
    assert words in "\n".join(lines)
    assert len("\n".join(lines).splitlines()) <= swap.SHOWN_LINES + 2


def test_a_broken_runtime_is_told_by_the_daemon(roots: list[Path]) -> None:
    additions = {"minidocker.runtime.launcher": "raise ValueError('broken launcher')"}
    with swap.engine(additions, network=False) as engine, pytest.raises(MinidockerError, match="broken launcher"):
        engine.client.containers.run("busybox", ["true"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_an_engine_whose_kernel_ends(number: signal.Signals, roots: list[Path]) -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert kernel.stdout is not None
    root = Path(kernel.stdout.readline().decode().strip())
    roots.append(root)
    assert traces(root)
    kernel.send_signal(number)
    kernel.communicate()


def test_an_exception_in_the_block_leaves_nothing(roots: list[Path]) -> None:
    with pytest.raises(ZeroDivisionError), swap.engine({}, network=False) as engine:
        engine.client.containers.run("busybox", ["sleep", "600"], detach=True)
        _ = 1 / 0


def test_what_a_killed_guard_leaves_the_next_engine_removes(roots: list[Path]) -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert kernel.stdout is not None
    root = Path(kernel.stdout.readline().decode().strip())
    guard = next(pid for pid in swap._processes(str(root)) if "minidocker.lab.swap" in _arguments(pid))
    for pid in (guard, kernel.pid):
        os.kill(pid, signal.SIGKILL)
    kernel.communicate()
    assert traces(root)
    with swap.engine({}, network=False, busybox=False):
        assert not traces(root)


def _arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
