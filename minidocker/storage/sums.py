"""What a file is to the build cache: a sum of its content, kind, mode, owner and link; never of its times.

Source  moby pkg/tarsum, version 1 (which header fields count); builder/remotecontext (files, directories, several).
Rules   - the same file gives the same sum wherever it comes from: an archive or a tree.
"""

import hashlib
from collections.abc import Iterable

from minidocker.storage.tar import TarEntry


def begin(entry: TarEntry, name: str) -> "hashlib._Hash":
    """A hash of what the entry says of the file that is called `name`; its content is to follow."""
    fields: list[tuple[str, object]] = [
        ("name", name),
        ("mode", entry.mode),
        ("uid", entry.uid),
        ("gid", entry.gid),
        ("size", entry.size),
        ("typeflag", entry.kind),
        ("linkname", entry.link),
        ("devmajor", entry.major),
        ("devminor", entry.minor),
    ]
    hasher = hashlib.sha256("\0".join(f"{key}={value}" for key, value in fields).encode("utf-8", "surrogateescape"))
    for key in sorted(entry.xattrs):
        hasher.update(b"\0" + key.encode("utf-8", "surrogateescape") + b"=" + entry.xattrs[key])
    hasher.update(b"\0")
    return hasher


def of_many(kind: str, sums: Iterable[str]) -> str:
    """One sum for several: `dir:...` for what is in a directory, `multi:...` for several sources."""
    return f"{kind}:{hashlib.sha256(','.join(sums).encode('utf-8', 'surrogateescape')).hexdigest()}"
