"""Pulls: every byte verified, broken transfers resumed, nothing left by what failed."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from lying_registry import Liar, MadeImage, descriptor, layer_of, make_image, no_sleep, serving

from minidocker.errors import InvalidArgument, MinidockerError, NotFound, Unavailable, Unsupported, VerificationError
from minidocker.oci.digest import Digest, chain_id
from minidocker.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, SCHEMA1, Platform
from minidocker.oci.reference import Reference
from minidocker.registry.hosts import RegistryConfig
from minidocker.registry.progress import Progress, ignore
from minidocker.registry.pull import Pulled, Puller, plan
from minidocker.registry.resolve import resolve, tags
from minidocker.registry.retry import Retry
from minidocker.registry.transfers import Transfers
from minidocker.registry.transport import Transport
from minidocker.storage.blobs import BlobStore

AMD64 = Platform("amd64", "linux")
CONFIG = RegistryConfig(certs_dirs=(), retry=Retry(sleep=no_sleep))
BIG = os.urandom(3 << 20)


class Layers:
    """Remembers what was unpacked, in order."""

    def __init__(self) -> None:
        self.chains: list[Digest] = []
        self.there: dict[Digest, Digest] = {}

    def get(self, chain: Digest) -> Digest | None:
        return self.there.get(chain)

    def stage(self, blob: Path, media_type: str, diff_id: Digest, moved: Any = None) -> Digest:
        assert blob.exists()
        return diff_id

    def commit(self, staged: Digest, parent: Digest | None) -> Digest:
        chain = Digest.of(f"{parent} {staged}".encode()) if parent else staged
        self.chains.append(chain)
        self.there[chain] = chain
        return chain

    def discard(self, staged: Digest) -> None:
        pass


class Desk:
    """One engine's stores and transfers, pulling."""

    def __init__(self, root: Path, config: RegistryConfig = CONFIG) -> None:
        self.blobs, self.layers, self.config = BlobStore(root), Layers(), config
        self.transfers = Transfers()
        self.lines: list[Progress] = []

    async def pull(self, domain: str, tag: str = "1", path: str = "app", platform: Platform = AMD64) -> Pulled:
        async with Transport(self.config) as transport:
            reference = Reference(domain, path, None if ":" in tag else tag, Digest(tag) if ":" in tag else None)
            resolved = await resolve(transport, reference, platform)
            puller = Puller(self.blobs, self.layers, self.transfers)
            return await puller.run(await plan(resolved), self.lines.append)

    def leftovers(self) -> list[str]:
        return sorted(os.listdir(self.blobs.partial))


def two_layers() -> MadeImage:
    return make_image([layer_of({"a": b"1"}), layer_of({"big": BIG})])


def pulled_from(liar: Liar, desk: Desk, **how: Any) -> Pulled:
    async def scenario() -> Pulled:
        async with serving(liar):
            return await desk.pull(liar.domain, **how)

    return asyncio.run(scenario())


def test_a_pull_brings_all_blobs_and_unpacks_layers_base_first(tmp_path: Path) -> None:
    image, desk = two_layers(), Desk(tmp_path)
    pulled = pulled_from(Liar(image), desk)
    assert {str(digest) for digest in desk.blobs} == {*image.blobs, str(pulled.manifest)}
    assert pulled.config_id == Digest.of(image.config)
    diff_ids = pulled.config.diff_ids
    assert desk.layers.chains == [diff_ids[0], Digest.of(f"{diff_ids[0]} {diff_ids[1]}".encode())]
    assert desk.leftovers() == []


def test_progress_tells_docker_words_in_docker_order(tmp_path: Path) -> None:
    image, desk = two_layers(), Desk(tmp_path)
    pulled_from(Liar(image), desk)
    short = image.manifest["layers"][1]["digest"][7:19]
    words = [line.status for line in desk.lines if line.id == short]
    kept = [word for at, word in enumerate(words) if at == 0 or words[at - 1] != word]
    expected = ["Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Pull complete"]
    assert [word for word in kept if word != "Extracting"] == expected
    downloading = [line for line in desk.lines if line.status == "Downloading" and line.id == short]
    assert downloading[-1].current == downloading[-1].total == image.manifest["layers"][1]["size"]


def test_a_layer_that_is_here_already_is_not_fetched(tmp_path: Path) -> None:
    desk, liar = Desk(tmp_path), Liar(two_layers())
    pulled_from(liar, desk)
    before = len(liar.requests("/blobs/"))
    pulled_from(liar, desk)
    assert len(liar.requests("/blobs/")) == before + 1  # the config only
    assert [line.status for line in desk.lines].count("Already exists") == 2


