"""Terminals: a pty is a pair of files, the master for the program that shows it, the slave for the program inside.

Source  pty(7), ioctl_tty(2), credentials(7) on sessions; kernel Documentation/filesystems/devpts.rst.
Rules   - each container has a devpts of its own; its pty must come from THAT instance, so that the name /dev/pts/0
          means the same inside.
        - the slave is opened from the master (TIOCGPTPEER), never by its name: what stands at the name may be someone
          else's.
        - O_NOCTTY always: opening must not make it our own controlling terminal.
        - whoever reads the master must have closed the slave, or it never sees the end (EIO, when the last one closes).
"""

import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import TypeVar

from minidocker.errors import KernelError

# asm-generic/ioctls.h; the same on x86_64 and aarch64. Python's termios lacks them.
_TIOCGPTN = 0x80045430  # number of the pty
_TIOCSPTLCK = 0x40045431  # lock or unlock the slave
_TIOCGPTPEER = 0x5441  # open the slave (Linux 4.13)

_OPEN = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_T = TypeVar("_T")


def open_pty(devpts_root: str = "/dev/pts") -> tuple[int, int, str]:
    """A new pty of the devpts mounted at `devpts_root`: master descriptor, slave descriptor, the slave's name there.

    Raises  KernelError: ENOENT no devpts there, ENOTTY something else is there, ENOSPC no pty is left.
    Source  pty(7); TIOCGPTPEER in ioctl_tty(2).
    """
    ptmx = f"{devpts_root}/ptmx"
    master = _call("open", ptmx, lambda: os.open(ptmx, _OPEN | os.O_NOFOLLOW))
    try:
        answer = _call("ioctl TIOCGPTN", ptmx, lambda: fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        _call("ioctl TIOCSPTLCK", ptmx, lambda: fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0)))
        slave = _call("ioctl TIOCGPTPEER", ptmx, lambda: fcntl.ioctl(master, _TIOCGPTPEER, _OPEN))
    except BaseException:
        os.close(master)
        raise
    return master, slave, f"{devpts_root}/{struct.unpack('I', answer)[0]}"


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Tell the terminal its size in characters; the foreground processes get SIGWINCH if it changed.

    Raises  KernelError: ENOTTY `fd` is no terminal.
    """
    _call("ioctl TIOCSWINSZ", f"fd {fd}", lambda: termios.tcsetwinsize(fd, (rows, columns)))


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns of the terminal `fd`; (0, 0) if nobody set them.

    Raises  KernelError: ENOTTY `fd` is no terminal.
    """
    rows, columns = _call("ioctl TIOCGWINSZ", f"fd {fd}", lambda: termios.tcgetwinsize(fd))
    return rows, columns


def make_controlling(fd: int) -> None:
    """Start a session whose controlling terminal is `fd`, so that ^C and hang-ups reach the caller and its children.

    Raises  KernelError: EPERM the terminal belongs to another session, or the caller leads a process group.
    Source  setsid(2); TIOCSCTTY in ioctl_tty(2).
    """
    if os.getsid(0) != os.getpid():
        _call("setsid", None, os.setsid)
    _call("ioctl TIOCSCTTY", f"fd {fd}", lambda: fcntl.ioctl(fd, termios.TIOCSCTTY, 0))


def _call(name: str, path: str | None, function: Callable[[], _T]) -> _T:
    try:
        return function()
    except (OSError, termios.error) as error:  # termios.error is no OSError, but has the same arguments
        raise KernelError(name, path, error.args[0]) from error
