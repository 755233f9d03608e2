"""`docker top`: any style of ps options, and only the container's processes."""

import subprocess
from collections.abc import Iterator

import pytest

from minidocker.engine import processes
from minidocker.errors import InvalidArgument, MinidockerError


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a process without a terminal."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=subprocess.DEVNULL) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    "words",
    ["", "aux", "axf", "-C sleep", "-o pid,cmd", "-opid,cmd", "opid,cmd", "o pid,cmd", "-Csleep eopid,cmd --sort=pid",
     "--format pid,cmd", "aux --sort pid", "-o pid=PID,cmd"],
)  # fmt: skip
def test_any_style_of_options_shows_the_containers_processes(sleeper: int, words: str) -> None:
    shown = processes.top([sleeper], words)
    assert len(shown["Processes"]) == 1
    assert "sleep" in shown["Processes"][0][-1]


@pytest.mark.parametrize("words", ["-C sleep -o cmd", "--no-headers", "aux --noheader", "-o", "-o sasha", "--invalid"])
def test_output_without_pids_and_options_that_ps_refuses_are_failures(sleeper: int, words: str) -> None:
    with pytest.raises(MinidockerError):
        processes.top([sleeper], words)


@pytest.mark.parametrize("words", ["-o uid=PID,cmd", "-e -o ppid=PID"])
def test_no_other_column_may_be_called_pid(sleeper: int, words: str) -> None:
    with pytest.raises(InvalidArgument, match="is not allowed"):
        processes.top([sleeper], words)
