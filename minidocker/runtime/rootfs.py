"""The root filesystem of a container: mounted, filled with /proc, /sys and /dev, and made `/`.

Source  OCI runtime-spec: config.md (root, mounts), config-linux.md (devices, maskedPaths, readonlyPaths);
        pivot_root(2).
Rules   - everything below the root is opened with openat2(RESOLVE_IN_ROOT) and mounted by descriptor, so no symlink of
          an image leads out of it, and nothing can be exchanged between check and use.
        - all mounts are made private first; the old root is detached last.
        - the order is the plan's: root, mounts as config.json lists them, /dev, the working directory, masks,
          read-only root, pivot.
"""

import errno
import os
import stat

from minidocker.errors import Conflict, InvalidArgument, KernelError
from minidocker.linux import mounts, namespaces, trees
from minidocker.linux.mounts import MountFlag, mkdirs_in_root, open_in_root
from minidocker.linux.namespaces import CloneFlag
from minidocker.linux.rooted_paths import fd_path
from minidocker.oci import runtime_spec
from minidocker.runtime.copyup import copy_tree
from minidocker.runtime.step import Inside, Step

_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY
_ORDINARY = ("proc", "sysfs")  # must not be reached through a symlink: masks and limits rest on them


def mount_on(fd: int, destination: str, source: str, fstype: str, flags: MountFlag, data: str = "") -> None:
    """Mount a filesystem on the directory `fd`; errors call it `destination`."""
    try:
        mounts.mount(source, fd_path(fd), fstype, flags, data or None)
    except KernelError as error:
        raise KernelError(error.call, destination, error.errno or 0, error.hint) from None


def existing(root_fd: int, path: str, flags: int = _PATH) -> int | None:
    """A descriptor of `path` in the root, or None if nothing is there."""
    try:
        return open_in_root(root_fd, path, flags)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def ordinary_directory(root_fd: int, path: str) -> int:
    """A descriptor of the directory `path`, made if it is missing, refused if it is a symlink.

    Raises  InvalidArgument: the image has something else there.
    """
    fd = existing(root_fd, path, _PATH | os.O_NOFOLLOW)
    if fd is None:
        return mkdirs_in_root(root_fd, path)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidArgument(
            f"{path} must be mounted on an ordinary directory, and the image has something else there"
        )
    return fd


def file_or_directory(root_fd: int, path: str, *, directory: bool) -> int:
    """A descriptor of the mount target `path`, made as an empty file or directory if it is missing."""
    fd = existing(root_fd, path)
    if fd is not None:
        return fd
    if directory:
        return mkdirs_in_root(root_fd, path)
    os.close(mkdirs_in_root(root_fd, os.path.dirname(path) or "/"))
    created = open_in_root(root_fd, path, os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC, 0o755)
    os.close(created)
    return open_in_root(root_fd, path, _PATH)


class PrivateMounts(Step, frozen=True):
    """Cut the mount namespace's ties with the host's: nothing that we mount is seen outside."""

    propagation: int = int(MountFlag.PRIVATE)

    @property
    def name(self) -> str:
        return "make mounts private" if self.propagation == MountFlag.PRIVATE else "set propagation of /"

    def apply(self, inside: Inside) -> None:
        mounts.set_propagation("/", MountFlag(self.propagation) | MountFlag.REC)


class MountOverlay(Step, frozen=True):
    """Layers and a writable directory become one tree at `target`."""

    target: str
    overlay: runtime_spec.Overlay
    in_user_namespace: bool = False

    @property
    def name(self) -> str:
        return f"mount overlay on {self.target}"

    @property
    def options(self) -> str:
        """The data of mount(2). Nothing that would make the upper directory mean more than its files say."""
        upper, work = (
            path.replace("\\", "\\\\").replace(",", "\\,") for path in (self.overlay.upperdir, self.overlay.workdir)
        )
        options = f"lowerdir={self.overlay.lowerdir},upperdir={upper},workdir={work},index=off,metacopy=off"
        return options + (",userxattr,redirect_dir=nofollow" if self.in_user_namespace else ",redirect_dir=off")

    def apply(self, inside: Inside) -> None:
        if (tree := inside.trees.pop(self.name, None)) is not None:
            # On top of our present root, which pivot_root takes away: the target's path may be shut to us.
            present = os.open("/", _DIRECTORY)
            trees.attach(tree, present, self.target)
            os.close(present)
            inside.root_fd = tree
            return
        os.chdir(self.overlay.directory)  # lowerdir's short paths start here
        mounts.mount("overlay", self.target, "overlay", MountFlag(0), self.options)
        inside.root_fd = os.open(self.target, _DIRECTORY)


