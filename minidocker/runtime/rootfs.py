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
import re
import stat
from pathlib import Path

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import mounts, namespaces, trees
from minidocker.linux.mounts import MountFlag, mkdirs_in_root, open_in_root
from minidocker.linux.namespaces import CloneFlag
from minidocker.linux.rooted_paths import fd_path, open_beneath
from minidocker.oci import runtime_spec
from minidocker.runtime.copyup import copy_tree
from minidocker.runtime.step import Inside, Step

_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY
# MS_* flags of a bind mount, as the attributes that mount_setattr takes.
_ATTRIBUTES = (
    (MountFlag.RDONLY, trees.RDONLY),
    (MountFlag.NOSUID, trees.NOSUID),
    (MountFlag.NODEV, trees.NODEV),
    (MountFlag.NOEXEC, trees.NOEXEC),
    (MountFlag.NOATIME, trees.NOATIME),
    (MountFlag.STRICTATIME, trees.STRICTATIME),
    (MountFlag.NODIRATIME, trees.NODIRATIME),
)
_OF_A_PROCESS = re.compile(r"/proc/(\d+)/root(/.+)")
_NOT_THE_KERNELS = ("copy", "nocopy", "z", "Z")  # options of bind mounts that Docker's users give
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


class BindMount(Step, frozen=True):
    """A file or directory of the host, seen at `destination`.

    beneath  the source must not lead out of this directory, whoever puts links there: a part of a volume; "": anything.
    shifted  in a user namespace: its files are shown with the ids of the container.
    """

    destination: str
    source: str
    beneath: str = ""
    recursive: bool = False
    add: int = 0
    clear: int = 0
    propagation: int = 0
    recursive_add: int = 0
    recursive_clear: int = 0
    shifted: bool = False

    @property
    def name(self) -> str:
        return f"bind {self.source} on {self.destination}"

    def tree(self, user: int) -> int | None:
        """The mount, detached and with all its attributes, for a container in the user namespace `user`.

        None: pid 1 can take it itself, and must, from another container.
        """
        if _OF_A_PROCESS.match(self.source) is not None:
            return None
        source = self._open()
        tree = trees.clone(source, recursive=self.recursive, path=self.source)
        os.close(source)
        if self.shifted:
            trees.shift_ids(tree, user, path=self.source)
        if self.add or self.clear:
            trees.set_attributes(tree, self.add, self.clear & ~self.add, path=self.source)
        if self.recursive_add or self.recursive_clear:
            trees.set_attributes(tree, self.recursive_add, self.recursive_clear, recursive=True, path=self.source)
        return tree

    def apply(self, inside: Inside) -> None:
        if (tree := inside.trees.pop(self.name, None)) is not None:
            directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            target = file_or_directory(inside.root_fd, self.destination, directory=directory)
            trees.attach(tree, target, self.destination)
            if self.propagation:
                trees.set_attributes(tree, propagation=self.propagation, recursive=self.recursive)
            os.close(tree)
            os.close(target)
            return
        if (foreign := _OF_A_PROCESS.match(self.source)) is not None:
            self._bind_from(foreign[1], foreign[2], inside)
            return
        source = self._open()
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = file_or_directory(inside.root_fd, self.destination, directory=directory)
        if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
            hint = "are you trying to mount a directory onto a file (or vice-versa)"
            raise KernelError("mount", self.destination, errno.ENOTDIR, hint)
        trees.bind(
            source,
            target,
            add=self.add,
            clear=self.clear,
            propagation=self.propagation,
            recursive=self.recursive,
            recursive_add=self.recursive_add,
            recursive_clear=self.recursive_clear,
            path=self.destination,
        )
        os.close(source)
        os.close(target)

    def _open(self) -> int:
        if self.beneath:
            return open_beneath(self.beneath, os.path.relpath(self.source, self.beneath), _PATH)
        try:
            return os.open(self.source, _PATH)
        except OSError as error:
            raise KernelError("open", self.source, error.errno or 0, "the source of a bind mount must exist") from None

    def _bind_from(self, pid: str, path: str, inside: Inside) -> None:
        """A mount of another container (its /dev/shm): only who is in its mount namespace may copy it."""
        root = os.open(f"/proc/{pid}/root", _DIRECTORY)
        ours, theirs = (os.open(f"/proc/{who}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) for who in ("self", pid))
        source = open_in_root(root, path, _PATH)
        namespaces.setns(theirs, CloneFlag.NEWNS)
        try:
            tree = trees.clone(source, path=self.source)
        finally:
            namespaces.setns(ours, CloneFlag.NEWNS)
        trees.set_attributes(tree, self.add, self.clear & ~self.add, path=self.destination)
        target = file_or_directory(inside.root_fd, self.destination, directory=True)
        trees.attach(tree, target, self.destination)
        for fd in (root, ours, theirs, source, tree, target):
            os.close(fd)


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
    """The root becomes `/`, the host's tree is detached and out of reach."""

    @property
    def name(self) -> str:
        return "pivot_root"

    def apply(self, inside: Inside) -> None:
        os.fchdir(inside.root_fd)
        mounts.pivot_root_here()
        os.close(inside.root_fd)
        inside.root_fd = os.open("/", _DIRECTORY)


def bind_step(mount: runtime_spec.Mount, bundle: Path, beneath: str = "") -> BindMount:
    """The step of a bind mount of config.json; a relative source starts at the bundle.

    beneath  a directory that the source must not lead out of; "": none.
    """
    options = mounts.parse_options([option for option in mount.options if option not in (*_NOT_THE_KERNELS, "idmap")])
    propagation = options.propagation[-1] if options.propagation else MountFlag(0)
    return BindMount(
        destination=mount.destination,
        source=os.path.join(bundle, mount.source),
        beneath=beneath,
        recursive=bool(options.flags & MountFlag.REC),
        add=_attributes(options.flags),
        clear=_attributes(options.cleared),
        propagation=int(propagation & ~MountFlag.REC),
        recursive_add=_attributes(options.recursive),
        recursive_clear=_attributes(options.recursive_cleared),
        shifted="idmap" in mount.options,
    )


def _attributes(flags: MountFlag) -> int:
    return sum(attribute for flag, attribute in _ATTRIBUTES if flags & flag)


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
