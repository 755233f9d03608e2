"""The command itself: found as a shell would find it, then executed: the last that our code does in a container.

Source  execve(2), seccomp(2); Docker's wording of what is not found or not executable.
Rules   - the file is looked for as the user who will run it, inside the container, after all else is done.
        - between filter and execve nothing happens but the report of an error.
        - arguments and environment are config.json's; HOME is added if it is missing.
"""

import errno
import os
import signal
import stat

from minidocker.errors import KernelError
from minidocker.linux import process, seccomp
from minidocker.runtime.step import FAILED, NOT_EXECUTABLE, NOT_FOUND, Inside, Step, StepFailed
from minidocker.runtime.sync import Message

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def environment(lines: list[str]) -> dict[str, str]:
    """NAME=value lines as a table; of two with the same name the later counts, and a line without `=` sets nothing."""
    return {name: value for name, separator, value in (line.partition("=") for line in lines) if separator and name}


def _why_not(path: str) -> int:
    """0 if `path` can be executed by the caller, else the errno."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno or errno.ENOENT
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return 0 if stat.S_ISREG(mode) and os.access(path, os.X_OK) else errno.EACCES


def find(name: str, search_path: str) -> str:
    """The file that the command `name` means.

    search_path  PATH; only used if `name` has no slash. An empty part means the working directory, as in a shell.
    Raises       StepFailed: with exit code 127 it is not there, with 126 it may not be executed.
    """
    if "/" in name:
        reason = _why_not(name)
        if not reason:
            return name
        what = "stat " + name + ": " if reason in _ABSENT else ""
        code = NOT_FOUND if reason in _ABSENT else NOT_EXECUTABLE
        raise StepFailed("", f'exec: "{name}": {what}{os.strerror(reason).lower()}', code)
    refused = False
    for directory in search_path.split(":") if name else ():
        candidate = os.path.join(directory or ".", name)
        reason = _why_not(candidate)
        if not reason:
            return candidate
        refused = refused or reason == errno.EACCES
    if refused:
        raise StepFailed("", f'exec: "{name}": permission denied', NOT_EXECUTABLE)
    raise StepFailed("", f'exec: "{name}": executable file not found in $PATH', NOT_FOUND)


def _exit_code(reason: int) -> int:
    if reason in _ABSENT:
        return NOT_FOUND
    return NOT_EXECUTABLE if reason in (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ETXTBSY) else FAILED


class Execute(Step, frozen=True):
    """Become the command."""

    args: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"exec {' '.join(self.args)}"

    def apply(self, inside: Inside) -> None:
        if not self.args:
            raise StepFailed("", "no command to execute", FAILED)
        for number in process.IGNORED_BY_PYTHON:
            process.reset_signal(number)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        path = find(self.args[0], inside.env.get("PATH", DEFAULT_PATH))
        inside.channel.send(Message("exec"))
        try:
            if inside.filter is not None:
                seccomp.load(inside.filter.program, inside.filter.flags)
            os.execve(path, self.args, inside.env)  # the true point at which the container runs
        except KernelError:
            raise
        except OSError as error:
            reason = error.errno or errno.ENOENT
            # A script whose interpreter is missing gives ENOENT though the file itself was found.
            why = os.strerror(reason).lower()
            raise StepFailed("", f"exec {path}: {why}", _exit_code(reason)) from None
