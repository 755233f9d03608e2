"""The launcher: the fork server whose children are monitors (and helpers of a moment that enter a network namespace).

Source  DESIGN: "Processes"; linux/forkserver_loop.py.
Rules   - everything that a monitor, a pid 1 or an exec needs is imported here, before the first fork.
        - the parent reads config.json and compiles its filter, and keeps the last few compiled ones by the bytes of the
          config's seccomp section: a hot path only loads bytes.
        - a request that cannot be understood is refused before anything is forked.
"""

import socket
from pathlib import Path

from minidocker import typed
from minidocker.linux import forkserver_loop, process, seccomp, syscall
from minidocker.oci import runtime_spec
from minidocker.runtime import plan
from minidocker.runtime.bundle import read_spec
from minidocker.runtime.container import ContainerJob, CreateRequest
from minidocker.runtime.exec import ExecJob, ExecRequest
from minidocker.runtime.monitor import Monitor
from minidocker.runtime.network import NetworkJob, NetworkRequest
from minidocker.runtime.step import Filter, Host
from minidocker.runtime.sync import Channel

_FILTERS_KEPT = 16
# What monitors and pid 1 call, with the number of arguments.
_CALLS = {
    "close_range": 3, "keyctl": 2, "mount": 5, "mount_setattr": 5, "move_mount": 5, "open_tree": 3, "openat2": 4,
    "pivot_root": 2, "prctl": 5, "seccomp": 3, "sethostname": 2, "setns": 2, "umount2": 2, "unshare": 1,
}  # fmt: skip
_request_decoder = typed.decoder(CreateRequest | ExecRequest | NetworkRequest)


class Filters:
    """Compiled seccomp filters by the JSON that they come from; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._compiled: dict[bytes, Filter] = {}

    def of(self, spec: runtime_spec.Spec) -> Filter | None:
        """The filter that `spec` wants, or None."""
        section = bytes(spec.linux.seccomp)
        if section in (b"", b"null"):
            return None
        found = self._compiled.get(section)
        if found is None:
            found = Filter(seccomp.compile(section), seccomp.flags_of(section))
            if len(self._compiled) >= _FILTERS_KEPT:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[section] = found
        return found


class Launcher:
    """What the fork server does with its requests."""

    def __init__(self) -> None:
        self._host = Host.detect()
        self._filters = Filters()
        self._job: ContainerJob | ExecJob | NetworkJob | None = None

    def prepare(self, request: bytes) -> None:
        """In the server, before the fork: understand the request and make its plan."""
        wanted = _request_decoder.decode(request)
        if isinstance(wanted, CreateRequest):
            spec = read_spec(Path(wanted.bundle))
            steps = plan.plan(spec, Path(wanted.bundle))
            self._job = ContainerJob(wanted, spec, steps, self._filters.of(spec), self._host)
        elif isinstance(wanted, NetworkRequest):
            self._job = NetworkJob(wanted)
        else:
            spec = read_spec(Path(wanted.container.bundle))
            self._job = ExecJob(wanted, spec, self._filters.of(spec), self._host)

    def run(self, _request: bytes, descriptors: list[int]) -> None:
        """In the child: be the monitor, or do a network's work. The one descriptor is the daemon's end of the line."""
        daemon = Channel(socket.socket(fileno=descriptors[0]))
        assert self._job is not None
        if isinstance(self._job, NetworkJob):
            self._job.run(daemon)
            return
        process.set_name("minidocker-mon")
        Monitor(self._job, daemon).run()


def main(requests: socket.socket, _exec_root: Path) -> None:
    """The entry of `ForkServer.spawn`."""
    launcher = Launcher()
    syscall.prepare(_CALLS)
    forkserver_loop.serve(requests, launcher.run, prepare=launcher.prepare)