# --- lies ---------------------------------------------------------------------------------------------------------


def _refused(liar: Liar, tmp_path: Path, kind: type[Exception], match: str, **how: Any) -> None:
    desk = Desk(tmp_path)
    with pytest.raises(kind, match=match):
        pulled_from(liar, desk, **how)
    assert desk.leftovers() == []
    assert desk.layers.chains == [] or len(desk.layers.chains) == 1


def test_a_layer_with_other_bytes_is_refused(tmp_path: Path) -> None:
    image = two_layers()
    digest = image.manifest["layers"][1]["digest"]
    image.blobs[digest] = image.blobs[digest][:-1] + b"X"
    _refused(Liar(image), tmp_path, VerificationError, "not what was asked for")


@pytest.mark.parametrize("change", [-1, 1, 1 << 30])
def test_a_layer_of_another_size_than_the_manifest_says_is_refused(tmp_path: Path, change: int) -> None:
    image = two_layers()
    image.manifest["layers"][1]["size"] += change
    _refused(Liar(image), tmp_path, MinidockerError, "promised")


def test_a_config_with_other_bytes_or_size_is_refused(tmp_path: Path) -> None:
    image = two_layers()
    image.blobs[str(Digest.of(image.config))] = image.config + b" "
    _refused(Liar(image), tmp_path, VerificationError, "config")
    for other in (image.config.replace(b"amd64", b"amd65"), image.config[:-1]):
        image.blobs[str(Digest.of(image.config))] = other
        _refused(Liar(image), tmp_path, VerificationError, "that were promised")
    image = two_layers()
    image.manifest["config"]["size"] -= 1
    _refused(Liar(image), tmp_path, VerificationError, "config")


def test_a_manifest_asked_for_by_digest_must_have_it(tmp_path: Path) -> None:
    liar = Liar(two_layers())
    _refused(liar, tmp_path, VerificationError, "not what was asked for", tag="sha256:" + "0" * 64)


def _answering(body: bytes, media_type: str | None = OCI_MANIFEST, **headers: str) -> Liar:
    async def answer(request: web.Request) -> web.StreamResponse:
        sent = dict(headers)
        if media_type is not None:
            sent["Content-Type"] = media_type
        return web.Response(body=body, headers=sent)

    liar = Liar(two_layers())
    liar.lies["/manifests/1"] = answer
    return liar


def test_a_manifest_that_the_registry_names_differently_is_refused(tmp_path: Path) -> None:
    body = two_layers().manifest_bytes
    _refused(
        _answering(body, **{"Docker-Content-Digest": "sha256:" + "1" * 64}),
        tmp_path,
        VerificationError,
        "registry calls it",
    )


def _two_shapes() -> bytes:
    document = two_layers().manifest
    return json.dumps(document | {"manifests": [descriptor(OCI_MANIFEST, b"x")]}).encode()


