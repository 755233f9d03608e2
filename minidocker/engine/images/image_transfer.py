"""Pull, push and login: the registry's work put together with the stores.

Source  Docker Engine API 1.44 (ImageCreate, ImagePush, SystemAuth, DistributionInspect); moby's words of status
        and failure.
Rules   - an image is registered, and named, after everything of it is verified and in place.
        - a push sends the manifest that the image came with, if it is here; else one of Docker's schema 2 is made, and
          its plain layers are compressed once and kept so.
"""

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from minidocker.engine.garbage import Garbage
from minidocker.errors import MinidockerError, NotFound
from minidocker.oci import codec, image_config
from minidocker.oci import manifest as manifests
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_LAYER,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from minidocker.oci.reference import DEFAULT_DOMAIN, DEFAULT_TAG, Reference
from minidocker.registry.client import RegistryClient, in_thread
from minidocker.registry.credentials import AuthConfig, server_key
from minidocker.registry.hosts import RegistryConfig
from minidocker.registry.progress import Progress, Report, ignore
from minidocker.registry.pull import Pulled, Puller, plan
from minidocker.registry.push import Part, push_image
from minidocker.registry.resolve import Resolved, connect, login, resolve
from minidocker.registry.resolve import tags as tags_of
from minidocker.registry.transfers import Transfers
from minidocker.registry.transport import Transport
from minidocker.storage.images import Image, ImageLayer

if TYPE_CHECKING:
    from minidocker.storage.archive import Stores

_PLAIN_LAYERS = (DOCKER_LAYER, OCI_LAYER)
_COMPRESSION_LEVEL = 1
_PIECE_BYTES = 1 << 20


