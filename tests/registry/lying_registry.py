"""A registry made of bytes in memory that tells the truth except where a test wants a lie."""

import asyncio
import hashlib
import io
import json
import ssl
import tarfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from minidocker.oci.digest import Digest
from minidocker.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

GZIP_LAYER = OCI_LAYER + "+gzip"


def layer_of(files: dict[str, bytes]) -> tuple[bytes, Digest]:
    """A gzipped layer, and its diff ID."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    plain = buffer.getvalue()
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(plain) + packer.flush(), Digest.of(plain)


@dataclass
class MadeImage:
    """An image's documents, to be bent before they are served."""

    blobs: dict[str, bytes]
    config: bytes
    manifest: dict[str, Any]

    @property
    def manifest_bytes(self) -> bytes:
        return json.dumps(self.manifest).encode()


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def make_image(layers: list[tuple[bytes, Digest]], *, architecture: str = "amd64", os: str = "linux") -> MadeImage:
    rootfs = {"type": "layers", "diff_ids": [str(diff_id) for _, diff_id in layers]}
    config = json.dumps({"architecture": architecture, "os": os, "rootfs": rootfs, "config": {"Cmd": ["sh"]}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(GZIP_LAYER, content) for content, _ in layers],
    }
    contents = [config, *(content for content, _ in layers)]
    return MadeImage({str(Digest.of(content)): content for content in contents}, config, manifest)


Answer = Callable[[Any], Awaitable[web.StreamResponse]]


class Liar:
    """Serves one image as a registry does, except where `lies` says otherwise.

    lies  path suffix -> handler, looked at before the honest answer.
    seen  every request: (method, path with query, headers).
    """

    def __init__(self, image: MadeImage | None = None) -> None:
        self.image = image
        self.lies: dict[str, Answer] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.port = 0

    @property
    def domain(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.domain}"

    def requests(self, text: str) -> list[dict[str, str]]:
        """The headers of all requests whose path holds `text`."""
        return [headers for _, path, headers in self.seen if text in path]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, dict(request.headers)))
        for suffix, answer in self.lies.items():
            if request.path.endswith(suffix):
                return await answer(request)
        return self.honest(request)

    def honest(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if path == "/v2/":
            return web.Response()
        if "/manifests/" in path and self.image is not None:
            content = self.image.manifest_bytes
            return web.Response(body=content, headers={"Content-Type": str(self.image.manifest["mediaType"])})
        blob = self.image.blobs.get(path.rpartition("/")[2]) if self.image else None
        if "/blobs/" in path and blob is not None:
            return web.Response(body=blob, content_type="application/octet-stream")
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)


@asynccontextmanager
async def serving(liar: Liar, tls: ssl.SSLContext | None = None) -> AsyncIterator[Liar]:
    """Let `liar` listen on loopback."""
    runner = web.ServerRunner(web.Server(liar.handle), shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    liar.port = runner.addresses[0][1]
    try:
        yield liar
    finally:
        await runner.cleanup()


async def no_sleep(_seconds: float) -> None:
    """What a test gives `Retry.sleep`."""
    await asyncio.sleep(0)