@pytest.mark.parametrize(
    ("body", "media_type", "kind"),
    [
        (_two_shapes(), OCI_MANIFEST, VerificationError),
        (_two_shapes(), OCI_INDEX, VerificationError),
        (two_layers().manifest_bytes, DOCKER_MANIFEST, VerificationError),
        (two_layers().manifest_bytes, OCI_INDEX, VerificationError),
        (json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode(), SCHEMA1[1], Unsupported),
        (json.dumps({"schemaVersion": 2, "manifests": []}).encode(), OCI_MANIFEST, VerificationError),
        (b"[" * 100_000, OCI_MANIFEST, InvalidArgument),
        (b'{"config":' * 50_000, OCI_MANIFEST, InvalidArgument),
        (b"not json", OCI_MANIFEST, InvalidArgument),
        (b"", OCI_MANIFEST, InvalidArgument),
        (b"\xff\xfe", OCI_MANIFEST, InvalidArgument),
        (b" " * ((4 << 20) + 1), OCI_MANIFEST, VerificationError),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else str(value)[-20:],
)
def test_a_document_that_is_not_plainly_a_manifest_is_refused(
    tmp_path: Path, body: bytes, media_type: str, kind: type[Exception]
) -> None:
    liar = _answering(body, media_type)
    _refused(liar, tmp_path, kind, ".")
    assert liar.requests("/blobs/") == []


def test_an_endless_manifest_is_cut_off_at_its_limit(tmp_path: Path) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    liar = Liar(two_layers())
    liar.lies["/manifests/1"] = endless
    _refused(liar, tmp_path, VerificationError, "larger than")
    assert sent < 32 << 20


def test_an_endless_layer_is_cut_off_at_its_promised_size(tmp_path: Path) -> None:
    image = two_layers()
    content = image.blobs[image.manifest["layers"][1]["digest"]]

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(content)
        while True:
            await response.write(b"x" * 65536)

    liar = Liar(image)
    liar.lies[image.manifest["layers"][1]["digest"]] = endless
    _refused(liar, tmp_path, VerificationError, "longer than")


def test_too_many_layers_are_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    image = make_image([layer_of({"a": b"1"})] * 128)
    liar = Liar(image)
    _refused(liar, tmp_path, InvalidArgument, "128 layers")
    assert liar.requests("/blobs/") == []


def test_foreign_layers_are_refused_and_their_address_is_never_visited(tmp_path: Path) -> None:
    image, thief = two_layers(), Liar()

    async def scenario() -> None:
        async with serving(Liar(image)) as liar, serving(thief):
            image.manifest["layers"][0]["urls"] = [f"{thief.url}/layer"]
            with pytest.raises(Unsupported, match="foreign"):
                await Desk(tmp_path).pull(liar.domain)

    asyncio.run(scenario())
    assert thief.seen == []


def test_a_config_that_counts_other_layers_than_the_manifest_is_refused(tmp_path: Path) -> None:
    image = two_layers()
    image.manifest["layers"].pop()
    _refused(Liar(image), tmp_path, VerificationError, "names 2 layers")


def test_an_image_of_another_system_is_refused(tmp_path: Path) -> None:
    _refused(Liar(make_image([layer_of({"a": b"1"})], os="windows")), tmp_path, Unsupported, "windows")


# --- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("/v2/app/manifests/1", "more than 10 redirects"),
        ("file:///etc/passwd", "only http and https"),
        ("ftp://127.0.0.1/x", "only http and https"),
        ("http://registry.example/x", "plain http"),
        ("http://u:p@127.0.0.1/x", "user name"),
        ("http://[", "not an address|redirects"),
    ],
)
def test_a_redirect_that_leads_astray_is_refused(tmp_path: Path, target: str, match: str) -> None:
    async def astray(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target})

    liar = Liar(two_layers())
    liar.lies["/manifests/1"] = astray
    _refused(liar, tmp_path, VerificationError, match)
    assert len(liar.requests("/manifests/1")) <= 11


# --- transfers that break -----------------------------------------------------------------------------------------


