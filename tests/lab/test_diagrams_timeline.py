"""A timeline has requests and system calls in the order of their time, with nothing left out and nothing invented."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.client.client import Client
from minidocker.lab import room
from minidocker.lab.diagrams.requests import Request
from minidocker.lab.diagrams.timeline import KERNEL, request_timeline
from minidocker.lab.props.socket_tap import SocketTap, as_requests
from minidocker.lab.props.syscalls import Call, Watch

T = 1_700_000_000.0
REQUESTS = [
    Request("client", "daemon", "POST", "/containers/create", 201, 288, 88, "", T, T + 0.002, T + 0.002),
    Request("client", "daemon", "POST", "/wait", 200, 0, 17, "ends late", T + 0.003, T + 0.004, T + 0.040),
    Request("client", "daemon", "POST", "/start", 204, 0, 0, "", T + 0.005, T + 0.030, T + 0.030),
    Request("client", "daemon", "GET", "/lost", 0, 0, 0, "", T + 0.050),
]
CALLS = [
    Call(T + 0.010, 7, "clone", "flags=SIGCHLD", 8),
    Call(T + 0.011, 8, "unshare", "CLONE_NEWNS", 0),
    Call(T + 0.012, 8, "mount", '"proc", "/proc"', 0),
    Call(T + 0.013, 8, "mount", '"sysfs", "/sys"', 0),
    Call(T + 0.014, 8, "move_mount", '5, "", 7, ""', -1, "EINVAL"),
    Call(T + 0.015, 9, "mount", '"other"', 0),
    Call(T + 0.016, 8, "mount", '"again"', 0),
    Call(T + 0.017, 8, "execve", '"/bin/cat", ["cat"], 0x7ffd /* 3 vars */', 0),
    Call(T + 0.035, 8, "exit_group", "0", None),
]
NAMES = {7: "launcher", 8: "pid 1"}


def test_requests_answers_and_calls_are_rows_in_the_order_of_their_time() -> None:
    assert request_timeline(REQUESTS, CALLS, NAMES).rows == (
        ("0.0", "client", "daemon", "1  POST /containers/create  (288 B)"),
        ("2.0", "daemon", "client", "201 Created, 88 B, answer to 1"),
        ("3.0", "client", "daemon", "2  POST /wait"),
        ("4.0", "daemon", "client", "200 OK, answer to 2 begins"),
        ("5.0", "client", "daemon", "3  POST /start"),
        ("10.0", "launcher", "kernel", "clone = 8: pid 1"),
        ("11.0", "pid 1", "kernel", "unshare(CLONE_NEWNS)"),
        ("12.0", "pid 1", "kernel", "mount × 2, move_mount (1 × EINVAL)"),
        ("15.0", "process 9", "kernel", "mount"),
        ("16.0", "pid 1", "kernel", "mount"),
        ("17.0", "pid 1", "kernel", 'execve("/bin/cat", ["cat"])'),
        ("30.0", "daemon", "client", "204 No Content, answer to 3"),
        ("35.0", "pid 1", "kernel", "exit_group(0)"),
        ("40.0", "daemon", "client", "answer to 2 ends, 17 B"),
        ("50.0", "client", "daemon", "4  GET /lost"),
    )


def test_the_words_for_those_who_do_not_see_it_count_both_and_place_the_command() -> None:
    assert request_timeline(REQUESTS, CALLS, NAMES, "a run").alt == (
        "a run: 4 requests and 9 system calls (1 of launcher, 7 of pid 1, 1 of process 9); "
        "the first execve comes after request 3"
    )
    failed = [Call(T + 0.001, 8, "execve", '"/no"', -1, "ENOENT"), Call(T - 1, 8, "execve", '"/bin/sh"', 0)]
    assert request_timeline(REQUESTS, failed, NAMES).alt.endswith("(2 of pid 1)")


def test_without_calls_there_is_no_kernel_in_the_picture() -> None:
    assert f'"{KERNEL}"' not in request_timeline(REQUESTS, [], NAMES).dot
    assert f'"{KERNEL}"' in request_timeline(REQUESTS, CALLS, NAMES).dot


def test_requests_without_their_times_make_no_timeline() -> None:
    for requests in ([], [Request("client", "daemon", "GET", "/_ping", 200)]):
        with pytest.raises(ValueError, match="needs requests with their times"):
            request_timeline(requests, CALLS, NAMES)


def test_long_words_are_broken_into_lines_and_too_long_ones_are_cut() -> None:
    kinds = [f"CLONE_NEW{kind}" for kind in ("NS", "CGROUP", "UTS", "IPC", "NET")]
    calls = [
        Call(T + 0.006, 8, "unshare", "|".join(kinds), 0),
        Call(T + 0.007, 8, "execve", '"/bin/echo", ' + '"x", ' * 90, 0),
    ]
    picture = request_timeline(REQUESTS, calls, NAMES)
    assert 'label="unshare(CLONE_NEWNS|CLONE_NEWCGROUP|\\nCLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWNET)"' in picture.dot
    assert picture.rows[5][3] == f"unshare({'|'.join(kinds)})" and picture.rows[6][3].endswith("...)")


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot: apt-get install graphviz")
def test_what_comes_later_is_drawn_further_down_and_the_kernel_on_the_right() -> None:
    svg = request_timeline(REQUESTS, CALLS, NAMES).svg()
    assert svg is not None

    def place(words: str) -> tuple[float, float]:
        found = re.search(rf'x="([-.\d]+)" y="([-.\d]+)"[^>]*>[^<]*{re.escape(words)}', svg)
        assert found is not None, words
        return float(found[1]), float(found[2])

    heights = [place(words)[1] for words in ("create", "201 Created", "clone = 8", "execve", "204 No", "exit_group")]
    assert heights == sorted(heights)
    assert place("client")[0] < place("daemon")[0] < place("launcher")[0] < place("pid 1")[0] < place("kernel")[0]


# ---------------------------------------------------------------- a true run


@pytest.fixture
def daemon() -> Iterator[tuple[Client, room.Room]]:
    made = room.Room()
    yield made.daemon(), made
    made.close()


@pytest.mark.needs_root
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
def test_the_command_begins_between_the_request_to_start_it_and_the_answer(
    daemon: tuple[Client, room.Room], tmp_path: Path
) -> None:
    client, place = daemon
    pid = int((place.path / "daemon/exec/minidocker.pid").read_text())
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (launcher,) = [int(each) for each in children if "laun" in Path(f"/proc/{each}/comm").read_text()]
    tap = SocketTap(client.transport.url, tmp_path / "tap.sock")
    try:
        run = [sys.executable, "-m", "minidocker.cli", "-H", tap.url, "run", "--rm", "busybox", "echo", "hello"]
        with Watch(launcher) as watch:
            assert subprocess.run(run, capture_output=True, check=True).stdout == b"hello\n"
        requests = as_requests(tap.take(), queries=False)
    finally:
        tap.close()
    monitor, first, *_ = [call.result for call in watch.calls if call.name.startswith("clone") and call.result]
    rows = request_timeline(requests, watch.calls, {launcher: "launcher", monitor: "monitor", first: "pid 1"}).rows
    told = [f"{sender}: {words}" for _, sender, _, words in rows]
    order = ["/start", "launcher: clone", "monitor: clone", "pid 1: mount", "pid 1: pivot_root", "pid 1: seccomp",
             'pid 1: execve("/bin/echo"', "204 No Content", "monitor: exit_group"]  # fmt: skip
    found = [next(number for number, line in enumerate(told) if words in line) for words in order]
    assert found == sorted(found), told
