"""A notebook's session: what it starts and makes ends with it, also when its kernel is killed.

Source  Docker Engine API, labels and their filters; pipe(7): a reader sees the end when the last writer is gone.
Rules   - what a lesson starts or makes carries the session's label, and nothing else is ever removed.
        - containers go first, since they use the rest; then networks, volumes and images.
        - neither `atexit` nor `finally` runs in a kernel that is killed. So a small process of its own waits for the
          end of a pipe whose only writer is the kernel, and then removes what carries the label.
        - `begin` also removes what an earlier run of the same kernel left, and what kernels left that are gone.
"""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.client.containers import Container
from minidocker.client.images import Image
from minidocker.client.networks import Network
from minidocker.client.resource import Resource
from minidocker.client.volumes import Volume
from minidocker.errors import Conflict, Forbidden, MinidockerError, NotFound
from minidocker.linux import namespaces, process

LABEL = "minidocker.notebook"


def begin(client: Client) -> dict[str, str]:
    """Begin a lesson (again): remove leftovers, and see to it that what it starts ends with this kernel.

    Returns  the label that all that the lesson makes must carry, as `labels=mine`: containers, networks, volumes and
             images that it builds.
    """
    mine = _identity(os.getpid())
    remove(client, LABEL, lambda owner: owner == mine or _is_gone(owner))
    _guard(mine, client.transport.url)
    return {LABEL: mine}


def remove(client: Client, label: str, is_due: Callable[[str], bool]) -> None:
    """Remove the containers, networks, volumes and images with this label ("key" or "key=value") whose owner is due."""
    wanted = {"label": [label]}
    kinds: tuple[Callable[[], Sequence[Resource]], ...] = (
        lambda: client.containers.list(all=True, filters=wanted),
        lambda: client.networks.list(filters=wanted),
        lambda: client.volumes.list(filters=wanted),
        lambda: client.images.list(filters=wanted),
    )
    for found in kinds:
        for item in found():
            labels = item.attrs.get("Labels")
            if isinstance(labels, dict) and is_due(str(labels.get(LABEL))):
                # Somebody else removes it at this moment, or an owner that lives uses it: whoever is last removes it.
                with contextlib.suppress(NotFound, Conflict, Forbidden):
                    _remove(client, item)


def _remove(client: Client, item: Resource) -> None:
    if isinstance(item, Container):
        item.remove(force=True, volumes=True)
    elif isinstance(item, Image):
        client.images.remove(item.id, force=True)  # under all its names
    elif isinstance(item, Network | Volume):
        item.remove()


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
def _guard(mine: str, url: str) -> "subprocess.Popen[bytes]":
    """One for each kernel and daemon, in a session of its own, so that what interrupts the kernel spares it."""
    return subprocess.Popen(
        [sys.executable, "-m", "minidocker.lab.session", mine, url],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """The guard: wait until the kernel has ended, however it ended, then remove what it made."""
    sys.stdin.buffer.read()
    with contextlib.suppress(MinidockerError):  # the daemon is gone: the next `begin` does it
        remove(connect(*arguments[1:]), f"{LABEL}={arguments[0]}", lambda _: True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
