"""Starting: from a record to a running process, in one go and in one thread.

Source  DESIGN of the processes: launcher, monitor, pid 1; what was done is undone in reverse if a step fails.
Rules   - runs in a thread: it blocks. It only reads the record, under its lock; the caller writes the result.
        - the network is attached while pid 1 mounts; ports are published before the command runs.
        - a failure leaves nothing: no address, no link, no monitor, no cgroup.
"""

import errno
import functools
import os
import re
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minidocker.engine import clock
from minidocker.engine.containers import attaching, etc_files, mounts, spec
from minidocker.engine.containers.config import ThrottleDevice, WeightDevice
from minidocker.engine.containers.container import VOLATILE_NAME, Container, Record, Volatile
from minidocker.engine.logs import log_drivers
from minidocker.engine.networks import attachments
from minidocker.engine.networks.attachments import RESOLVER_ADDRESS, Attached, Attachments
from minidocker.engine.networks.links import Links
from minidocker.engine.volumes import volume_use
from minidocker.errors import Conflict, InvalidArgument, KernelError, MinidockerError, NotFound
from minidocker.linux import capabilities, seccomp_profile
from minidocker.linux.mounts import mountinfo
from minidocker.oci import codec
from minidocker.oci import runtime_spec as oci
from minidocker.runtime.lifecycle import Created, Runtime, StartError

