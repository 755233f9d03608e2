"""A docker-archive made on the spot, for tests that load images."""

import hashlib
import io
import json
import os
import random
import tarfile


def archive(name: str, size_bytes: int, files: int) -> bytes:
    """An image `name` with one layer of random files, `size_bytes` in all; the same for the same arguments."""
    noise = random.Random(name)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as inner:
        for number in range(files):
            _add(inner, f"files/{number}", noise.randbytes(size_bytes // files))
    content = layer.getvalue()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    config = {"architecture": machine, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    listing = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as outer:
        _add(outer, "layer.tar", content)
        _add(outer, "config.json", json.dumps(config).encode())
        _add(outer, "manifest.json", json.dumps(listing).encode())
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
