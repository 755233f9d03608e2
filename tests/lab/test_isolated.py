"""`%%isolated`: what a cell makes dies with it, however the cell ends; the notebook's own process never changes."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab.cell import CGROUP_PREFIX, CellFailed
from minidocker.lab.isolated import Isolation
from minidocker.linux.namespaces import KINDS, inode

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a cell gets namespaces and a cgroup")


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    made = Isolation()
    yield made
    made.close()


# Mount points of daemons that other tests run at the same time.
OTHERS = re.compile(r"(\S+ ){4}/(tmp|var/lib/minidocker|run/minidocker)")


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = _traces()
    yield
    assert _traces() == before


def _traces() -> tuple[Any, ...]:
    top, name = Path("/sys/fs/cgroup"), CGROUP_PREFIX[1:]  # deeper ones are of cells in containers
    groups = [*top.glob(f"{name}*"), *top.glob(f"*/{name}*")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if not OTHERS.match(line)]
    return mounts, socket.gethostname(), groups


def _outputs(isolation: Isolation, code: str, **options: Any) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []
    isolation.run(code, on_output=lambda kind, content: seen.append((kind, content)), **options)
    return seen


def test_a_cell_is_pid_1_of_namespaces_of_its_own(isolation: Isolation) -> None:
    code = (
        "import os\nfrom minidocker.linux.namespaces import inode, KINDS\n"
        "found = {kind: inode(kind) for kind in KINDS}; pid = os.getpid()"
    )
    seen = isolation.run(code, wanted=("found", "pid"))
    assert seen["pid"] == 1
    own = {kind for kind in KINDS if seen["found"][kind] != inode(kind)}
    assert own == {"pid", "mount", "network", "uts", "ipc", "cgroup"}


def test_the_network_of_the_host_can_be_looked_at(isolation: Isolation) -> None:
    code = "import os; from minidocker.linux import namespaces\n"
    code += "net = namespaces.inode('network'); links = os.listdir('/sys/class/net')"
    assert isolation.run(code, wanted=("net",), network="host")["net"] == inode("network")
    assert isolation.run(code, wanted=("links",))["links"] == ["lo"]


def test_values_pass_by_name_and_output_arrives_in_order(isolation: Isolation) -> None:
    code = "print('one'); display(x); import os; os.system('echo two'); x + 1"
    seen = _outputs(isolation, code, values={"x": 41})
    assert seen == [
        ("stdout", "one\n"),
        ("display", {"text/plain": "41"}),
        ("stdout", "two\n"),
        ("display", {"text/plain": "42"}),
    ]


def test_mounts_links_and_hostname_of_a_cell_are_gone_after_it(isolation: Isolation) -> None:
    isolation.run(
        "from minidocker.linux.mounts import mount\nimport socket, os\n"
        "mount('tmpfs', '/mnt', 'tmpfs'); socket.sethostname('inside'); os.mkdir('/mnt/x')\n"
        "assert socket.gethostname() == 'inside' and os.listdir('/mnt') == ['x']"
    )
    assert socket.gethostname() != "inside"


@pytest.mark.parametrize(
    ("code", "options", "reason"),
    [
        ("1 / 0", {}, "ZeroDivisionError"),
        ("while True: pass", {"timeout_seconds": 0.5}, "time limit"),
        ("import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass", {"timeout_seconds": 0.5}, "time limit"),
        ("kept = [bytearray(8 << 20) for _ in range(64)]", {"memory_bytes": 96 << 20}, "memory limit"),
        ("import os; os._exit(3)", {}, "exit status 3"),
        ("import os; os.abort()", {}, "SIGSEGV|SIGABRT"),
        ("pass", {"wanted": ("nothing",)}, "did not set nothing"),
        ("f = lambda: 0", {"wanted": ("f",)}, "pickle"),
        ("import os\nwhile True: os.fork()", {"pids": 20}, "BlockingIOError"),
    ],
)
def test_a_cell_that_ends_badly_says_why(isolation: Isolation, code: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(CellFailed, match=reason):
        isolation.run(code, timeout_seconds=options.pop("timeout_seconds", 5), **options)


def test_children_of_a_cell_end_with_it(isolation: Isolation) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid(); os.execvp('sleep', ['sleep', '98765'])\n"
        "open('/proc/1/comm').read()"
    )
    isolation.run(code)
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in running if b"98765" in line]


def test_the_helper_is_started_again_when_it_has_died(isolation: Isolation) -> None:
    isolation.run("pass")
    assert isolation._server is not None
    os.kill(isolation._server.pid, 9)
    assert isolation.run("x = 5", wanted=("x",)) == {"x": 5}


def test_of_a_cell_that_is_not_trusted_only_plain_values_are_taken(tmp_path: Path) -> None:
    """A pickle of its own making could have anything called in the process that reads it."""
    code = f"class Evil:\n    def __reduce__(self): return (open, ({str(tmp_path / 'called')!r}, 'w'))\nevil = Evil()"
    isolation = Isolation(plain=True)
    try:
        assert isolation.run("x = {'a': [1, b'2', (None, 3.5)]}", wanted=("x",))["x"] == {"a": [1, b"2", (None, 3.5)]}
        with pytest.raises(CellFailed, match="plain values"):
            isolation.run(code, wanted=("evil",))
    finally:
        isolation.close()
    assert not (tmp_path / "called").exists()