Limited = ThrottleDevice | WeightDevice


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that runs: pid 1's pid, the monitor's pidfd (the caller's now), and what else is known of it.

    resolver  DNS sockets in its network, the caller's to serve and to close when pid 1 ends; []: none
    """

    pid: int
    monitor_fd: int
    volatile: Volatile
    resolver: list[socket.socket]


@dataclass(frozen=True, slots=True)
class Starter:
    """What starting needs of the machine.

    host_gateway  the address of the host on the default network, if there is one
    joined     another running container, by name or ID (for container:ID modes)
    available  the capabilities that the engine has itself
    """

    runtime: Runtime
    attachments: Attachments
    links: Links
    host_gateway: Callable[[], str | None]
    layers_directory: Path
    cgroup_parent: str
    init_path: str
    available: tuple[str, ...]
    joined: Callable[[str], Container]
    swap_limit: bool = True
    sysctls: frozenset[str] = frozenset()

    def launch(self, container: Container) -> Launched:
        """Start the container's command.

        Raises  StartError: the command does not run (not found, not executable, a step failed). Conflict, NotFound: a
                container it joins. PortUnavailable, KernelError: the network.
        """
        record, directory = container.record, container.directory
        self.attachments.check(record)
        _check_device_requests(record)
        mounts.prepare_sources(record.mounts)
        mounts.check_propagation(record.mounts, mountinfo)
        volume_use.check_subpaths(record.mounts)
        with ExitStack() as undo:
            attached = self.attachments.allocate_all(record, undo.callback)
            self._write_files(record, directory, attached)
            created = self.runtime.create(
                record.id,
                directory,
                log=log_drivers.target(container),
                terminal=record.config.tty,
                size=record.host.console_size if record.config.tty else (0, 0),
                open_stdin=record.config.open_stdin,
                stdin_once=record.config.stdin_once,
            )
            # From here on start() or abandon() releases what the runtime holds.
            sockets: list[socket.socket] = []
            try:
                self.attachments.attach_all(record, attached, created.pid)
                if self.attachments.needs_resolver(attached.endpoints):
                    sockets = self.runtime.change_network(record.id, resolver=RESOLVER_ADDRESS)
                    undo.callback(close_all, sockets)
                volatile = Volatile(
                    clock.now(), attached.endpoints, attached.ports, attached.published_on, bool(sockets)
                )
                (created.directory / VOLATILE_NAME).write_bytes(codec.encode(volatile))
                attaching.connect_waiters(lambda: self.runtime.open_attach(record.id), container.attach_waiters)
            except BaseException as error:
                told = told_by_pid_1(created, error)
                self.runtime.abandon(created)
                raise told from None
            self.runtime.start(created, attachments.plan(record, attached.endpoints))
            undo.pop_all()
        return Launched(created.pid, created.monitor_pidfd, volatile, sockets)

    def _write_files(self, record: Record, directory: Path, attached: Attached) -> None:
        """The bundle's config.json and the files that are mounted from its directory. Raises KernelError: ENOSPC."""
        document = spec.build(record, self.facts(record, directory))
        addresses = [address for endpoint in attached.endpoints.values() for address in endpoint.addresses]
        embedded = self.attachments.needs_resolver(attached.endpoints)
        links = [link.hosts_line for link in self.links.of(record)]
        try:
            etc_files.write(record, directory, addresses, self.host_gateway(), links=links, embedded=embedded)
            (directory / "config.json").write_bytes(codec.encode(document))
        except OSError as error:
            raise KernelError("write files of container", directory, error.errno or 0) from error

    def facts(self, record: Record, directory: Path) -> spec.Facts:
        """What `spec.build` needs to know of this machine. Raises NotFound: a device is not there."""
        host = record.host
        numbers = {entry.path: _numbers(entry.path) for entries in _throttled(record) for entry in entries}
        return spec.Facts(
            directory=directory,
            layers=self.layers_directory,
            cgroup=cgroup_path(record, self.cgroup_parent),
            seccomp=seccomp_of(record, self.available),
            joined=self._joined(record),
            etc=self._etc(record, directory),
            environment=tuple(word for link in self.links.of(record) for word in link.environment),
            init=self.init_path if host.init else "",
            devices=tuple(_devices(record)),
            numbers=numbers,
            capabilities=self.available,
            swap_limit=self.swap_limit,
            sysctls=self.sysctls,
        )

    def _joined(self, record: Record) -> dict[str, str]:
        host = record.host
        found = {}
        for kind, mode, file in (
            ("network", host.network_mode, "net"),
            ("ipc", host.ipc_mode, "ipc"),
            ("pid", host.pid_mode, "pid"),
        ):
            if mode.startswith("container:"):
                other = self.joined(mode.removeprefix("container:"))
                if kind == "ipc" and other.record.host.ipc_mode in ("private", "none"):
                    hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                    raise MinidockerError(f"can't join IPC of container {other.id}: {hint}")
                found[kind] = f"/proc/{running_pid(other)}/ns/{file}"
        return found

    def _etc(self, record: Record, directory: Path) -> Path:
        """Where hosts, hostname and resolv.conf are: who shares a network shares what says how to use it."""
        mode = record.host.network_mode
        return self.joined(mode.removeprefix("container:")).directory if mode.startswith("container:") else directory


def _check_device_requests(record: Record) -> None:
    """Raises MinidockerError, in Docker's words: there is no device driver, such as a GPU's."""
    for request in record.host.device_requests or []:
        sets = " ".join(f"[{' '.join(words)}]" for words in request.capabilities or [])
        raise MinidockerError(f'could not select device driver "{request.driver}" with capabilities: [{sets}]')


def told_by_pid_1(created: Created, error: BaseException) -> BaseException:
    """Why pid 1 is gone, if `error` says that it is; else `error`."""
    if not isinstance(error, KernelError) or error.errno != errno.ESRCH:
        return error
    message, _ = created.channel.receive()
    while message is not None and message.kind == "warning":
        message, _ = created.channel.receive()
    return StartError(message) if message is not None and message.kind == "error" else error


def close_all(sockets: list[socket.socket]) -> None:
    """Close DNS sockets that nobody came to serve."""
    for one in sockets:
        one.close()


def cgroup_path(record: Record, default_parent: str) -> str:
    """The container's cgroup, absolute within each hierarchy."""
    parent = record.host.cgroup_parent or default_parent
    return f"/{parent.strip('/')}/{record.id}"


def seccomp_of(record: Record, available: tuple[str, ...]) -> msgspec.Raw:
    """The filter as raw JSON of the runtime specification; NO_RAW without one."""
    chosen = [
        re.split("[=:]", option, maxsplit=1)[1]
        for option in record.host.security_opt or []
        if option.startswith("seccomp")
    ]
    text = chosen[-1] if chosen else ""
    if text == "unconfined" or (record.host.privileged and not text):
        return oci.NO_RAW
    caps = spec.effective_capabilities(record, available)
    if text in ("", "builtin"):
        return default_seccomp(tuple(caps))
    return msgspec.Raw(msgspec.json.encode(seccomp_profile.parse_docker_profile(text, caps)))


@functools.lru_cache(maxsize=16)
def default_seccomp(caps: tuple[str, ...]) -> msgspec.Raw:
    """Docker's default profile for `caps`; pure, and asked for at every start."""
    return msgspec.Raw(msgspec.json.encode(seccomp_profile.default_profile(caps)))


def _throttled(record: Record) -> list[list[Limited]]:
    host = record.host
    fields = (
        host.blkio_weight_device,
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    )
    return [list(entries) for entries in fields if entries]


def _numbers(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise NotFound(
            f'error gathering device information while adding custom device "{path}": {reason}'
        ) from None
    if not stat.S_ISBLK(status.st_mode) and not stat.S_ISCHR(status.st_mode):
        raise InvalidArgument(f"{path} is not a device node")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _devices(record: Record) -> list[tuple[oci.Device, str]]:
    """The nodes of --device (a directory means all devices in it); with --privileged all of the host's."""
    found: list[tuple[oci.Device, str]] = []
    if record.host.privileged:
        return [(node, "rwm") for node in _tree(Path("/dev"), "/dev")]
    for mapping in record.host.devices or []:
        inside = mapping.path_in_container or mapping.path_on_host
        path = Path(mapping.path_on_host)
        nodes = _tree(path, inside) if path.is_dir() else [_node(path, inside)]
        found += [(node, mapping.cgroup_permissions or "rwm") for node in nodes]
    return found


_NOT_OF_THE_HOST = ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "hugepages")


def _tree(directory: Path, inside: str) -> list[oci.Device]:
    nodes = []
    for entry in sorted(os.scandir(directory), key=lambda e: e.name):
        if entry.name in _NOT_OF_THE_HOST or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            nodes += _tree(Path(entry.path), f"{inside}/{entry.name}")
        elif stat.S_ISCHR(entry.stat().st_mode) or stat.S_ISBLK(entry.stat().st_mode):
            nodes.append(_node(Path(entry.path), f"{inside}/{entry.name}"))
    return nodes


def _node(path: Path, inside: str) -> oci.Device:
    major, minor = _numbers(str(path))
    status = path.stat()
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return oci.Device(kind, inside, major, minor, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def network_sysctls() -> frozenset[str]:
    """Which of spec.NETWORK_SYSCTLS this kernel has."""
    return frozenset(name for name in spec.NETWORK_SYSCTLS if Path("/proc/sys", *name.split(".")).exists())


def engine_capabilities() -> tuple[str, ...]:
    """The capabilities that this process may hand on: its bounding set."""
    mask = capabilities.read()["CapBnd"]
    return tuple(name for number, name in enumerate(capabilities.NAMES) if mask >> number & 1)


def running_pid(container: Container) -> int:
    """The pid of a container that another one joins. Raises Conflict: it does not run."""
    if not container.state.running:
        raise Conflict(f"cannot join network of a non running container: {container.id}")
    return container.state.pid
