"""Swap it in: an engine of its own that runs on a learner's functions in place of its own.

Source  Python's "Command line and environment", PYTHONPATH; unix(7).
Rules   - the engine that runs is a copy of the package: symbolic links, but for the modules that are extended. The
          package itself is never changed.
        - an extended module is its own text, followed by code that binds the engine's name to the learner's function.
          The learner's text is a module of its own, `minidocker.learned`, so that no helper of his hides one of ours.
        - the daemon has roots, a socket, a bridge and a control group of its own, and no port. All of it goes at the
          end of the block, or with the kernel: a guard process waits for the end of a pipe that only the kernel has.

    kernel ──pipe──> guard: at its end, remove all that names the root
       └──> minidockerd of the copy, on root/data, root/exec and root/d.sock
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.errors import MinidockerError
from minidocker.lab.checks import definition_of
from minidocker.lab.definitions import Definition, Learned, code_of
from minidocker.lab.setup import base_image
from minidocker.linux import mounts
from minidocker.linux.cgroups import Cgroup
from minidocker.network import host
from minidocker.network.bridge import default_network
from minidocker.network.firewall import Firewall
from minidocker.network.nftables import Nftables
from minidocker.oci.digest import Digest

ROOT = Path("/var/lib/minidocker-swap")
PACKAGE = Path(__file__).resolve().parents[1]
LEARNED = "learned"
START_TIMEOUT_SECONDS = 20
STOP_TIMEOUT_SECONDS = 20
SHOWN_LINES = 6
_DAEMON = "import sys; from minidocker.daemon.main import main; sys.exit(main())"
_SEAM = "\n\n# ---- swapped in by the learner ----\n"


class SwapFailed(MinidockerError):
    """The engine does not run with what was swapped in; shown as a few lines, the last ones of its log."""

    def __init__(self, reason: str, log: Sequence[str] = ()) -> None:
        self.lines = [f"Not yet: {reason}", *(f"  {line[:200]}" for line in log[-SHOWN_LINES:])]
        super().__init__("\n".join(self.lines))

    def _render_traceback_(self) -> list[str]:
        return self.lines


@dataclass(frozen=True, slots=True)
class Swapped:
    """A running engine with other parts: a client of it, and where it is."""

    client: Client
    root: Path

    @property
    def url(self) -> str:
        """Its socket, as `minidocker -H` takes it."""
        return _url(self.root)

    def log(self) -> list[str]:
        """The lines that its daemon has written."""
        return _log(self.root)


@contextlib.contextmanager
def engine(
    additions: Mapping[str, str],
    *,
    definitions: Sequence[Learned | Definition] = (),
    network: bool = True,
    busybox: bool = True,
    flags: Sequence[str] = (),
) -> Iterator[Swapped]:
    """Run an engine whose modules are followed by other code; at the end of the block nothing of it is left.

    additions    module ("minidocker.storage.extract") to the code that follows its text; the learner's definitions are
                 known there by their names. Usually: `def adapter(...): ...` and `name_in_the_engine = adapter`.
    definitions  the learner's functions and classes.
    network      False: without a bridge, which is faster; containers have their loopback only.
    busybox      False: without the image `busybox`, which is loaded through the swapped engine otherwise.
    flags        of its daemon, such as ["--plugin-socket-dir", "/somewhere"].
    Raises       SwapFailed: the engine does not start, or cannot load its first image.
    """
    texts = [definition_of(learned) for learned in definitions]
    remove_abandoned()
    ROOT.mkdir(mode=0o711, parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="", dir=ROOT))
    root.chmod(0o711)
    guard = _guard(root)
    client = connect(_url(root))
    try:
        extend(root / "code", additions, texts)
        daemon = _start(root, network, flags)
        archive = _archive() if busybox else b""  # made while the daemon starts
        _wait_for(daemon, root)
        if busybox:
            _load(client, root, archive)
        yield Swapped(client, root)
    finally:
        client.close()
        assert guard.stdin is not None
        guard.stdin.close()
        if guard.wait() != 0:
            remove(root)


# ---------------------------------------------------------------- the copy of the package


def extend(code: Path, additions: Mapping[str, str], definitions: Sequence[Definition]) -> None:
    """Make a copy of the package in the directory `code`, with extended modules, and the learner's as one more.

    Raises  SwapFailed: there is no such module, or a text is no Python.
    """
    copy = code / PACKAGE.name
    # Links to compiled modules too, one by one: Python replaces the link, not its target, where it compiles anew.
    shutil.copytree(PACKAGE, copy, copy_function=_link, ignore=shutil.ignore_patterns("lab", "cli"))
    (copy / f"{LEARNED}.py").write_text(_checked(code_of(definitions), "the learner's code"))
    names = ", ".join(definition.name for definition in definitions)
    known = f"from {PACKAGE.name}.{LEARNED} import {names}\n" if names else ""
    for module, addition in additions.items():
        path = code / Path(*module.split(".")).with_suffix(".py")
        if not path.is_file():
            raise SwapFailed(f"there is no module {module} to swap something into")
        text = path.read_text() + _SEAM + known + _checked(addition, f"the code for {module}")
        path.unlink()
        path.write_text(text)


def _link(source: str, target: str) -> str:
    os.symlink(source, target)
    return target


def _checked(text: str, what: str) -> str:
    try:
        compile(text, what, "exec")
    except SyntaxError as error:
        raise SwapFailed(f"{what} is no Python: {error}") from None
    return text


# ---------------------------------------------------------------- its daemon


def _url(root: Path) -> str:
    return f"unix://{root}/d.sock"


def _log(root: Path) -> list[str]:
    return (root / "log").read_text(errors="replace").splitlines()


def _start(root: Path, network: bool, flags: Sequence[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", _DAEMON, "--data-root", str(root / "data"), "--exec-root", str(root / "exec")]
    command += ["-H", _url(root), *([] if network else ["--bridge", "none"]), *flags]
    path = [str(root / "code"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (root / "log").open("ab") as log:
        return subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}, cwd="/",
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _wait_for(daemon: "subprocess.Popen[bytes]", root: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _answers(root):
        if daemon.poll() is not None:
            raise SwapFailed("the engine does not start with what was swapped in", _log(root))
        if time.monotonic() > deadline:
            raise SwapFailed(f"the engine did not answer within {START_TIMEOUT_SECONDS} s", _log(root))
        time.sleep(0.02)


def _answers(root: Path) -> bool:
    if not (root / "d.sock").exists():
        return False
    try:
        with connect(_url(root)) as client:
            return client.ping()
    except (OSError, MinidockerError):
        return False


def _load(client: Client, root: Path, archive: bytes) -> None:
    try:
        client.images.load(archive)
    except MinidockerError as error:
        raise SwapFailed(f"the engine cannot load the image busybox: {error}", _log(root)) from None


def _archive() -> bytes:
    """The image `busybox`, as `docker save` writes it."""
    image = base_image.build()
    config = Digest.of(image.config).hex + ".json"
    manifest = [{"Config": config, "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (
            ("layer.tar", image.layer), (config, image.config), ("manifest.json", json.dumps(manifest).encode())
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


# ---------------------------------------------------------------- the guard, and the end


def _guard(root: Path) -> "subprocess.Popen[bytes]":
    """In a session of its own, so that what interrupts the kernel spares it. It alone holds the root's lock."""
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.Popen(
            [sys.executable, "-m", "minidocker.lab.swap", str(root)], pass_fds=[lock.fileno()], cwd="/",
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def remove_abandoned() -> None:
    """Remove what a guard left that was killed, with the namespaces of a sandboxed kernel for instance."""
    for root in ROOT.glob("*"):
        with contextlib.suppress(OSError), (root / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(root)


def main(arguments: list[str]) -> int:
    """The guard: wait until the block or the kernel has ended, however it ended, then remove all of the engine."""
    sys.stdin.buffer.read()
    remove(Path(arguments[0]))
    return 0


def remove(root: Path) -> None:
    """Remove the engine at `root` with all that it made, whether or not it still works."""
    exec_root = root / "exec"
    names = host.names(exec_root)
    cgroup = Cgroup.open(f"/minidocker-{names.table.rpartition('-')[2]}")
    _end(lambda: _processes(str(exec_root)))
    with contextlib.suppress(MinidockerError, OSError):
        cgroup.kill()
    with contextlib.suppress(MinidockerError):  # no libnftables, so no rule of ours either
        firewall = Firewall(names.table, Nftables())
        for bridge in host.marked_bridges(names.table):
            firewall.remove_network(bridge)
            host.remove_bridge(bridge)
        if network := default_network(exec_root):
            network.remove()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (place := line.split()[4]).startswith(f"{root}/"):
            with contextlib.suppress(MinidockerError):
                mounts.unmount(place, detach=True)
    with contextlib.suppress(MinidockerError, OSError):
        cgroup.remove()
    shutil.rmtree(root, ignore_errors=True)
    with contextlib.suppress(OSError):  # another engine is there
        ROOT.rmdir()


def _processes(word: str) -> list[int]:
    """The processes with `word` in an argument: the daemon, and its servers and monitors, which all name its root."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(argument == word or argument.startswith(f"{word}/") for argument in arguments):
                    found.append(int(entry.name))
    return found


def _end(find: Callable[[], list[int]]) -> None:
    """Kill, and look again, since one may have been forked meanwhile. Raises MinidockerError: they do not end."""
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while pids := find():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise MinidockerError(f"processes {pids} do not end")
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
