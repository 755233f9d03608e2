"""A watcher of system calls: what a process, and all that it forks from now on, asks the kernel for, and when.

Source  strace(1); ptrace(2), "Attaching and detaching"; setpriv(1) --pdeathsig; proc_pid_status(5), TracerPid.
Rules   - watching begins when strace says that it is attached, and is over when it has let go; no clock is asked.
        - nothing stays: strace ends with the block, or with the thread that began it, also in a kernel that is killed.
          Who was watched goes on as before.
        - a watched process stops twice at each call, so it is slower: what is true is the order of the calls.

    with Watch(pid) as watch: ...  ->  strace -f -p pid  ->  a file in memory, one line a call  ->  watch.calls
                                            └─> a pipe with its own words: whom it is attached to, or why not
"""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from minidocker.errors import NotFound, Unsupported

BIRTHS = ("clone", "clone3", "fork", "vfork")
MOUNTS = ("mount", "open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount", "fspick")
RIGHTS = ("setgroups", "setresgid", "setresuid", "setgid", "setuid", "capset")
MAKING_A_CONTAINER = (
    *BIRTHS, "unshare", "setns", *MOUNTS, "pivot_root", "chroot", "umount2", "sethostname", "setdomainname",
    *RIGHTS, "seccomp", "execve", "execveat", "exit_group",
)  # fmt: skip
"""The calls of which a container is made, and those by which its processes begin and end."""

_PATIENCE_SECONDS = 20.0
_LONGEST_STRING = 64
_PROGRAMS = {"strace": "strace", "setpriv": "util-linux"}  # and Debian's packages with them
_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_BROKEN_OFF = re.compile(r"(\w+)\((.*?) ?<(?:unfinished|detached) \.\.\.>$")
_GONE_ON_WITH = re.compile(r"<\.\.\. \w+ resumed> ?(.*)")
_WHOLE = re.compile(r"(\w+)\((.*)\) += (\?|-?\d+|0x[0-9a-f]+)(?: (E[A-Z0-9]+)\b)?")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    when       it began, in seconds since the epoch, to the microsecond.
    pid        of the thread that made it, as strace's pid namespace numbers it.
    name       of the call; `arguments` as strace writes them.
    result     what it returned, -1 for an error; None: it did not return.
    error      the error's name ("ENOENT"), or "".
    """

    when: float
    pid: int
    name: str
    arguments: str
    result: int | None
    error: str = ""


class Watch:
    """Watches a process while its block lasts; then `calls` has what was seen, in the order in which it began."""

    def __init__(self, pid: int, names: Iterable[str] = MAKING_A_CONTAINER) -> None:
        """Prepare to watch.

        pid    of whom, and of all whom it forks meanwhile.
        names  of the calls; one that this kind of machine lacks is no error.
        """
        self.calls: tuple[Call, ...] = ()
        self._pid = pid
        self._filter = ",".join(f"?{name}" for name in names)
        self._said: list[str] = []
        self._decided = threading.Event()  # it is attached, or has ended
        self._process: subprocess.Popen[str] | None = None
        # To the end: a full pipe would stop strace, and whom it watches.
        self._listener = threading.Thread(target=self._listen, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Attach. Raises Unsupported: strace is missing, or may not watch here. NotFound: there is no such process."""
        for program, package in _PROGRAMS.items():
            if shutil.which(program) is None:
                raise Unsupported(f"{program} is not installed, which watches system calls: apt-get install {package}")
        self._lines = open(os.memfd_create("system calls"), encoding="ascii", errors="replace")  # until _end
        lines = self._lines.fileno()
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "strace", "-f", "-ttt", "-s", str(_LONGEST_STRING), "-e",
             f"trace={self._filter}", "-e", "signal=none", "-o", f"/proc/self/fd/{lines}", "-p", str(self._pid)],
            pass_fds=[lines], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,  # what interrupts the notebook's kernel spares it
        )  # fmt: skip
        try:
            self._listener.start()
            self._decided.wait(_PATIENCE_SECONDS)
            if not self._is_attached():
                raise self._refusal()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of all who are watched."""
        self._end()

    def _listen(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.strip())
            if self._is_attached():
                self._decided.set()
        self._decided.set()

    def _is_attached(self) -> bool:
        return any(words.startswith(f"strace: Process {self._pid} attached") for words in self._said)

    def _refusal(self) -> Exception:
        words = "; ".join(self._said) or "it says nothing"
        if "No such process" in words:
            return NotFound(f"process {self._pid} cannot be watched: there is none")
        return Unsupported(
            f"strace may not watch process {self._pid} ({words}): this needs CAP_SYS_PTRACE, a process that nobody "
            "else watches, and kernel.yama.ptrace_scope below 3"
        )

    def _end(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        try:
            self._process.terminate()  # it lets go of them one by one, and then ends
            self._process.wait(_PATIENCE_SECONDS)
        finally:
            self._process.kill()  # nothing, if it has ended
            self._process.wait()
            self._listener.join()
            self._process.stderr.close()
            self.calls = calls_of(self._lines)
            self._lines.close()


def calls_of(lines: Iterable[str]) -> tuple[Call, ...]:
    """The calls in what `strace -f -ttt` writes. A call during which another process's line came is put together."""
    calls: list[Call] = []
    begun: dict[int, tuple[float, str]] = {}  # by the pid: when, and the first part
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        pid, when, text = int(found[1]), float(found[2]), found[3]
        if broken := _BROKEN_OFF.match(text):
            begun[pid] = when, f"{broken[1]}({broken[2]}"
            continue
        if rest := _GONE_ON_WITH.match(text):
            when, first = begun.pop(pid, (when, ""))
            text = first + rest[1]
        if whole := _WHOLE.match(text):
            result = None if whole[3] == "?" else int(whole[3], 0)
            calls.append(Call(when, pid, whole[1], whole[2], result, whole[4] or ""))
    for pid, (when, text) in begun.items():  # those that never came back
        name, _, arguments = text.partition("(")
        calls.append(Call(when, pid, name, arguments, None))
    return tuple(sorted(calls, key=lambda call: call.when))
