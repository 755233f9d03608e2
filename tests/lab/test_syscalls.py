"""A watcher sees the calls of whom it watches and of his children, lets go of all, and says why where it may not."""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import NotFound, Unsupported
from minidocker.lab.props.syscalls import Call, Watch, calls_of

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
LISTENING = 'while read line; do eval "$line"; echo done; done'


@pytest.fixture
def shell() -> Iterator["subprocess.Popen[str]"]:
    """A process that does what it is told, line by line, and says when it is done."""
    process = subprocess.Popen(["sh", "-c", LISTENING], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        yield process
        assert _tracer(process.pid) == 0
        assert _tell(process, ":") == "done\n"  # it has not been harmed
        process.stdin.close()  # type: ignore[union-attr]
    assert process.returncode == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "watch"]


def _tell(process: "subprocess.Popen[str]", line: str) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline()


def _tracer(pid: int) -> int:
    """Who traces `pid`; 0: nobody."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("TracerPid:")).split()[1])


# ---------------------------------------------------------------- what is seen


@pytest.mark.needs_root
@needs_strace
def test_calls_of_a_process_and_of_its_child_are_seen_in_order(shell: "subprocess.Popen[str]") -> None:
    _tell(shell, "/bin/true")
    with Watch(shell.pid) as watch:
        assert _tracer(shell.pid) != 0
        _tell(shell, "unshare --uts hostname watched")
    _tell(shell, "/bin/true")
    births = [call for call in watch.calls if call.result and call.pid == shell.pid]
    assert len(births) == 1  # neither of the two before and after
    child = births[0].result
    told = [(call.name, call.arguments, call.result) for call in watch.calls if call.pid == child]
    assert [name for name, _, _ in told if name != "execve"] == ["unshare", "sethostname", "exit_group"]
    assert ("unshare", "CLONE_NEWUTS", 0) in told and ("sethostname", '"watched", 7', 0) in told
    assert told[-1] == ("exit_group", "0", None)
    assert [call.when for call in watch.calls] == sorted(call.when for call in watch.calls)


@pytest.mark.needs_root
@needs_strace
def test_only_the_calls_that_were_asked_for_are_seen(shell: "subprocess.Popen[str]") -> None:
    with Watch(shell.pid, ["chroot", "no_such_call"]) as watch:
        _tell(shell, "chroot /no/such/place /bin/true 2>/dev/null")
    (call,) = watch.calls
    assert (call.name, call.arguments, call.result, call.error) == ("chroot", '"/no/such/place"', -1, "ENOENT")


# ---------------------------------------------------------------- that nothing stays


@pytest.mark.needs_root
@needs_strace
def test_an_interrupted_block_lets_go(shell: "subprocess.Popen[str]") -> None:
    with pytest.raises(KeyboardInterrupt), Watch(shell.pid) as watch:
        _tell(shell, "/bin/true")
        raise KeyboardInterrupt
    assert watch.calls


@pytest.mark.needs_root
@needs_strace
def test_an_interrupt_while_it_is_attaching_lets_go(
    shell: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(shell.pid)

    def interrupted(_seconds: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch._decided, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), watch:
        pass
    assert watch._process is not None and watch._process.returncode is not None


@pytest.mark.needs_root
@needs_strace
def test_a_watcher_that_is_killed_takes_strace_along(shell: "subprocess.Popen[str]") -> None:
    code = (
        "import sys, time\nfrom minidocker.lab.props.syscalls import Watch\n"
        f"with Watch({shell.pid}) as watch:\n    print(watch._process.pid, flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        strace = os.pidfd_open(int(watcher.stdout.readline()))
        try:
            assert _tracer(shell.pid) != 0
            watcher.kill()
            assert select.select([strace], [], [], 10)[0]  # readable: it has ended
        finally:
            os.close(strace)
    assert watcher.returncode == -signal.SIGKILL


# ---------------------------------------------------------------- that a refusal is clear


def test_without_strace_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match=r"^strace is not installed.*apt-get install strace$"), Watch(1):
        pass


@pytest.mark.needs_root
@needs_strace
def test_of_a_process_that_has_ended_nothing_is_watched() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(NotFound, match=f"process {gone.pid} cannot be watched"), Watch(gone.pid):
        pass


@pytest.mark.needs_root
@needs_strace
def test_where_ptrace_is_forbidden_it_says_what_it_needs(
    shell: "subprocess.Popen[str]", in_child: Callable[..., Any]
) -> None:
    def as_nobody() -> str:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(Unsupported) as refused, Watch(shell.pid):
            pass
        return str(refused.value)

    words = in_child(as_nobody)
    assert words.startswith(f"strace may not watch process {shell.pid} (") and "Operation not permitted" in words
    assert "CAP_SYS_PTRACE" in words


@pytest.mark.needs_root
@needs_strace
def test_a_process_has_one_watcher(shell: "subprocess.Popen[str]") -> None:
    with Watch(shell.pid) as first:
        with pytest.raises(Unsupported, match="a process that nobody else watches"), Watch(shell.pid):
            pass
        _tell(shell, "/bin/true")
    assert first.calls


# ---------------------------------------------------------------- what strace writes

WRITTEN = """\
10  1700000000.000100 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD <unfinished ...>
11  1700000000.000200 unshare(CLONE_NEWNS) = 0
11  1700000000.000300 mount("proc", "/a) = 7", "proc", 0, NULL <unfinished ...>
10  1700000000.000400 <... clone resumed>, child_tidptr=0x7f) = 11
11  1700000000.000500 <... mount resumed>) = -1 EPERM (Operation not permitted)
11  1700000000.000600 execve("/bin/cat", ["cat"], 0x7ffd /* 3 vars */) = 0
11  1700000000.000700 exit_group(3)     = ?
11  1700000000.000800 +++ exited with 3 +++
12  1700000000.000250 pivot_root(".", "." <unfinished ...>
10  1700000000.000900 unshare(CLONE_NEWPID <detached ...>
"""


def test_a_call_that_was_cut_in_two_is_put_together() -> None:
    calls = calls_of(WRITTEN.splitlines())
    assert [(call.pid, call.name, call.arguments, call.result, call.error) for call in calls] == [
        (10, "clone", "child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7f", 11, ""),
        (11, "unshare", "CLONE_NEWNS", 0, ""),
        (12, "pivot_root", '".", "."', None, ""),
        (11, "mount", '"proc", "/a) = 7", "proc", 0, NULL', -1, "EPERM"),
        (11, "execve", '"/bin/cat", ["cat"], 0x7ffd /* 3 vars */', 0, ""),
        (11, "exit_group", "3", None, ""),
        (10, "unshare", "CLONE_NEWPID", None, ""),
    ]  # fmt: skip
    assert calls_of(["no call at all"]) == ()


def test_a_call_is_told_with_the_time_at_which_it_began() -> None:
    birth = calls_of(WRITTEN.splitlines())[0]
    assert birth == Call(1700000000.0001, 10, "clone", birth.arguments, 11)