class BindRoot(Step, frozen=True):
    """A directory as it is becomes the root: bound on itself, since pivot_root wants a mount."""

    target: str

    @property
    def name(self) -> str:
        return f"bind root {self.target}"

    def apply(self, inside: Inside) -> None:
        mounts.mount(self.target, self.target, None, MountFlag.BIND | MountFlag.REC)
        inside.root_fd = os.open(self.target, _DIRECTORY)


class MountFilesystem(Step, frozen=True):
    """A filesystem of the kernel's own making: proc, sysfs, tmpfs, devpts, mqueue ..."""

    destination: str
    fstype: str
    source: str
    flags: int
    data: str
    propagation: tuple[int, ...] = ()
    copy_up: bool = False

    @property
    def name(self) -> str:
        return f"mount {self.destination}"

    def apply(self, inside: Inside) -> None:
        ordinary = self.fstype in _ORDINARY or self.destination == "/dev"
        make = ordinary_directory if ordinary else mkdirs_in_root
        fd = make(inside.root_fd, self.destination)
        hidden = os.open(fd_path(fd), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if self.copy_up else -1
        try:
            mount_on(fd, self.destination, self.source, self.fstype, MountFlag(self.flags), self.data)
        finally:
            os.close(fd)
        if self.copy_up:
            self._copy_up(hidden, inside.root_fd)
        if self.propagation:
            fd = open_in_root(inside.root_fd, self.destination, _PATH)
            for flag in self.propagation:
                trees.set_attributes(fd, propagation=flag & ~MountFlag.REC, recursive=bool(flag & MountFlag.REC))
            os.close(fd)

    def _copy_up(self, hidden: int, root_fd: int) -> None:
        target = open_in_root(root_fd, self.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        copy_tree(hidden, target)
        os.close(target)
        os.close(hidden)


class WorkingDirectory(Step, frozen=True):
    """Make the working directory if the image has none, as Docker does."""

    path: str

    @property
    def name(self) -> str:
        return f"make working directory {self.path}"

    def apply(self, inside: Inside) -> None:
        fd = existing(inside.root_fd, self.path)
        if fd is None:
            fd = mkdirs_in_root(inside.root_fd, self.path)
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        os.close(fd)
        if not is_directory:
            raise InvalidArgument(f"cannot chdir to {self.path}: not a directory")


class ReadonlyRoot(Step, frozen=True):
    """`/` itself read-only; the mounts below it keep what they have."""

    @property
    def name(self) -> str:
        return "make root read-only"

    def apply(self, inside: Inside) -> None:
        trees.set_attributes(inside.root_fd, trees.RDONLY, path="/")


class PivotRoot(Step, frozen=True):
    """The root becomes `/`, the host's tree is detached and out of reach.

    An engine in a chroot has the host's tree above its own: it would be the parent of ours still, where `cd ..` after
    another chroot leads, and an exec, too. So the namespace's root is looked at.
    """

    @property
    def name(self) -> str:
        return "pivot_root"

    def apply(self, inside: Inside) -> None:
        own = os.open(namespaces.path("mount"), os.O_RDONLY | os.O_CLOEXEC)
        os.fchdir(inside.root_fd)
        mounts.pivot_root_here()
        os.close(inside.root_fd)
        inside.root_fd = os.open("/", _DIRECTORY)
        namespaces.setns(own, CloneFlag.NEWNS)  # `/` is the namespace's root from here
        os.close(own)
        if not os.path.samestat(os.stat("/"), os.stat(inside.root_fd)):
            raise Conflict("the engine runs in a chroot, out of which a container could climb: give it its own root")


def filesystem_step(mount: runtime_spec.Mount) -> MountFilesystem:
    """The step of any other mount of config.json."""
    options = mounts.parse_options(mount.options)
    return MountFilesystem(
        destination=mount.destination,
        fstype=mount.type,
        source=mount.source or mount.type,
        flags=int(options.flags),
        data=options.data,
        propagation=tuple(int(flag) for flag in options.propagation),
        copy_up=options.copy_up,
    )
