"""Pushes: cheap, streamed, checked; what we push others read."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from lying_registry import GZIP_LAYER, Liar, layer_of, make_image, no_sleep, serving

from minidocker.errors import MinidockerError, Unavailable, VerificationError
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor
from minidocker.oci.reference import Reference
from minidocker.registry.credentials import ANONYMOUS, AuthConfig
from minidocker.registry.hosts import RegistryConfig
from minidocker.registry.progress import Progress
from minidocker.registry.push import Part, push_image
from minidocker.registry.resolve import connect
from minidocker.registry.retry import Retry
from minidocker.registry.transport import Transport

IMAGE = make_image([layer_of({"a": b"1"}), layer_of({"big": os.urandom(3 << 20)})])
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


def parts(folder: Path) -> list[Part]:
    folder.mkdir(exist_ok=True)
    found = []
    for digest, content in IMAGE.blobs.items():
        path = folder / digest
        path.write_bytes(content)
        is_config = content == IMAGE.config
        descriptor = Descriptor(OCI_CONFIG if is_config else GZIP_LAYER, Digest(digest), len(content))
        found.append(Part(descriptor, "" if is_config else Digest(digest).short, path))
    return found


async def push(
    domain: str, root: Path, *, path: str = "app", credentials: AuthConfig = ANONYMOUS, certs_dir: Path | None = None,
    sources: list[str] | None = None,
) -> list[Progress]:  # fmt: skip
    config = RegistryConfig(certs_dirs=(certs_dir,) if certs_dir else (), retry=Retry(sleep=no_sleep))
    lines: list[Progress] = []
    reference, manifest = Reference(domain, path, "1"), IMAGE.manifest_bytes
    async with Transport(config) as transport, connect(transport, reference, credentials, push=True) as client:
        given = parts(root / "parts")
        await push_image(client, "1", manifest, OCI_MANIFEST, given, lambda _: sources or [], lines.append)
    return lines


def skopeo(*words: str) -> Any:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_skopeo
def test_what_is_pushed_skopeo_reads_with_the_same_digest(plain: Any, tmp_path: Path) -> None:
    lines = asyncio.run(push(plain.domain, tmp_path))
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{plain.domain}/app:1"))
    assert seen["Digest"] == Digest.of(IMAGE.manifest_bytes)
    skopeo("copy", "--src-tls-verify=false", f"docker://{plain.domain}/app:1", f"oci:{tmp_path}/copy:1")
    assert lines[-1].aux == {"Tag": "1", "Digest": seen["Digest"], "Size": len(IMAGE.manifest_bytes)}


def test_a_second_push_sends_nothing_and_a_third_repository_mounts(plain: Any, tmp_path: Path) -> None:
    def words(lines: list[Progress]) -> set[str]:
        return {line.status for line in lines if line.id} - {"Pushing"}

    assert words(asyncio.run(push(plain.domain, tmp_path))) == {"Preparing", "Pushed"}
    assert words(asyncio.run(push(plain.domain, tmp_path))) == {"Preparing", "Layer already exists"}
    mounted = asyncio.run(push(plain.domain, tmp_path, path="other", sources=["nosuch", "app"]))
    assert words(mounted) == {"Preparing", "Mounted from app"}


def test_pushes_with_basic_and_with_tokens(guarded: Any, tokened: Any, tmp_path: Path) -> None:
    for place in (guarded, tokened):
        good = AuthConfig(username=place.user, password=place.password)
        lines = asyncio.run(push(place.domain, tmp_path, credentials=good, certs_dir=place.certs_dir))
        assert lines[-1].aux is not None
        with pytest.raises(MinidockerError, match=r"no basic auth credentials|denied|unauthorized"):
            asyncio.run(push(place.domain, tmp_path, path="new", certs_dir=place.certs_dir))


class Accepting(Liar):
    """A registry that takes uploads, each in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[str, bytes] = {}
        self.location = "/upload/1"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, dict(request.headers)))
        for suffix, answer in self.lies.items():
            if request.path.endswith(suffix):
                return await answer(request)
        return await self.accept(request)

    async def accept(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": self.location})
        if request.method == "PUT":
            content = await request.content.read()
            name = request.query.get("digest") or str(Digest.of(content))
            self.stored[name] = content
            return web.Response(status=201, headers={"Docker-Content-Digest": str(Digest.of(content))})
        if request.method == "HEAD":
            return web.Response(status=200 if request.path.rpartition("/")[2] in self.stored else 404)
        return web.Response()


def pushed_to(server: Accepting, root: Path) -> None:
    async def scenario() -> None:
        async with serving(server):
            await push(server.domain, root)

    asyncio.run(scenario())


def test_an_upload_tells_its_length_and_arrives_whole(tmp_path: Path) -> None:
    server = Accepting()
    server.location = "/upload/1?_state=a%2Fb%3D"
    pushed_to(server, tmp_path)
    assert {name: server.stored[name] for name in IMAGE.blobs} == IMAGE.blobs
    uploads = [(path, headers) for method, path, headers in server.seen if method == "PUT" and "digest" in path]
    assert all("_state=a%2Fb%3D&digest=sha256:" in path for path, _ in uploads)  # a signed state stays as it was
    assert all(int(headers["Content-Length"]) > 0 for _, headers in uploads)


def _failing_first(
    server: Accepting, times: int, status: int
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    left = [times]

    async def upload(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT" and left[0]:
            left[0] -= 1
            return web.Response(status=status)
        return await server.accept(request)

    return upload


def test_an_upload_that_breaks_is_begun_again(tmp_path: Path) -> None:
    server = Accepting()
    server.lies["/upload/1"] = _failing_first(server, 2, 503)
    pushed_to(server, tmp_path)
    assert {name: server.stored[name] for name in IMAGE.blobs} == IMAGE.blobs


def test_an_upload_that_always_breaks_is_given_up_and_no_manifest_is_sent(tmp_path: Path) -> None:
    server = Accepting()
    server.lies["/upload/1"] = _failing_first(server, 1000, 500)
    with pytest.raises(Unavailable):
        pushed_to(server, tmp_path)
    assert not [path for method, path, _ in server.seen if method == "PUT" and "/manifests/" in path]


def test_a_registry_that_stored_another_manifest_is_not_believed(tmp_path: Path) -> None:
    async def wrong(request: web.Request) -> web.StreamResponse:
        return web.Response(status=201, headers={"Docker-Content-Digest": "sha256:" + "0" * 64})

    server = Accepting()
    server.lies["/manifests/1"] = wrong
    with pytest.raises(VerificationError, match="stored the manifest as"):
        pushed_to(server, tmp_path)


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "http://registry.example/x", "http://user:x@127.0.0.1/"])
def test_an_upload_address_that_leads_astray_is_refused(tmp_path: Path, location: str) -> None:
    server = Accepting()
    server.location = location
    with pytest.raises(VerificationError):
        pushed_to(server, tmp_path)


def test_an_upload_address_at_another_host_gets_no_credentials(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(Accepting()) as server, serving(Accepting()) as elsewhere:
            assert isinstance(server, Accepting) and isinstance(elsewhere, Accepting)
            server.location = f"{elsewhere.url}/upload/1"

            async def asks(request: web.Request) -> web.StreamResponse:
                if "Authorization" in request.headers:
                    return web.Response()
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

            server.lies["/v2/"] = asks
            await push(server.domain, tmp_path, credentials=AuthConfig(username="alice", password="secret"))
            assert any("Authorization" in headers for _, _, headers in server.seen)
            assert elsewhere.seen and not any("Authorization" in headers for _, _, headers in elsewhere.seen)

    asyncio.run(scenario())


@needs_skopeo
def test_what_skopeo_pushes_in_any_format_is_read(plain: Any, tmp_path: Path) -> None:
    from test_pull import AMD64, Desk

    asyncio.run(push(plain.domain, tmp_path))
    source = f"docker://{plain.domain}/app:1"
    for tag, flags in {
        "v2": ["--format", "v2s2"],
        "zstd": ["--dest-compress-format", "zstd", "--format", "oci"],
    }.items():
        target = f"docker://{plain.domain}/{tag}:1"
        skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *flags, source, target)
        desk = Desk(tmp_path / tag)
        pulled = asyncio.run(desk.pull(plain.domain, path=tag, platform=AMD64))
        assert pulled.config.diff_ids == tuple(Digest(text) for text in json.loads(IMAGE.config)["rootfs"]["diff_ids"])