class ImageTransfer:
    """One engine's traffic with registries."""

    def __init__(self, config: RegistryConfig, stores: "Stores", garbage: Garbage, machine: str) -> None:
        """machine  the host's, as uname says ("x86_64")."""
        self._transport = Transport(config)
        self._stores, self._garbage = stores, garbage
        self._platform = Platform.of_machine(machine)
        self._puller = Puller(stores.blobs, stores.layers, Transfers())

    async def close(self) -> None:
        """End all connections."""
        await self._transport.close()

    async def pull(
        self, reference: Reference, platform: Platform | None, credentials: AuthConfig, report: Report
    ) -> Image:
        """Bring in one image and name it.

        platform  None: this machine's.
        Raises    as `resolve`, `plan` and `Puller.run` do; nothing is left then.
        """
        image, newer = await self._pull(reference, platform, credentials, report)
        report(_status(reference.familiar, newer=newer))
        return image

    async def _pull(
        self, reference: Reference, platform: Platform | None, credentials: AuthConfig, report: Report
    ) -> tuple[Image, bool]:
        """The image, and whether the name meant another one, or none, before."""
        resolved = await resolve(self._transport, reference, platform or self._platform, credentials)
        shown = str(reference) if reference.digest else str(reference.tag)
        report(Progress(f"Pulling from {reference.path}", shown))
        async with self._garbage.making():
            planned = await plan(resolved)
            if platform is not None and not _suits(planned.config.platform, platform):
                raise NotFound(
                    f"image with reference {reference.familiar} was found but does not match the specified platform: "
                    f"wanted {platform}, actual: {planned.config.platform}"
                )
            before = self._known(reference)
            # Of an image that is here, under whatever name, Docker shows no layers.
            known = self._known(resolved.document.config.digest) is not None
            pulled = await self._puller.run(planned, ignore if known else report)
            image = self._register(reference, pulled)
        report(Progress(f"Digest: {pulled.top}"))
        return image, before != image.id

    async def pull_all(
        self, repository: Reference, platform: Platform | None, credentials: AuthConfig, report: Report
    ) -> list[Image]:
        """Every tag of a repository."""
        tags = await tags_of(self._transport, repository, credentials)
        if not tags:
            raise NotFound(f"repository {repository.familiar_name} has no tags")
        pulled = [await self._pull(repository.with_tag(tag), platform, credentials, report) for tag in tags]
        report(_status(repository.familiar_name, newer=any(newer for _, newer in pulled)))
        return [image for image, _ in pulled]

    def _known(self, name: Reference | Digest) -> Digest | None:
        try:
            return self._stores.images.find(str(name)).id
        except MinidockerError:
            return None

    def _register(self, reference: Reference, pulled: Pulled) -> Image:
        layers = tuple(
            ImageLayer(diff_id, layer.digest, layer.size, layer.media_type)
            for diff_id, layer in zip(pulled.config.diff_ids, pulled.layers, strict=True)
        )
        names = [Reference(reference.domain, reference.path, None, pulled.top)]
        if reference.digest is None:
            names.append(reference)
        return self._stores.images.add(
            pulled.config_id,
            layers,
            manifest=pulled.manifest,
            manifest_media_type=pulled.manifest_media_type,
            config_media_type=pulled.config_media_type,
            references=names,
        )

    async def push(
        self, repository: Reference, tags: Iterable[str] | None, credentials: AuthConfig, report: Report
    ) -> None:
        """Push the given tags of a repository, or (None) all that are here.

        Raises  NotFound: no such tag here. Unauthorized, Forbidden, Unavailable: the registry's answer.
        """
        report(Progress(f"The push refers to repository [{repository.name}]"))
        here = {name.tag: image for image, name in self._names(repository) if name.tag}
        if not here:
            raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
        wanted = sorted(tag for tag in here if tag) if tags is None else list(tags)
        async with connect(self._transport, repository, credentials, push=True) as client:
            for tag in wanted:
                if tag not in here:
                    raise NotFound(f"tag does not exist: {repository.with_tag(tag).familiar}")
                await self._push_one(client, repository.with_tag(tag), here[tag], report)

    def _names(self, repository: Reference) -> list[tuple[Image, Reference]]:
        images = self._stores.images
        return [
            (image, name)
            for image in images.list()
            for name in images.references(image.id)
            if name.name == repository.name
        ]

    async def _push_one(self, client: RegistryClient, reference: Reference, image: Image, report: Report) -> None:
        assert reference.tag is not None
        async with self._garbage.making():
            image, manifest, media_type = await self._prepared(image)
            blobs = self._stores.blobs
            config = Descriptor(image.config_media_type, image.id, blobs.size(image.id))
            parts = [
                Part(
                    Descriptor(layer.media_type, layer.digest, layer.size),
                    layer.diff_id.short,
                    blobs.path(layer.digest),
                )
                for layer in reversed(image.layers)
            ]
            parts.append(Part(config, "", blobs.path(image.id)))
            pushed = await push_image(
                client,
                reference.tag,
                manifest,
                media_type,
                parts,
                lambda digest: self._sources(reference, digest),
                report,
            )
            self._stores.images.set_digest(reference.with_digest(pushed.digest), image.id)

    def _sources(self, target: Reference, blob: Digest) -> list[str]:
        """Other repositories of the same registry that were pulled or pushed with that blob."""
        images = self._stores.images
        found = {
            name.path
            for image in images.list()
            if blob in image.blobs
            for name in images.references(image.id)
            if name.domain == target.domain and name.path != target.path and name.digest
        }
        return sorted(found)[:3]

    async def _prepared(self, image: Image) -> tuple[Image, bytes, str]:
        """The image with blobs fit to be sent, its manifest's bytes and media type."""
        blobs = self._stores.blobs
        whole = all(blobs.has(layer.digest) for layer in image.layers)
        if image.manifest is not None and whole and blobs.has(image.manifest):
            content = blobs.read(image.manifest, manifests.DOCUMENT_LIMIT_BYTES)
            return image, content, image.manifest_media_type
        layers = [await self._packed(layer) for layer in image.layers]
        manifest = Manifest(
            schema_version=2,
            media_type=DOCKER_MANIFEST,
            config=Descriptor(DOCKER_CONFIG, image.id, blobs.size(image.id)),
            layers=[Descriptor(layer.media_type, layer.digest, layer.size) for layer in layers],
        )
        content = codec.encode(manifest)
        digest = await in_thread(blobs.put, content)
        added = self._stores.images.add(
            image.id,
            tuple(layers),
            manifest=digest,
            manifest_media_type=DOCKER_MANIFEST,
            config_media_type=DOCKER_CONFIG,
            parent=image.parent,
        )
        return added, content, DOCKER_MANIFEST

    async def _packed(self, layer: ImageLayer) -> ImageLayer:
        """The layer in Docker's terms, compressed if it was not."""
        if not self._stores.blobs.has(layer.digest):
            raise NotFound(f"layer {layer.digest} is not here as a blob; pull the image again")
        if layer.media_type not in _PLAIN_LAYERS:
            kind = manifests.LAYER_COMPRESSIONS[layer.media_type]
            return msgspec.structs.replace(layer, media_type=f"{DOCKER_LAYER}.{kind}")
        digest = await in_thread(self._compress, layer.digest)
        return msgspec.structs.replace(
            layer, digest=digest, size=self._stores.blobs.size(digest), media_type=DOCKER_LAYER + ".gzip"
        )

    def _compress(self, digest: Digest) -> Digest:
        from isal import isal_zlib

        packer: Any = isal_zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, 31)
        with self._stores.blobs.open(digest) as plain, self._stores.blobs.ingest(None, None) as ingest:
            while piece := plain.read(_PIECE_BYTES):
                ingest.write(packer.compress(piece))
            ingest.write(packer.flush())
            return ingest.commit()

    async def login(self, credentials: AuthConfig) -> str:
        """Try credentials; returns an identity token or "". Raises Unauthorized, Unavailable."""
        domain = server_key(credentials.serveraddress) if credentials.serveraddress else DEFAULT_DOMAIN
        return await login(self._transport, domain, credentials)

    async def describe(self, reference: Reference, credentials: AuthConfig) -> tuple[Descriptor, list[Platform]]:
        """What a registry holds under a name: the descriptor of its top document, and the platforms it is for."""
        resolved = await resolve(self._transport, _tagged(reference), Platform(), credentials, choose=False)
        if isinstance(resolved.top.document, Index):
            platforms = [entry.platform for entry in resolved.top.document.manifests if entry.platform]
        else:
            platforms = [(await _config(resolved)).platform]
        return resolved.top.descriptor, platforms


def _status(name: str, *, newer: bool) -> Progress:
    return Progress(f"Status: {'Downloaded newer image' if newer else 'Image is up to date'} for {name}")


async def _config(resolved: Resolved) -> image_config.ImageConfig:
    return (await resolved.config())[1]


def _tagged(reference: Reference) -> Reference:
    return reference if reference.tag or reference.digest else reference.with_tag(DEFAULT_TAG)


def _suits(actual: Platform, wanted: Platform) -> bool:
    same = (actual.os, actual.architecture) == (wanted.os, wanted.architecture)
    return same and (not wanted.variant or not actual.variant or actual.variant == wanted.variant)


__all__ = ["ImageTransfer"]
