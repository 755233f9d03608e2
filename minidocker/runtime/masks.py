"""Paths that a container must not read or change, though they are there: kernel memory, firmware, sysrq.

Source  OCI runtime-spec, config-linux.md: maskedPaths, readonlyPaths; Docker's default lists.
Rules   - a file is hidden under /dev/null, proved to be the device 1:3 (an image may bring another "null":
          CVE-2023-27561, CVE-2025-31133); a directory under an empty read-only tmpfs.
        - a path that does not exist needs no mask; any other failure ends the container.
"""

import os
import stat

from minidocker.errors import KernelError
from minidocker.linux import trees
from minidocker.linux.mounts import MountFlag, open_in_root
from minidocker.runtime.rootfs import existing, mount_on
from minidocker.runtime.step import Inside, Step, StepFailed

_PATH = os.O_PATH | os.O_CLOEXEC
_NULL = (1, 3)
_EMPTY = MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC  # of the tmpfs over directories


def open_null(root_fd: int) -> int:
    """A descriptor of the container's own /dev/null; of the host's, if the container has none.

    Raises  StepFailed: what is there is another file.
    """
    fd = existing(root_fd, "/dev/null", _PATH | os.O_NOFOLLOW)
    if fd is None:
        fd = os.open("/dev/null", _PATH | os.O_NOFOLLOW)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != _NULL:
        os.close(fd)
        raise StepFailed("mask paths", "/dev/null is not the character device 1:3")
    return fd


class MaskPaths(Step, frozen=True):
    """Hide each path, if it is there."""

    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"mask {' '.join(self.paths)}"

    def apply(self, inside: Inside) -> None:
        null = open_null(inside.root_fd)
        empty = -1
        for path in self.paths:
            target = existing(inside.root_fd, path)
            if target is None:
                continue
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                # Read-only: the node may be the host's, and root in here could change its mode.
                trees.bind(null, target, add=trees.RDONLY, path=path)
            elif empty >= 0:
                trees.bind(empty, target, path=path)
            else:
                empty = self._cover(inside.root_fd, target, path)
            os.close(target)
        os.close(null)
        if empty >= 0:
            os.close(empty)

    @staticmethod
    def _cover(root_fd: int, target: int, path: str) -> int:
        """Mount the empty tmpfs and return a descriptor of it: the further directories get the same one."""
        mount_on(target, path, "tmpfs", "tmpfs", _EMPTY, "size=0k,nr_inodes=2,mode=755")
        return open_in_root(root_fd, path, _PATH)


class ReadonlyPaths(Step, frozen=True):
    """Make each path read-only with all below it, if it is there."""

    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"make read-only {' '.join(self.paths)}"

    def apply(self, inside: Inside) -> None:
        for path in self.paths:
            target = existing(inside.root_fd, path)
            if target is None:
                continue
            try:
                trees.bind(target, target, recursive_add=trees.RDONLY, recursive=True, path=path)
            except KernelError as error:
                raise KernelError(error.call, path, error.errno or 0, error.hint) from None
            finally:
                os.close(target)
