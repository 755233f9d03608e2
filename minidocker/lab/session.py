"""A notebook's session: the containers that it starts end with it, also when its kernel is killed.

Source  Docker Engine API, labels and their filters; pipe(7): a reader sees the end when the last writer is gone.
Rules   - what a lesson starts carries the session's label, and nothing else is ever removed.
        - neither `atexit` nor `finally` runs in a kernel that is killed. So a small process of its own waits for the
          end of a pipe whose only writer is the kernel, and then removes what carries the label.
        - `begin` also removes what an earlier run of the same kernel left, and what kernels left that are gone.
"""

import contextlib
import functools
import os
import subprocess
import sys

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.errors import Conflict, MinidockerError, NotFound
from minidocker.linux import namespaces, process

LABEL = "minidocker.notebook"


def begin(client: Client) -> dict[str, str]:
    """Begin a lesson (again): remove leftovers, and see to it that what it starts ends with this kernel.

    Returns  the label that each container of the lesson must carry: `containers.run(..., labels=mine)`.
    """
    mine = _identity(os.getpid())
    for container in client.containers.list(all=True, filters={"label": [LABEL]}):
        labels = container.attrs["Labels"]
        owner = str(labels[LABEL]) if isinstance(labels, dict) else ""
        if owner == mine or _is_gone(owner):
            with contextlib.suppress(NotFound, Conflict):  # somebody else removes it at this moment
                container.remove(force=True)
    _guard(mine)
    return {LABEL: mine}


def _identity(pid: int) -> str:
    """A process for good: its pid namespace, its number there, and when it started."""
    return f"{namespaces.inode('pid')}-{pid}-{process.start_time(pid)}"


def _is_gone(owner: str) -> bool:
    namespace, pid, _ = owner.split("-")
    if namespace != str(namespaces.inode("pid")):
        return False  # a number of another pid namespace: nothing can be said about it from here
    try:
        return _identity(int(pid)) != owner
    except MinidockerError:
        return True


@functools.cache
def _guard(mine: str) -> "subprocess.Popen[bytes]":
    """One for each kernel. A process group of its own, so that what interrupts or hangs up the kernel spares it."""
    return subprocess.Popen(
        [sys.executable, "-m", "minidocker.lab.session", mine],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """The guard: wait until the kernel has ended, however it ended, then remove its containers."""
    sys.stdin.buffer.read()
    for container in connect().containers.list(all=True, filters={"label": [f"{LABEL}={arguments[0]}"]}):
        with contextlib.suppress(MinidockerError):  # removed meanwhile; or the daemon is gone, then `begin` does it
            container.remove(force=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
