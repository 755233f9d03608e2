"""The figures of pull and push: images made here, in a real registry on loopback.

Rules   - the same bytes for every engine: a fixed seed, half of each file random, half text, as programs are.
        - before each timed run the disk is in peace (sync), so that nobody pays for what another one left unwritten.
"""

import contextlib
import gzip
import hashlib
import http.client
import io
import itertools
import json
import os
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.contestants import Engine, Podman
from benchmarks.table import Row, faster, interleave
from minidocker.lab.setup import registry

PORT = 5077
REPOSITORY = "bench/pull"
# Files of one size a layer: 208 MB in all, about 110 MB packed.
LAYERS: tuple[tuple[int, int], ...] = ((8, 10_000_000), (4, 14_000_000), (30, 1_000_000), (200, 60_000), (5_000, 6_000))
FRESH_BYTES = 64_000_000
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Blob:
    """Bytes and the digest that names them."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """sha256:..."""
        return _digest(self.content)

    @property
    def descriptor(self) -> dict[str, object]:
        """As a manifest lists it."""
        return {"mediaType": self.media_type, "size": len(self.content), "digest": self.digest}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer_tar(number: int, count: int, size: int) -> bytes:
    """A layer of `count` files of `size` bytes, always the same for the same number."""
    chance = random.Random(number)
    text = b"".join(f"line {n} of layer {number}\n".encode() for n in range(400))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for at in range(count):
            half = size // 2
            content = chance.randbytes(half) + (text * (half // len(text) + 1))[: size - half]
            entry = tarfile.TarInfo(f"layer{number}/{at % 50}/file{at}")
            entry.size, entry.mode = size, 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def publish(port: int) -> None:
    """Put the image of LAYERS into the registry."""
    blobs, diff_ids = [], []
    for number, (count, size) in enumerate(LAYERS):
        plain = layer_tar(number, count, size)
        diff_ids.append(_digest(plain))
        blobs.append(Blob(gzip.compress(plain, 6, mtime=0), _LAYER))
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config_blob = Blob(json.dumps(config).encode(), _CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": config_blob.descriptor,
        "layers": [b.descriptor for b in blobs],
    }
    for blob in (*blobs, config_blob):
        location = _send(port, "POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"", "")
        _send(port, "PUT", f"{location}&digest={blob.digest}", blob.content, "application/octet-stream")
    _send(port, "PUT", f"/v2/{REPOSITORY}/manifests/latest", json.dumps(manifest).encode(), _MANIFEST)


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _send(port: int, method: str, target: str, body: bytes, media_type: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, target, body, {"Content-Type": media_type} if media_type else {})
        answer = connection.getresponse()
        if answer.status not in (201, 202):
            raise SystemExit(
                f"benchmarks: the registry answers {method} {target} with {answer.status}: {answer.read()!r}"
            )
        return answer.headers.get("Location", "").removeprefix(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def served(root: Path) -> Iterator[int]:
    """A registry with the image in it; its port."""
    registry.start(root / "registry", PORT)
    try:
        publish(PORT)
        yield PORT
    finally:
        registry.stop(root / "registry")


def pull(engines: list[Engine], port: int, rounds: int) -> Row:
    """Pull five layers into an engine that has nothing of them."""
    name = f"127.0.0.1:{port}/{REPOSITORY}:latest"

    def forget(engine: Engine) -> None:
        with contextlib.suppress(SystemExit):  # it is not there yet
            engine.run("rmi", name)
        os.sync()

    row = interleave(
        "pull 5 layers, 208 MB",
        {engine.name: engine.cli("pull", *_plain_http(engine), name) for engine in engines},
        rounds,
        before={engine.name: partial(forget, engine) for engine in engines},
    )
    for engine in engines:
        forget(engine)
    return Row(row.what, row.samples, peer=faster(row, "docker", "podman") or "docker", goal=0.4)


def push(engines: list[Engine], port: int, rounds: int, root: Path) -> Row:
    """Push an image whose one layer of 64 MB the registry has never seen; it is made anew for each run."""
    numbers = itertools.count(1000)
    names: dict[str, str] = {}

    def make(engine: Engine) -> None:
        number = next(numbers)
        names[engine.name] = f"127.0.0.1:{port}/bench/push:{number}"
        archive = root / "fresh.tar"
        _write_archive(archive, names[engine.name], layer_tar(number, 4, FRESH_BYTES // 4))
        engine.load(archive)
        archive.unlink()
        os.sync()

    def send(engine: Engine) -> None:
        engine.run("push", *_plain_http(engine), names[engine.name])

    row = interleave(
        "push one fresh layer of 64 MB",
        {engine.name: partial(send, engine) for engine in engines},
        rounds,
        before={engine.name: partial(make, engine) for engine in engines},
    )
    return Row(row.what, row.samples, peer="podman", goal=1.0)


def _write_archive(path: Path, name: str, plain: bytes) -> None:
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": plain,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for file, content in files.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _plain_http(engine: Engine) -> list[str]:
    return ["--tls-verify=false"] if isinstance(engine, Podman) else []
