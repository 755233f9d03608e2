"""System calls: the door between Python and the kernel. The only module that uses ctypes.

Source  syscall(2); errno(3); syscalls(2); the ctypes chapter of the Python library reference;
        numbers: kernel arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64).
Rules   - every argument is one machine word: a number, or the address of a buffer. We declare them all as `void *`,
          since a Python int without a declared type would be cut to 32 bits.
        - a buffer that the kernel fills is a bytearray; one that it only reads is bytes. A C string is
          `c_string(text)`.
        - a result of -1 means failure and becomes KernelError with errno, the object and a hint; nothing else is
          checked.
        - a call that a signal interrupts is not repeated here: EINTR is the caller's to judge.
"""

import ctypes
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

from minidocker.errors import InvalidArgument, KernelError

Word = int | bytes | bytearray | None | ctypes.Array[Any]

libc = ctypes.CDLL(None, use_errno=True)  # None: the C library that this process already runs on

# Calls without a function in every C library that we meet. Numbers from 424 up are the same on all machines.
_EVERYWHERE = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_BY_MACHINE = {
    "x86_64": {"capget": 125, "capset": 126, "pivot_root": 155, "keyctl": 250, "seccomp": 317, "bpf": 321},
    "aarch64": {"capget": 90, "capset": 91, "pivot_root": 41, "keyctl": 219, "seccomp": 277, "bpf": 280},
}
NUMBERS: Mapping[str, int] = MappingProxyType(_EVERYWHERE | _BY_MACHINE.get(os.uname().machine, {}))


def c_string(text: str | bytes | os.PathLike[str]) -> bytes:
    """`text` as the bytes of a C string; the C library adds the final zero.

    Raises  InvalidArgument if a zero byte is in it: the kernel would silently see only what stands before.
    """
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise InvalidArgument(f"{encoded!r} holds a zero byte, which no path or option of the kernel may")
    return encoded


@cache
def _function(name: str, argument_count: int) -> Callable[..., int]:
    """The C function for `name`: libc's own, or syscall(2) with the number as its first argument already known."""
    words = [ctypes.c_void_p] * argument_count
    number = NUMBERS.get(name)
    if number is None:
        return ctypes.CFUNCTYPE(ctypes.c_int, *words, use_errno=True)((name, libc))
    raw = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *words, use_errno=True)(("syscall", libc))
    return partial(raw, number)


def prepare(calls: Mapping[str, int]) -> None:
    """Look calls up beforehand, `clone_process` too: what ctypes makes for each takes 0.1 ms, and a fork inherits it.

    calls  name and number of arguments.
    """
    for name, argument_count in calls.items():
        _function(name, argument_count)
    _clone3()
    for name in ("PyOS_BeforeFork", "PyOS_AfterFork_Child", "PyOS_AfterFork_Parent"):
        getattr(ctypes.pythonapi, name)  # which keeps what it has found


@cache
def _clone3() -> Callable[[int, bytes, int], int]:
    # PyDLL keeps the interpreter lock: the child must come back holding it.
    clone3 = ctypes.PyDLL(None, use_errno=True).syscall
    clone3.restype, clone3.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t]
    return clone3


def syscall(name: str, *args: Word, path: object = None, hint: str | Mapping[int, str] = "") -> int:
    """Make the system call `name` and return its result.

    args    numbers, buffers or None (a null pointer), in the order of the manual page.
    path    the object that an error should name.
    hint    what may help, said with the error; a mapping gives one hint an errno.
    Raises  KernelError when the kernel answers -1; AttributeError if neither libc nor our table knows the name.
    Source  syscall(2); the call's own page in section 2.
    """
    words = [(ctypes.c_char * len(word)).from_buffer(word) if isinstance(word, bytearray) else word for word in args]
    result = _function(name, len(words))(*words)
    if result == -1:
        errno = ctypes.get_errno()
        raise KernelError(name, path, errno, hint if isinstance(hint, str) else hint.get(errno, ""))
    return result


def clone_process(arguments: bytes) -> int:
    """clone3(2) in place of fork(2): 0 in the child, its pid in the parent. Python is told in both, as by os.fork.

    arguments  struct clone_args, without memory sharing (no CLONE_VM). The caller must have one thread.
    Raises     KernelError: ENOSYS before Linux 5.3; EINVAL, E2BIG, EBUSY, EAGAIN as clone3's page says.
    """
    clone3 = _clone3()
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = clone3(NUMBERS["clone3"], arguments, len(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    errno = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise KernelError("clone3", None, errno)
    return int(pid)
