"""Output, input, terminals and logs: what goes through the monitor."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from boxes import Attached, Box, eventually, wait_readable

from minidocker.runtime.jsonlog import JsonLog
from minidocker.runtime.rotating_log import PARTIAL_BYTES, LogTarget, split

Make = Callable[..., Box]


def entries(path: Path) -> list[dict[str, str]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def test_stdout_and_stderr_are_logged_apart(box: Make) -> None:
    one = box("sh", "-c", "echo out; echo err >&2")
    one.run()
    assert (one.logged("stdout"), one.logged("stderr")) == ("out\n", "err\n")


def test_a_line_without_newline_is_logged_without_one(box: Make) -> None:
    one = box("printf", "hello")
    one.run()
    assert [entry["log"] for entry in entries(one.log)] == ["hello"]


def test_a_long_line_is_logged_in_parts_of_16_kib(box: Make) -> None:
    one = box("sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo")
    one.run()
    parts = [entry["log"] for entry in entries(one.log)]
    assert [len(part) for part in parts] == [PARTIAL_BYTES, PARTIAL_BYTES, 40000 - 2 * PARTIAL_BYTES + 1]
    assert [part.endswith("\n") for part in parts] == [False, False, True]


def test_the_log_is_whole_when_the_exit_is_recorded(box: Make) -> None:
    one = box("sh", "-c", "seq 20000")
    one.run()
    assert one.logged() == "".join(f"{number}\n" for number in range(1, 20001))


@pytest.mark.parametrize("chunk", [1, 7, 4096, PARTIAL_BYTES, 100_000])
def test_a_log_is_the_same_however_the_bytes_arrive(tmp_path: Path, chunk: int) -> None:
    text = b"".join(b"%d %s\n" % (number, b"x" * (number % 37)) for number in range(3000)) + b"y" * 50_000
    log = JsonLog(LogTarget(str(tmp_path / "log")))
    for start in range(0, len(text), chunk):
        log.write("stdout", text[start : start + chunk])
    log.close()
    assert "".join(entry["log"] for entry in entries(tmp_path / "log")).encode() == text


def test_rotation_keeps_the_newest_files_and_loses_no_line_between_them(tmp_path: Path) -> None:
    log = JsonLog(LogTarget(str(tmp_path / "log"), max_bytes=2000, max_files=3))
    for number in range(100):
        log.write("stdout", b"%d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    kept = [int(entry["log"]) for name in ("log.2", "log.1", "log") for entry in entries(tmp_path / name)]
    assert kept == list(range(kept[0], 100))


def test_split_keeps_the_unfinished_line() -> None:
    assert split(b"a\nb\nc") == ([b"a\n", b"b\n"], b"c")


def test_an_attach_before_start_gets_the_first_byte(box: Make) -> None:
    one = box("sh", "-c", "echo first; echo second >&2")
    one.create()
    client = one.attach()
    assert client.answer == {"ok": True, "tty": False}
    one.start()
    frames = client.frames()
    assert sorted(frames) == [(1, b"first\n"), (2, b"second\n")]


def test_only_the_wanted_streams_come(box: Make) -> None:
    one = box("sh", "-c", "echo first; echo second >&2")
    one.create()
    client = one.attach(stdout=False)
    one.start()
    assert client.frames() == [(2, b"second\n")]


def test_a_half_close_is_the_end_of_stdin_and_output_still_comes(box: Make) -> None:
    one = box("sh", "-c", "cat; echo done")
    one.create(open_stdin=True, stdin_once=True)
    client = one.attach(stdin=True)
    one.start()
    client.socket.sendall(b"hello\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert b"".join(content for _, content in client.frames()) == b"hello\ndone\n"
    assert one.wait().code == 0


def test_stdin_stays_open_when_it_is_not_for_once(box: Make) -> None:
    one = box("sh", "-c", "read a; read b; echo $a $b")
    one.create(open_stdin=True)
    one.start()
    for word in (b"one\n", b"two\n"):
        client = one.attach(stdin=True, stdout=False, stderr=False)
        client.socket.sendall(word)
        client.socket.close()
        client.file.close()
    one.wait()
    assert one.logged() == "one two\n"


def test_without_open_stdin_the_command_reads_an_end_at_once(box: Make) -> None:
    assert box("sh", "-c", "cat; echo end").run() == "end\n"


def test_much_input_goes_through_unharmed(box: Make) -> None:
    one = box("md5sum")
    one.create(open_stdin=True, stdin_once=True)
    client = one.attach(stdin=True)
    one.start()
    client.socket.sendall(os.urandom(1) * 3_000_000)
    client.socket.shutdown(socket.SHUT_WR)
    assert len(client.frames()[0][1].split()[0]) == 32


def test_a_client_that_does_not_read_holds_the_container_but_loses_nothing(box: Make) -> None:
    one = box("sh", "-c", "seq 200000; echo end >&2")
    one.create()
    slow = one.attach()
    one.start()
    assert eventually(lambda: one.log.stat().st_size > 10_000)
    content = b"".join(text for stream, text in slow.frames() if stream == 1)
    assert content == b"".join(b"%d\n" % number for number in range(1, 200001))
    one.wait()
    assert one.logged("stdout").encode() == content


def test_a_client_that_goes_away_lets_the_container_go_on(box: Make) -> None:
    one = box("sh", "-c", "seq 200000")
    one.create()
    client = one.attach()
    one.start()
    client.file.close()
    client.socket.close()
    assert one.wait().code == 0


def test_a_watcher_is_told_of_new_lines_and_of_the_end(box: Make) -> None:
    one = box("sh", "-c", "echo one; read x; echo two")
    one.create(open_stdin=True)
    watcher = one.runtime.open_attach(one.id)
    watcher.sendall(b'{"op":"watch"}\n')
    file = watcher.makefile("rb")
    assert msgspec.json.decode(file.readline())["ok"]
    one.start()
    assert file.readline() == b"\n"
    assert one.logged() == "one\n"
    one.attach(stdin=True).socket.sendall(b"\n")
    while file.readline():
        pass
    assert one.logged() == "one\ntwo\n"


def test_a_terminal_is_a_terminal_with_the_size_that_was_asked_for(box: Make) -> None:
    one = box("sh", "-c", "tty; stty size; test -c /dev/console && echo console", terminal=True)
    assert one.run(size=(33, 77)).split() == ["/dev/pts/0", "33", "77", "console"]


def test_a_resize_reaches_the_terminal(box: Make) -> None:
    one = box("sh", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done", terminal=True)
    one.create(open_stdin=True)
    client = one.attach()
    assert client.answer["tty"] is True
    one.start()
    client.until(b"ready\r\n")
    one.runtime.resize(one.id, 40, 100)
    assert b"40 100" in client.until(b"100\r\n")
    assert one.wait().code == 0


def test_a_terminal_takes_input_and_its_signals(box: Make) -> None:
    one = box("sh", "-c", "echo ready; cat; echo never", terminal=True)
    one.create(open_stdin=True)
    client = one.attach(stdin=True)
    one.start()
    client.until(b"ready\r\n")
    client.socket.sendall(b"hello\n")
    client.until(b"hello\r\nhello\r\n")
    client.socket.sendall(b"\x04")  # end of file for cat
    assert b"never" in client.until(b"never\r\n")


def test_a_terminal_of_another_user_belongs_to_them(box: Make) -> None:
    one = box("sh", "-c", "ls -ln $(tty); echo again > /dev/console; echo more > /dev/stdout", terminal=True)
    one.config["annotations"]["org.minidocker.user"] = "www-data"
    fields = one.run().split()
    assert fields[2] == "33" and fields[-2:] == ["again", "more"]


def test_another_user_can_open_dev_stdout(box: Make) -> None:
    one = box("sh", "-c", "echo hello > /dev/stdout; echo bad > /dev/stderr")
    one.config["annotations"]["org.minidocker.user"] = "33"
    one.run()
    assert (one.logged("stdout"), one.logged("stderr")) == ("hello\n", "bad\n")


def test_an_unknown_wish_is_refused(box: Make) -> None:
    one = box("sleep", "1000").start()
    for line in (b'{"op":"dance"}\n', b"nonsense\n", b"x" * 5000):
        connection = one.runtime.open_attach(one.id)
        connection.sendall(line)
        assert b'"ok":false' in connection.recv(4096)
        connection.close()


def test_a_monitor_imports_nothing_after_the_fork_and_stays_small(box: Make) -> None:
    one = box("sleep", "1000").start()
    assert one.created is not None
    rollup = Path(f"/proc/{one.created.monitor_pid}/smaps_rollup").read_text()
    pss_kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss_kib < 12_000  # shared pages are counted by half while few monitors share them
    assert one.created.monitor_pidfd >= 0
    one.runtime.kill_all(one.id)
    wait_readable(one.created.monitor_pidfd)


def test_an_attached_client_sees_the_end(box: Make) -> None:
    one = box("true")
    one.create()
    client: Attached = one.attach()
    one.start()
    assert client.frames() == []
