"""Bind mounts: files and directories of the host, of a volume or of another container, seen in this one.

Source  OCI runtime-spec config.md (mounts), config-linux.md; open_tree(2), mount_setattr(2), move_mount(2).
Rules   - the source is opened once and mounted by descriptor; within a volume no link leads out of it.
        - attributes are set before the mount can be seen.
        - what shares its mounts with the host is taken before all mounts become private: a copy of a private mount has
          no peers.
        - in a user namespace the host's side makes the tree, since pid 1 may not (`tree`, see `shifted`).
"""

import errno
import os
import re
import stat
from pathlib import Path

from minidocker.errors import KernelError
from minidocker.linux import mounts, namespaces, trees
from minidocker.linux.mounts import MountFlag, open_in_root
from minidocker.linux.namespaces import CloneFlag
from minidocker.linux.rooted_paths import open_beneath
from minidocker.oci import runtime_spec
from minidocker.runtime.rootfs import file_or_directory
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
_NO_USER_NAMESPACE = -1
_NOT_THE_KERNELS = ("copy", "nocopy", "z", "Z")  # options of bind mounts that Docker's users give


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


class TakeShared(Step, frozen=True):
    """Copy the sources that are to stay peers of the host's mounts, detached, while they still are."""

    binds: tuple[BindMount, ...]

    @property
    def name(self) -> str:
        return "take shared mounts"

    def apply(self, inside: Inside) -> None:
        for bind in self.binds:
            if (tree := bind.tree(_NO_USER_NAMESPACE)) is not None:
                inside.trees[bind.name] = tree


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
