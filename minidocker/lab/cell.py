"""The other side of `%%isolated`: the supervisor of one cell, and the cell's own process.

Source  namespaces(7), pid_namespaces(7), prctl(2) PR_SET_PDEATHSIG, cgroups(7).
Rules   - the supervisor stays outside the namespaces; its child is pid 1 of a new pid namespace, so when that ends,
          however it ends, all that the cell started ends too, and its mounts, links and hostname are gone with it.
        - the supervisor alone writes to the notebook, so what a cell prints and what it displays arrive in order.
        - a cell whose isolation fails in any step is not run.
"""

import ast
import base64
import contextlib
import io
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from minidocker.errors import MinidockerError
from minidocker.linux import mounts, namespaces, process
from minidocker.linux.cgroups import Cgroup, Limits
from minidocker.linux.forkserver_loop import serve
from minidocker.linux.mounts import MountFlag
from minidocker.linux.namespaces import CloneFlag

CGROUP_PREFIX = "/minidocker-lab-"
OWN = CloneFlag.NEWNS | CloneFlag.NEWUTS | CloneFlag.NEWIPC | CloneFlag.NEWCGROUP
KERNEL_VIEW = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
MESSAGE_LIMIT_BYTES = 64 << 20
_GO_ON = b"\0"  # the supervisor has passed a display on
REPRESENTATIONS = {
    "text/html": "_repr_html_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "text/markdown": "_repr_markdown_",
}

Message = tuple[str, Any]


class CellFailed(MinidockerError):
    """The cell did not end well; the text says how. `remote_traceback` holds the cell's own traceback, or is empty."""

    def __init__(self, reason: str, remote_traceback: str = "") -> None:
        super().__init__(reason)
        self.remote_traceback = remote_traceback

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the cell's own traceback, not that of the machinery around it."""
        return [self.remote_traceback.rstrip() or f"CellFailed: {self}"]


# ---------------------------------------------------------------- messages between the processes


def send(sock: socket.socket, kind: str, content: Any) -> None:
    """Write one message: four bytes of length, then the pickle of (kind, content)."""
    body = pickle.dumps((kind, content))
    sock.sendall(struct.pack("!I", len(body)) + body)


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts and containers of them; whoever wrote the pickle cannot have anything called."""

    def find_class(self, module: str, name: str) -> Any:
        """A pickle that names a class or a function is refused."""
        raise CellFailed(f"the cell sent a {module}.{name}, where only plain values are taken")


def receive(sock: socket.socket, *, plain: bool = False) -> Message | None:
    """Read one message; None when the other side has closed.

    plain   True: the other side is not trusted, so nothing but plain values is unpickled.
    """
    head = _exactly(sock, 4)
    if head is None:
        return None
    (length,) = struct.unpack("!I", head)
    if length > MESSAGE_LIMIT_BYTES:
        raise CellFailed(f"the cell sent a message of {length} bytes, more than {MESSAGE_LIMIT_BYTES}")
    body = _exactly(sock, length)
    if body is None:
        return None
    message: Message = _PlainUnpickler(io.BytesIO(body)).load() if plain else pickle.loads(body)
    return message


def _exactly(sock: socket.socket, length: int) -> bytes | None:
    content = bytearray()
    while len(content) < length:
        chunk = sock.recv(min(length - len(content), 1 << 20))
        if not chunk:
            return None
        content += chunk
    return bytes(content)


# ---------------------------------------------------------------- the supervisor, outside the cell's namespaces


def main(sock: socket.socket, _exec_root: Path) -> None:
    """Entry of the warm helper, a fork server: each request is one cell."""
    serve(sock, supervise)


def supervise(request: bytes, fds: list[int]) -> None:
    """Fork the cell's pid 1, pass its output on, end it at the time limit or when the notebook hangs up, clean up."""
    notebook = socket.socket(fileno=fds[0])
    code, values, wanted, network, timeout_seconds, memory_bytes, pids, directory, plain = pickle.loads(request)
    process.set_child_subreaper()
    try:
        with Cgroup.create(f"{CGROUP_PREFIX}{os.getpid()}") as cgroup:
            cgroup.apply(Limits(memory_bytes=memory_bytes, pids=pids))
            namespaces.unshare(CloneFlag.NEWPID)
            channel, cell_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            pipes = (os.pipe(), os.pipe())
            supervisor = process.pidfd_open(os.getpid())
            child = os.fork()
            if child == 0:
                _become_cell(cgroup, cell_channel, (pipes[0][1], pipes[1][1]), network, supervisor, directory)
                _run_cell(cell_channel, code, values, wanted)
            cell_channel.close()
            for _, writer in pipes:
                os.close(writer)
            relay = Relay(notebook, channel, {pipes[0][0]: "stdout", pipes[1][0]: "stderr"}, plain=plain)
            reason = relay.until_end_of(child, timeout_seconds)
            if "SIGKILL" in reason and cgroup.oom_kills():
                reason = f"memory limit: the cell used more than {memory_bytes >> 20} MiB and the kernel killed it"
        relay.finish(reason)
    except Exception as error:
        send(notebook, "failed", (f"the cell could not be run: {error}", traceback.format_exc()))


