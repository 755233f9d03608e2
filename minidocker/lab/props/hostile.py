"""Archives that want out of the directory that they are unpacked into, and an unpacker that lets them.

Source  tar(5); CWE-22 (path traversal), CWE-59 (link following).
Rules   - for isolated cells, which have nothing to lose: never unpack with `unpack_naively` anywhere else.
"""

import io
import os
import tarfile


def archive_that_leads_out(target: str) -> bytes:
    """A tar: first a symbolic link `way` to a directory elsewhere, then a file `way/evil`."""
    return _archive([("way", target, b""), ("way/evil", "", b"I was here\n")])


def archive_that_climbs() -> bytes:
    """A tar with one file, whose name leads up and out."""
    return _archive([("../../outside/evil", "", b"I was here\n")])


def _archive(entries: list[tuple[str, str, bytes]]) -> bytes:
    """Name, target of the link (or nothing), content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def unpack_naively(archive: bytes, root: str) -> None:
    """Unpack as one would at first: look for ".." in the names, and trust the rest."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if ".." in member.name.split("/") or member.name.startswith("/"):
                raise ValueError(f"{member.name} leads out")
            path = os.path.join(root, member.name)
            if member.issym():
                os.symlink(member.linkname, path)
            elif file := tar.extractfile(member):
                with open(path, "wb") as opened:
                    opened.write(file.read())
