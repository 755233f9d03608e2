"""run, exec and attach: streams, exit statuses, signals and terminals, on Docker's daemon and on ours."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from docker_oracle import CommandLine, remove_all

SEVERAL_MEGABYTES = 3_000_000


@pytest.fixture(params=["dockerd", "minidockerd"])
def mini(request: pytest.FixtureRequest, cli: CommandLine) -> Iterator[CommandLine]:
    """Our client, on the one daemon and on the other."""
    line = replace(cli, environment={**cli.environment, "DOCKER_HOST": request.getfixturevalue(request.param)})
    yield line
    remove_all(line)


KILLED = "sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'"


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("sh -c 'exit 3'", 3), (KILLED, 137), ("nosuch", 127),
                                                 ("/etc/passwd", 126)])
def test_the_exit_status_is_the_commands(command: str, status: int, mini: Any) -> None:
    assert mini(f"run --rm box:1 {command}").status == status


def test_the_engines_own_failure_is_125(mini: Any) -> None:
    ended = mini("run --rm --memory 1m box:1 true")
    assert ended.status == 125
    assert ended.err.startswith("minidocker: Error response from daemon: ")
    assert ended.err.endswith("Run 'minidocker run --help' for more information\n")


def test_more_stdin_than_any_buffer_comes_back_whole(mini: Any) -> None:
    sent = os.urandom(SEVERAL_MEGABYTES)
    done = subprocess.run([*mini.program, "run", "--rm", "-i", "box:1", "cat"], input=sent, capture_output=True,
                          env=mini.environment, check=True, timeout=120)
    assert done.stdout == sent


def test_stdin_of_exec_ends_when_ours_ends(mini: Any) -> None:
    mini("run -d --name cc box:1 sleep 1000")
    assert mini("exec -i cc sh -c 'cat; echo end'", stdin=b"abc\n").out == "abc\nend\n"


def test_without_i_the_command_has_no_stdin(mini: Any) -> None:
    assert mini("run --rm box:1 cat", stdin=b"lost").out == ""


def test_a_signal_that_we_get_reaches_the_command(mini: Any) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while true; do sleep 0.1; done"
    with subprocess.Popen([*mini.program, "run", "--rm", "box:1", "sh", "-c", script], stdout=subprocess.PIPE,
                          env=mini.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"caught\n"
    assert process.returncode == 9


def test_the_reader_of_our_output_may_leave(mini: Any) -> None:
    with subprocess.Popen([*mini.program, "run", "--rm", "box:1", "sh", "-c", "while echo y; do :; done"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=mini.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(30) == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_detached_prints_the_id_and_cidfile_holds_it(mini: Any, tmp_path: Any) -> None:
    ended = mini(f"run -d --cidfile {tmp_path}/id box:1 sleep 1000")
    assert len(ended.out.strip()) == 64
    assert (tmp_path / "id").read_text() == ended.out.strip()


class Typist:
    """A terminal with a command on it."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self.process = process
        self.master = master
        self.seen = b""

    def expect(self, text: bytes) -> None:
        """Read until `text` has been seen."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.seen!r}"
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:
                raise AssertionError(f"the terminal closed before {text!r}: {self.seen!r}") from None

    def type(self, text: bytes) -> None:
        """Type it, and forget what was seen so far."""
        self.seen = b""
        os.write(self.master, text)


@contextmanager
def terminal(command: Any, *words: str, rows: int = 33, columns: int = 101) -> Iterator[Typist]:
    master, slave = pty.openpty()
    subprocess.run(["stty", "rows", str(rows), "cols", str(columns)], stdin=slave, check=True)
    process = subprocess.Popen([*command.program, *words], stdin=slave, stdout=slave, stderr=slave,
                               env=command.environment, start_new_session=True)
    os.close(slave)
    try:
        yield Typist(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_run_it_is_a_terminal_of_this_ones_size(mini: Any) -> None:
    with terminal(mini, "run", "--rm", "-it", "box:1", "sh") as typist:
        typist.expect(b"# ")
        typist.type(b"stty size; echo $((6*7))\n")
        typist.expect(b"42\r\n")
        assert b"33 101" in typist.seen
        typist.type(b"exit 4\n")
        assert typist.process.wait(60) == 4


def test_the_terminal_is_as_it_was_when_run_it_has_ended(mini: Any) -> None:
    master, slave = pty.openpty()
    before = subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout
    process = subprocess.Popen([*mini.program, "run", "--rm", "-it", "box:1", "true"], stdin=slave, stdout=slave,
                               stderr=slave, env=mini.environment)
    assert process.wait(60) == 0
    assert subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout == before
    os.close(master)
    os.close(slave)


def test_the_container_follows_when_the_terminal_changes_its_size(mini: Any) -> None:
    with terminal(mini, "run", "--rm", "-it", "box:1", "sh") as typist:
        typist.expect(b"# ")
        subprocess.run(["stty", "rows", "20", "cols", "50"], stdin=typist.master, check=True)
        os.kill(typist.process.pid, signal.SIGWINCH)
        typist.type(b"while [ \"$(stty size)\" != '20 50' ]; do sleep 0.1; done; echo $((7*8))\n")
        typist.expect(b"56\r\n")


def test_the_detach_keys_leave_the_container_running_and_attach_comes_back(mini: Any) -> None:
    with terminal(mini, "run", "-it", "--name", "cc", "box:1", "sh") as typist:
        typist.expect(b"# ")
        typist.type(b"\x10\x11")
        assert typist.process.wait(60) == 0
    assert mini("ps --format {{.Names}}").out == "cc\n"
    with terminal(mini, "attach", "--detach-keys", "ctrl-x,x", "cc") as typist:
        typist.type(b"echo $((6*9))\n")
        typist.expect(b"54\r\n")
        typist.type(b"\x18x")
        typist.process.wait(60)
    assert mini("ps --format {{.Names}}").out == "cc\n"


def test_exec_it_gives_a_shell(mini: Any) -> None:
    mini("run -d --name cc box:1 sleep 1000")
    with terminal(mini, "exec", "-it", "cc", "sh") as typist:
        typist.expect(b"# ")
        typist.type(b"echo $((5*5)); stty size; exit 6\n")
        typist.expect(b"33 101")
        assert typist.process.wait(60) == 6
