"""Copy-up: a tmpfs that starts with what the image has at its place (mount option tmpcopyup).

Source  runc's and podman's tmpcopyup.
Rules   - by descriptors only, links copied as links, never followed: the tree is an image's.
        - files, directories and symbolic links; the rest (devices, FIFOs, sockets) stays behind.
"""

import os
import stat

_CHUNK_BYTES = 1 << 18
_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, target: int) -> None:
    """Copy the content of the directory `source` into the directory `target` (descriptors), owners and modes too."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listdir(source):
        _copy(name, source, target)


def _copy(name: str, source: int, target: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        inner = os.open(name, _SOURCE | os.O_DIRECTORY, dir_fd=source)
        made = os.open(name, _SOURCE | os.O_DIRECTORY, dir_fd=target)
        copy_tree(inner, made)
        os.close(inner)
        os.close(made)
    elif stat.S_ISREG(status.st_mode):
        with (
            open(os.open(name, _SOURCE, dir_fd=source), "rb") as old,
            open(os.open(name, _NEW_FILE, 0o600, dir_fd=target), "wb") as new,
        ):
            while chunk := old.read(_CHUNK_BYTES):
                new.write(chunk)
            os.fchown(new.fileno(), status.st_uid, status.st_gid)
            os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