class Relay:
    """The only writer to the notebook: passes on what the cell prints and sends, in order, until the cell ends."""

    def __init__(
        self, notebook: socket.socket, channel: socket.socket, pipes: dict[int, str], *, plain: bool = False
    ) -> None:
        self.notebook, self.channel, self.pipes = notebook, channel, pipes
        self.plain = plain
        self.channel_open = True
        self.failed = False

    def until_end_of(self, child: int, timeout_seconds: float) -> str:
        """Relay until `child` ends, the time is up or the notebook hangs up; return "" or why it did not end well."""
        pidfd = process.pidfd_open(child)
        deadline = time.monotonic() + timeout_seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                waited = [pidfd, self.notebook.fileno(), *self.pipes]
                if self.channel_open:
                    waited.append(self.channel.fileno())
                ready, _, _ = select.select(waited, [], [], left)
                if self.notebook.fileno() in ready:
                    return "the notebook hung up"
                self._drain()
                if self.channel.fileno() in ready:
                    self._message(left)
                elif pidfd in ready:
                    break
            else:
                return f"time limit: the cell was still running after {timeout_seconds:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            self._drain()
        return _explain(status)

    def _drain(self) -> None:
        while ready := select.select(list(self.pipes), [], [], 0)[0]:
            for fd in ready:
                if chunk := os.read(fd, 65536):
                    self._send(self.pipes[fd], chunk.decode(errors="replace"))
                else:
                    del self.pipes[fd]

    def _message(self, left: float) -> None:
        self.channel.settimeout(left)
        message = receive(self.channel, plain=self.plain)
        if message is None:
            self.channel_open = False
            return
        self.failed |= message[0] == "failed"
        self._drain()
        self._send(*message)
        if message[0] == "display":
            with contextlib.suppress(OSError):
                self.channel.send(_GO_ON)

    def _send(self, kind: str, content: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(self.notebook, kind, content)

    def finish(self, reason: str) -> None:
        """The last message."""
        if not self.failed:
            self._send(*(("failed", (reason, "")) if reason else ("ended", None)))


def _explain(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    if code > 0:
        return f"the cell's process ended with exit status {code}"
    return f"the cell's process was killed by {signal.Signals(-code).name}"


# ---------------------------------------------------------------- the cell's process


def _become_cell(
    cgroup: Cgroup, channel: socket.socket, output: tuple[int, int], network: str, supervisor: int, directory: str
) -> None:
    """Enter the limits and the namespaces. Ends the process if any step fails: no cell runs half isolated."""
    try:
        cgroup.join()
        process.set_parent_death_signal(signal.SIGKILL)
        if select.select([supervisor], [], [], 0)[0]:
            os._exit(1)  # the supervisor died before the line above took effect
        namespaces.unshare(OWN if network == "host" else OWN | CloneFlag.NEWNET)
        mounts.set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)
        mounts.mount("proc", "/proc", "proc", KERNEL_VIEW)
        if network != "host":
            _mount_sys()
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output[0], 1), (output[1], 2)):
            os.dup2(source, target)
        os.chdir(directory)
    except BaseException:
        send(channel, "failed", ("the cell could not be isolated, so it was not run", traceback.format_exc()))
        os._exit(1)


def _mount_sys() -> None:
    """/sys as the new network namespace sees it; the cgroup trees below it stay where they are."""
    cgroups = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    mounts.mount("sysfs", "/sys", "sysfs", KERNEL_VIEW)
    mounts.mount(f"/proc/self/fd/{cgroups}", "/sys/fs/cgroup", None, MountFlag.BIND | MountFlag.REC)
    os.close(cgroups)


def _run_cell(channel: socket.socket, code: str, values: dict[str, Any], wanted: tuple[str, ...]) -> None:
    """Run the code as a notebook would, send the wanted values back, and end the process."""
    sys.stdout, sys.stderr = _line_writer(1), _line_writer(2)
    shown = _Display(channel)
    scope: dict[str, Any] = {"__name__": "__main__", "display": shown, **values}
    try:
        _execute(code, scope, shown)
        missing = [name for name in wanted if name not in scope]
        if missing:
            raise NameError(f"the cell did not set {', '.join(missing)}, which --out asks for")
        sys.stdout.flush()
        send(channel, "values", {name: scope[name] for name in wanted})
        os._exit(0)
    except SystemExit as error:
        sys.stdout.flush()
        os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
    except BaseException as error:
        sys.stdout.flush()
        text = "".join(traceback.format_exception(error.with_traceback(_skip_own_frames(error))))
        send(channel, "failed", (f"{type(error).__name__}: {error}", text))
        os._exit(1)


def _line_writer(fd: int) -> TextIO:
    return os.fdopen(fd, "w", buffering=1, closefd=False)


def _execute(code: str, scope: dict[str, Any], shown: "_Display") -> None:
    tree = ast.parse(code, "<isolated cell>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<isolated cell>", "exec"), scope)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<isolated cell>", "eval"), scope)
        if value is not None:
            shown(value)


def _skip_own_frames(error: BaseException) -> Any:
    frame = error.__traceback__
    while frame and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return frame


class _Display:
    """`display(object)` inside the cell: every representation that the object has goes to the notebook."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def __call__(self, *objects: Any) -> None:
        for item in objects:
            sys.stdout.flush()
            send(self._channel, "display", bundle_of(item))
            self._channel.recv(len(_GO_ON))  # what is printed from here on comes after it


def bundle_of(item: Any) -> dict[str, str]:
    """The mime bundle of an object, as IPython's display protocol defines it; binary forms in base64."""
    bundle = {"text/plain": repr(item)}
    if callable(getattr(item, "_repr_mimebundle_", None)):
        found = item._repr_mimebundle_(include=None, exclude=None)
        bundle.update(found[0] if isinstance(found, tuple) else found or {})
    for mime, method in REPRESENTATIONS.items():
        if callable(getattr(item, method, None)) and (content := getattr(item, method)()):
            bundle[mime] = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    return bundle
