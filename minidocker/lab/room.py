"""A room for one lesson: a directory, and daemons and registries in it, all of which end with the notebook's kernel.

Source  pipe(7): a reader sees the end when the last writer is gone.
Rules   - neither `atexit` nor `finally` runs in a kernel that is killed. So a keeper, a process of its own, starts
          everything and reads orders from a pipe whose only writer is the kernel; at the pipe's end it tidies up.
        - all servers listen on loopback or on a UNIX socket; nothing of the machine's own daemon is touched.
        - one room for each kernel: `begin` closes the one before.
        - a keeper that is killed, as with a sandboxed kernel's namespaces, leaves files: the next sweep removes them.

    kernel --orders, one JSON line each--> keeper --starts and ends--> registries, daemons
"""

import fcntl
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.errors import MinidockerError, NotFound, Unavailable
from minidocker.lab.setup import registry
from minidocker.linux.cgroups import Cgroup
from minidocker.storage import trees

# On the filesystem of the course's images, since an overlay cannot have its writable layer on another overlay.
HOME = Path("/var/lib/minidocker")
IMAGE = "busybox"
PREFIX, LOCK = "room-", "lock"
_TIMEOUT_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.02
_PLUGIN_SECONDS = 2  # so that one that hangs is seen to


class Room:
    """A directory (`path`) with servers in it. `close()` ends them and removes it; so does the kernel's end."""

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))
        # A session of its own, so that what interrupts or hangs up the kernel spares it. It alone keeps the lock.
        with (self.path / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "minidocker.lab.room", str(self.path)], pass_fds=[lock.fileno()], cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def folder(self, name: str, files: "dict[str, str] | None" = None) -> Path:
        """A directory in the room, with the given text files in it (name -> text); others of its files stay."""
        place = self.path / name
        place.mkdir(parents=True, exist_ok=True)
        for file, text in (files or {}).items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(text)
        return place

    def registry(self, name: str = "registry", *, storage_of: str = "") -> str:
        """Start a registry; its address, "127.0.0.1:PORT".

        storage_of  the name of another registry of this room, whose storage it shares.
        Raises      NotFound: docker-registry is not installed. Unavailable: it does not answer.
        """
        return self._order("registry", name, storage_of)

    def daemon(self, name: str = "daemon", *, image: str = IMAGE, load_from: Client | None = None) -> Client:
        """Start a daemon of its own, without network, and load `image` into it from the course's daemon.

        name       its directory in the room; plugins have their sockets in `plugins` below it, and 2 s for an answer.
                   That of an earlier one that has ended: the new one goes on with what that has left.
        load_from  the daemon that has the image; None: the course's.
        Raises     Unavailable: it does not answer (its log is quoted).
        """
        client = connect(self._order("daemon", name, ""))
        if image:
            client.images.load((load_from or connect()).images.save([image]))
        return client

    def _order(self, kind: str, name: str, storage_of: str) -> str:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        order = json.dumps({"make": kind, "name": name, "storage_of": storage_of})
        try:
            self._keeper.stdin.write(order.encode() + b"\n")
            self._keeper.stdin.flush()
            answer = self._keeper.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = b""
        if not answer:
            raise Unavailable("this room is closed: begin another one")
        found: dict[str, str] = json.loads(answer)
        if "missing" in found:
            raise NotFound(found["missing"])
        if "error" in found:
            raise Unavailable(found["error"])
        return found["address"]

    def close(self) -> None:
        """End all servers and remove the directory; returns when they are gone."""
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        with suppress(BrokenPipeError):
            self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()


def _parent() -> Path:
    return HOME if HOME.is_dir() else Path(tempfile.gettempdir())


def sweep() -> None:
    """Remove the rooms whose keepers were killed, with the namespaces of a sandboxed kernel for instance."""
    for place in _parent().glob(f"{PREFIX}*"):
        with suppress(OSError), (place / LOCK).open() as lock:  # a keeper that lives has the lock
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            trees.remove(place)


_open: list[Room] = []  # at most one: the kernel's


def begin() -> Room:
    """The kernel's room, new and empty; one that was there before is closed."""
    while _open:
        _open.pop().close()
    _open.append(Room())
    return _open[0]


# ---------------------------------------------------------------- the keeper


def _registry(root: Path, storage_of: str, ends: ExitStack) -> str:
    root.mkdir()
    if storage_of:
        (root / "data").symlink_to(root.parent / storage_of / "data")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ends.callback(registry.stop, root)
    registry.start(root, port)
    return f"127.0.0.1:{port}"


def _daemon(root: Path, _storage_of: str, ends: ExitStack) -> str:
    root.mkdir(exist_ok=True)
    url = f"unix://{root}/d.sock"
    roots = ["--data-root", str(root / "data"), "--exec-root", str(root / "exec"), "-H", url]
    with (root / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "minidocker.daemon.main", *roots, "--bridge", "none", "--cgroup-parent",
             f"/minidocker-{root.parent.name}-{root.name}", "--plugin-socket-dir", str(root / "plugins"),
             "--plugin-timeout", str(_PLUGIN_SECONDS)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
    ends.callback(_end_daemon, process, url, f"/minidocker-{root.parent.name}-{root.name}")
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"minidockerd does not answer:\n{(root / 'log').read_text(errors='replace')[-2000:]}")
        time.sleep(_LOOK_AGAIN_SECONDS)
    return url


def _answers(url: str) -> bool:
    try:
        return connect(url).ping()
    except (OSError, MinidockerError):
        return False


def _end_daemon(process: "subprocess.Popen[bytes]", url: str, cgroup: str) -> None:
    with suppress(OSError, MinidockerError):  # it may have ended by itself
        for container in connect(url).containers.list(all=True):
            with suppress(MinidockerError):
                container.remove(force=True)
    process.terminate()
    try:
        process.wait(_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    Cgroup.open(cgroup).remove()


_MAKERS: dict[str, Callable[[Path, str, ExitStack], str]] = {"registry": _registry, "daemon": _daemon}


def main(arguments: list[str]) -> int:
    """The keeper: do what the kernel orders until it has ended, however it ended; then tidy up."""
    directory = Path(arguments[0])
    with ExitStack() as ends:
        ends.callback(partial(trees.remove, directory))
        for line in sys.stdin:
            order = json.loads(line)
            try:
                made = _MAKERS[order["make"]](directory / order["name"], order["storage_of"], ends)
                answer = {"address": made}
            except NotFound as error:
                answer = {"missing": str(error)}
            except (MinidockerError, OSError) as error:
                answer = {"error": str(error)}
            with suppress(BrokenPipeError):
                print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