def _cutting(image: MadeImage, cuts: int, *, ranges: bool = True, bend: Callable[[str], str] = str) -> Liar:
    """Sends a third of what is asked for, `cuts` times, then all of it."""
    liar = Liar(image)
    digest = image.manifest["layers"][1]["digest"]
    content, left = image.blobs[digest], [cuts]

    async def blob(request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range", "bytes=0-") if ranges else "bytes=0-"
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        body = content[start:]
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(body)
        if start:
            response.headers["Content-Range"] = bend(f"bytes {start}-{len(content) - 1}/{len(content)}")
        await response.prepare(request)
        if left[0]:
            left[0] -= 1
            await response.write(body[: len(body) // 3])
            assert request.transport is not None
            request.transport.close()
        else:
            await response.write(body)
        return response

    liar.lies[digest] = blob
    return liar


def test_a_cut_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    image, desk = two_layers(), Desk(tmp_path)
    liar = _cutting(image, 3)
    pulled_from(liar, desk)
    asked = [headers.get("Range") for headers in liar.requests(image.manifest["layers"][1]["digest"])]
    assert asked[0] is None and len(asked) == 4
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in asked if text]
    assert starts == sorted(starts) and starts[0] > 0
    assert any(line.status.startswith("Retrying in") for line in desk.lines)


def test_a_registry_without_ranges_is_read_from_its_start_again(tmp_path: Path) -> None:
    image, desk = two_layers(), Desk(tmp_path)
    pulled_from(_cutting(image, 2, ranges=False), desk)
    digest = Digest(image.manifest["layers"][1]["digest"])
    assert hashlib.sha256(desk.blobs.path(digest).read_bytes()).hexdigest() == digest.hex


def _moved(start: int, end: int) -> Callable[[str], str]:
    """Shift the ends of a Content-Range."""

    def bend(text: str) -> str:
        first, last = (int(part) for part in text.removeprefix("bytes ").partition("/")[0].split("-"))
        return f"bytes {first + start}-{last + end}/{text.partition('/')[2]}"

    return bend


@pytest.mark.parametrize(
    "bend",
    [
        lambda _: "",
        lambda _: "bytes 0-9/10",
        lambda text: text + "0",
        lambda _: "bytes */5",
        _moved(-1, 0),
        _moved(0, -1),
    ],
)
def test_a_wrong_content_range_is_refused(tmp_path: Path, bend: Callable[[str], str]) -> None:
    _refused(_cutting(two_layers(), 1, bend=bend), tmp_path, VerificationError, "asked for bytes")


def test_a_registry_that_always_breaks_is_given_up(tmp_path: Path) -> None:
    liar = _cutting(two_layers(), 1000)
    _refused(liar, tmp_path, Unavailable, "broke|ended")
    digest = liar.image.manifest["layers"][1]["digest"] if liar.image else ""
    assert len(liar.requests(digest)) <= CONFIG.retry.attempts_in_all


def _failing(times: int, status: int, **headers: str) -> Liar:
    liar, left = Liar(two_layers()), [times]

    async def manifest(request: web.Request) -> web.StreamResponse:
        if left[0]:
            left[0] -= 1
            return web.Response(status=status, headers=headers)
        return liar.honest(request)

    liar.lies["/manifests/1"] = manifest
    return liar


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_passing_failure_is_tried_again(tmp_path: Path, status: int) -> None:
    liar = _failing(2, status)
    pulled_from(liar, Desk(tmp_path))
    assert len(liar.requests("/manifests/1")) == 3


def test_a_lasting_failure_is_given_up_after_the_bound(tmp_path: Path) -> None:
    liar = _failing(1000, 503)
    _refused(liar, tmp_path, Unavailable, "503")
    assert len(liar.requests("/manifests/1")) == CONFIG.retry.attempts


@pytest.mark.parametrize("status", [400, 404, 410, 418])
def test_a_refusal_is_not_tried_again(tmp_path: Path, status: int) -> None:
    liar = _failing(1000, status)
    _refused(liar, tmp_path, MinidockerError, ".")
    assert len(liar.requests("/manifests/1")) == 1


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    config = RegistryConfig(certs_dirs=(), retry=Retry(sleep=sleep))
    pulled_from(_failing(1, 429, **{"Retry-After": "7"}), Desk(tmp_path, config))
    assert slept == [7.0]


@pytest.mark.parametrize("asked", ["86400", "Wed, 21 Oct 2099 07:28:00 GMT", "99999999999"])
def test_a_registry_that_wants_to_be_waited_for_too_long_is_given_up(tmp_path: Path, asked: str) -> None:
    liar = _failing(1, 429, **{"Retry-After": asked})
    _refused(liar, tmp_path, Unavailable, "asks to wait")
    assert len(liar.requests("/manifests/1")) == 1


# --- several at once ----------------------------------------------------------------------------------------------


def _held(liar: Liar, digest: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the blob's answer until the second event is set; the first tells that it was asked for."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def blob(request: web.Request) -> web.StreamResponse:
        asked.set()
        await go_on.wait()
        return liar.honest(request)

    liar.lies[digest] = blob
    return asked, go_on


async def _joined(desk: Desk, image: MadeImage) -> None:
    """Return when two pulls wait for the topmost layer."""
    top = chain_id(tuple(Digest(text) for text in json.loads(image.config)["rootfs"]["diff_ids"]))
    while len(desk.transfers._running[f"layer {top}"].watchers) < 2:
        await asyncio.sleep(0)


def test_two_pulls_of_one_image_share_each_download(tmp_path: Path) -> None:
    async def scenario() -> None:
        image, desk = two_layers(), Desk(tmp_path)
        digest = image.manifest["layers"][1]["digest"]
        async with serving(Liar(image)) as liar:
            asked, go_on = _held(liar, digest)
            first = asyncio.ensure_future(desk.pull(liar.domain))
            await asked.wait()
            second = asyncio.ensure_future(desk.pull(liar.domain))
            await _joined(desk, image)
            go_on.set()
            await asyncio.gather(first, second)
            assert len(liar.requests(digest)) == 1
            assert len(desk.layers.chains) == 2

    asyncio.run(scenario())


def test_cancelling_one_of_two_pulls_leaves_the_other_its_download(tmp_path: Path) -> None:
    async def scenario() -> None:
        image, desk = two_layers(), Desk(tmp_path)
        digest = image.manifest["layers"][1]["digest"]
        async with serving(Liar(image)) as liar, Transport(CONFIG) as transport:
            asked, go_on = _held(liar, digest)

            async def pull() -> Pulled:
                resolved = await resolve(transport, Reference(liar.domain, "app", "1"), AMD64)
                return await Puller(desk.blobs, desk.layers, desk.transfers).run(await plan(resolved), ignore)

            first = asyncio.ensure_future(pull())
            await asked.wait()
            second = asyncio.ensure_future(pull())
            await _joined(desk, image)
            first.cancel()
            await asyncio.wait({first})
            go_on.set()
            await second
            assert len(liar.requests(digest)) == 1

    asyncio.run(scenario())


def test_a_cancelled_pull_leaves_no_partial_blob_and_no_transfer(tmp_path: Path) -> None:
    async def scenario() -> None:
        image, desk = two_layers(), Desk(tmp_path)
        digest = image.manifest["layers"][1]["digest"]
        content = image.blobs[digest]
        async with serving(Liar(image)) as liar:
            half_sent = asyncio.Event()

            async def half(request: web.Request) -> web.StreamResponse:
                response = web.StreamResponse()
                response.content_length = len(content)
                await response.prepare(request)
                await response.write(content[: len(content) // 2])
                half_sent.set()
                await asyncio.Event().wait()
                return response

            liar.lies[digest] = half
            pull = asyncio.ensure_future(desk.pull(liar.domain))
            await half_sent.wait()
            while not desk.leftovers():
                await asyncio.sleep(0)
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
            assert desk.leftovers() == []
            assert desk.transfers._running == {}

    asyncio.run(scenario())


# --- platforms and mirrors ----------------------------------------------------------------------------------------


def _multi(**images: MadeImage) -> Liar:
    """An index under tag 1; keys are architecture or architecture_variant."""
    liar = Liar(MadeImage({d: c for image in images.values() for d, c in image.blobs.items()}, b"", {}))
    entries = []
    for name, image in images.items():
        architecture, _, variant = name.partition("_")
        platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
        entries.append(descriptor(OCI_MANIFEST, image.manifest_bytes) | {"platform": platform})
        body = image.manifest_bytes

        async def answer(request: web.Request, body: bytes = body) -> web.StreamResponse:
            return web.Response(body=body, headers={"Content-Type": OCI_MANIFEST})

        liar.lies["/manifests/" + str(Digest.of(body))] = answer
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()

    async def top(request: web.Request) -> web.StreamResponse:
        return web.Response(body=index, headers={"Content-Type": OCI_INDEX})

    liar.lies["/manifests/1"] = top
    return liar


def test_the_platform_is_chosen_with_its_variant_and_a_missing_one_is_named(tmp_path: Path) -> None:
    amd, v6, v7 = (make_image([layer_of({name: b"1"})], architecture=name) for name in ("amd64", "arm", "arm64"))
    liar = _multi(amd64=amd, arm_v6=v6, arm_v7=v7)
    assert pulled_from(liar, Desk(tmp_path / "1")).config_id == Digest.of(amd.config)
    wanted = Platform.parse("linux/arm/v7")
    assert pulled_from(liar, Desk(tmp_path / "2"), platform=wanted).config_id == Digest.of(v7.config)
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        pulled_from(liar, Desk(tmp_path / "3"), platform=Platform.parse("linux/s390x"))


def test_a_mirror_is_asked_first_and_the_image_keeps_its_hub_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(Liar(two_layers())) as mirror:
            config = RegistryConfig(mirrors=(mirror.url,), certs_dirs=(), retry=Retry(sleep=no_sleep))
            await Desk(tmp_path, config).pull("docker.io", path="library/app")
            assert mirror.requests("/v2/library/app/manifests/1")

    asyncio.run(scenario())


def test_a_mirror_lists_the_tags_too() -> None:
    async def list_tags(_request: web.BaseRequest) -> web.Response:
        return web.json_response({"name": "library/app", "tags": ["1", "2"]})

    async def scenario() -> None:
        async with serving(Liar()) as mirror:
            mirror.lies["/tags/list"] = list_tags
            config = RegistryConfig(mirrors=(mirror.url,), certs_dirs=(), retry=Retry(sleep=no_sleep))
            async with Transport(config) as transport:
                assert await tags(transport, Reference("docker.io", "library/app")) == ["1", "2"]

    asyncio.run(scenario())
