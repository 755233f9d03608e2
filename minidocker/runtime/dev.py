"""/dev of a container: the few nodes that programs expect, links into /proc, and the console.

Source  OCI runtime-spec, config-linux.md: "Default Devices"; kernel Documentation/filesystems/devpts.rst.
Rules   - /dev is a fresh tmpfs; if config.json binds another there, nothing is made in it.
        - in a user namespace mknod is refused: the host's nodes are bound instead.
        - the console's pty comes from the container's own devpts, so its name means the same inside.
"""

import errno
import os

from minidocker.errors import KernelError
from minidocker.linux import devices, terminal, trees
from minidocker.linux.mounts import mkdirs_in_root, open_in_root
from minidocker.linux.rooted_paths import fd_path
from minidocker.oci import runtime_spec
from minidocker.runtime.rootfs import file_or_directory
from minidocker.runtime.step import Inside, Step
from minidocker.runtime.sync import Message

_PATH = os.O_PATH | os.O_CLOEXEC
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)


class MakeDevices(Step, frozen=True):
    """Make the nodes, each as config.json or the defaults describe it."""

    devices: tuple[runtime_spec.Device, ...]
    bind: bool = False

    @property
    def name(self) -> str:
        return f"make devices {' '.join(device.path for device in self.devices)}"

    def apply(self, inside: Inside) -> None:
        for device in self.devices:
            if self.bind:
                self._bind(inside.root_fd, device.path)
            else:
                self._make(inside.root_fd, device)

    @staticmethod
    def _bind(root_fd: int, path: str) -> None:
        source = os.open(path, _PATH)
        target = file_or_directory(root_fd, path, directory=False)
        trees.bind(source, target, path=path)
        os.close(source)
        os.close(target)

    @staticmethod
    def _make(root_fd: int, device: runtime_spec.Device) -> None:
        directory, name = os.path.split(device.path)
        parent = mkdirs_in_root(root_fd, directory)
        mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
        try:
            _remove(parent, name)
            devices.make_node(
                parent,
                name,
                type=device.type,
                major=device.major,
                minor=device.minor,
                mode=mode,
                uid=device.uid or 0,
                gid=device.gid or 0,
            )
        finally:
            os.close(parent)


def _remove(parent: int, name: str) -> None:
    """Take away what an image put in a node's place."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass


class LinkDevices(Step, frozen=True):
    """The links that programs expect in /dev."""

    @property
    def name(self) -> str:
        return "link " + " ".join(f"/dev/{name}" for name, _ in LINKS)

    def apply(self, inside: Inside) -> None:
        parent = open_in_root(inside.root_fd, "/dev", _PATH | os.O_DIRECTORY)
        for name, target in LINKS:
            if name == "core" and not self._has_kcore(inside.proc_fd):
                continue
            try:
                os.symlink(target, name, dir_fd=parent)
            except FileExistsError:  # an image's own: it may be the host's ptmx
                os.unlink(name, dir_fd=parent)
                os.symlink(target, name, dir_fd=parent)
        os.close(parent)

    @staticmethod
    def _has_kcore(proc_fd: int) -> bool:
        try:
            os.stat("kcore", dir_fd=proc_fd)
        except OSError:
            return False
        return True


class MakeConsole(Step, frozen=True):
    """A pty of the container's devpts: the slave becomes stdio and /dev/console, the master goes to the monitor."""

    rows: int = 0
    columns: int = 0
    device: bool = True

    @property
    def name(self) -> str:
        return "make console"

    def apply(self, inside: Inside) -> None:
        pts = open_in_root(inside.root_fd, "/dev/pts", _PATH | os.O_DIRECTORY)
        master, slave, _ = terminal.open_pty(fd_path(pts))
        os.close(pts)
        if self.rows and self.columns:
            terminal.set_window_size(master, self.rows, self.columns)
        if self.device:
            target = file_or_directory(inside.root_fd, "/dev/console", directory=False)
            source = os.open(fd_path(slave), _PATH)
            trees.bind(source, target, path="/dev/console")
            os.close(source)
            os.close(target)
        if not inside.channel.send(Message("console"), (master,)):
            raise KernelError("sendmsg", "console", errno.EPIPE, "the monitor is gone")
        os.close(master)
        take_terminal(slave)


def take_terminal(slave: int) -> None:
    """Make the pty descriptors 0 to 2 at once: whoever reads the caller's old ones waits for their end."""
    for number in range(3):
        os.dup2(slave, number, inheritable=True)
    os.close(slave)
