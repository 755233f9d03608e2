"""What all tests share: skipping without root, work in a child process, and the search for leftovers."""

import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.errors import MinidockerError

_LEFTOVER_PATIENCE_SECONDS = 3.0  # the machine's pid 1 may reap an orphan only after 1.6 s


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_root: skipped unless the tests run as root")
    config.addinivalue_line("markers", "needs_daemon: skipped unless root runs the tests and the course has a daemon")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("needs_daemon")]
    if needing and not _daemon_answers():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs root and the course's daemon: ./lab setup starts it"))
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("needs_root"):
                item.add_marker(pytest.mark.skip(reason="needs root: namespaces, mounts and cgroups are made"))


def _daemon_answers() -> bool:
    try:
        return os.geteuid() == 0 and connect().ping()
    except (OSError, MinidockerError):
        return False


@pytest.fixture
def in_child() -> Callable[..., Any]:
    """Call a function in a forked child and return what it returned: for unshare, setuid, prctl and all that stays.

    A failure in the child, failed assertions too, fails the test with the child's traceback.
    """
    return _in_child


def _in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                answer = (True, function(*arguments))
            except BaseException:
                answer = (False, traceback.format_exc())
            with open(writer, "wb") as pipe:
                pipe.write(pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    if not content:
        pytest.fail("the child ended without an answer")
    good, value = pickle.loads(content)
    if not good:
        pytest.fail(f"in the child:\n{value}")
    return value


class Leftovers:
    """Mounts, links, cgroups and processes that were not there before and whose text names one of `tokens`."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self._before = set(self._evidence())

    def claim(self, token: str) -> None:
        """Look for `token` too: a bridge's name, a container's ID, a cgroup's path."""
        self.tokens.append(token)

    def found(self) -> list[str]:
        """What is left, having given the dying time to go."""
        deadline = time.monotonic() + _LEFTOVER_PATIENCE_SECONDS
        while True:
            new = set(self._evidence()) - self._before
            left = sorted(
                text for text in new if any(token in text for token in self.tokens) or text.startswith("child ")
            )
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def _evidence(self) -> Iterator[str]:
        yield from (f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines())
        yield from (f"link {link}" for link in os.listdir("/sys/class/net"))
        yield from (f"cgroup {directory}" for directory, _, _ in os.walk("/sys/fs/cgroup"))
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
                stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            except OSError:
                continue
            ours = int(stat.rpartition(")")[2].split()[1]) == os.getpid()
            yield f"{'child' if ours else 'process'} {pid} {stat.split(')')[0].partition('(')[2]} {command}"


@pytest.fixture
def leftovers(tmp_path: Path) -> Iterator[Leftovers]:
    """Fails the test if it leaves something that names its tmp_path (or what it claims), or a child of its own."""
    made = Leftovers(str(tmp_path))
    yield made
    assert not made.found()
