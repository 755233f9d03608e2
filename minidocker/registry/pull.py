"""Pull: from a resolved manifest to verified blobs and unpacked layers.

Source  OCI image-spec (manifest, config: diff IDs, chain IDs); moby's pull (what runs in parallel, status words).
Rules   - blobs come in parallel, three at a time in the whole engine; each layer is unpacked as soon as it is here.
        - identical blobs and layers are fetched and unpacked once, also when several pulls want them.
        - nothing here names an image: the caller does, after all of it is in place.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minidocker.errors import Unsupported
from minidocker.oci.digest import Digest, chain_id
from minidocker.oci.image_config import ImageConfig
from minidocker.oci.manifest import Descriptor
from minidocker.registry.client import in_thread, outlast
from minidocker.registry.progress import Meter, Progress, Report, ignore
from minidocker.registry.resolve import Resolved
from minidocker.registry.transfers import Transfers


class Blobs(Protocol):
    """What a pull needs of the blob store."""

    def has(self, digest: Digest) -> bool: ...
    def path(self, digest: Digest) -> Path: ...
    def put(self, content: bytes) -> Digest: ...
    def ingest(self, expected: Digest | None, size: int | None) -> Any: ...


class Layers(Protocol):
    """What a pull needs of the layer store; layers are that store's own objects."""

    def get(self, chain: Digest) -> Any: ...
    def stage(self, blob: Path, media_type: str, diff_id: Digest, on_progress: Callable[[int], object]) -> Any: ...
    def commit(self, staged: Any, parent: Any) -> Any: ...
    def discard(self, staged: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Pulled:
    """All that an image store has to write down.

    top       digest of what the reference named (index or manifest).
    manifest  digest of the manifest, whose bytes are a blob now; as is the config's.
    layers    as the manifest lists them, base first; diff IDs are in `config`.
    """

    top: Digest
    manifest: Digest
    manifest_media_type: str
    config_id: Digest
    config_media_type: str
    config: ImageConfig
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A pull that is known in full before a byte of a layer moves."""

    resolved: Resolved
    config_content: bytes
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    chains: tuple[Digest, ...]


async def plan(resolved: Resolved) -> Plan:
    """Fetch and check the config. Raises as Resolved.config; Unsupported: a layer that lies elsewhere (foreign)."""
    for layer in resolved.document.layers:
        if layer.urls:
            raise Unsupported(f"layer {layer.digest} is to be fetched from another address (foreign layer); refused")
    content, config = await resolved.config()
    diff_ids = config.diff_ids
    chains = tuple(chain_id(diff_ids[: count + 1]) for count in range(len(diff_ids)))
    return Plan(resolved, content, config, tuple(resolved.document.layers), chains)


class Puller:
    """Carries out plans with one engine's stores."""

    def __init__(self, blobs: Blobs, layers: Layers, transfers: Transfers) -> None:
        self._blobs, self._layers, self._transfers = blobs, layers, transfers

    async def run(self, plan: Plan, report: Report) -> Pulled:
        """Bring in everything of `plan`; on an error or when cancelled, what is under way is stopped and removed.

        Raises  the first error: VerificationError, Unavailable, KernelError (ENOSPC), what unpacking raises.
        """
        for layer, chain in zip(plan.layers, plan.chains, strict=True):
            if self._layers.get(chain) is None or not self._blobs.has(layer.digest):
                report(Progress("Pulling fs layer", layer.digest.short))
        tasks = [asyncio.ensure_future(self._ensure(plan, number, report)) for number in range(len(plan.layers))]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)
        document = plan.resolved.document
        await in_thread(self._blobs.put, plan.config_content)
        await in_thread(self._blobs.put, plan.resolved.manifest.content)
        return Pulled(
            plan.resolved.top.digest,
            plan.resolved.manifest.digest,
            plan.resolved.manifest.media_type,
            document.config.digest,
            document.config.media_type,
            plan.config,
            plan.layers,
        )

    async def _ensure(self, plan: Plan, number: int, report: Report) -> Any:
        """The layer at `number`, made if it is not here."""
        short, chain = plan.layers[number].digest.short, plan.chains[number]
        there = self._layers.get(chain)
        # The blob as well: this image's may be another one than that of the image which the layer came with.
        if there is not None and self._blobs.has(plan.layers[number].digest):
            report(Progress("Already exists", short))
            return there
        return await self._transfers.share(
            f"layer {chain}", lambda shared: self._make(plan, number, shared), _named(report, short)
        )

    async def _make(self, plan: Plan, number: int, report: Report) -> Any:
        """Fetch and unpack one layer while those below are made; file it when they are there."""
        descriptor = plan.layers[number]
        below = [asyncio.ensure_future(self._ensure(plan, number - 1, ignore))] if number else []
        try:
            await self._blob(plan, descriptor, report)
            there = self._layers.get(plan.chains[number])
            if there is not None:
                report(Progress("Pull complete", descriptor.digest.short))
                return there
            staged = await self._stage(descriptor, plan.config.diff_ids[number], report)
            try:
                parent = await below[0] if below else None
                layer = await in_thread(self._layers.commit, staged, parent)
            except BaseException:
                self._layers.discard(staged)
                raise
            report(Progress("Pull complete", descriptor.digest.short))
            return layer
        finally:
            await _end(below)

    async def _blob(self, plan: Plan, descriptor: Descriptor, report: Report) -> None:
        short = descriptor.digest.short
        if not self._blobs.has(descriptor.digest):
            if self._transfers.downloading.locked():
                report(Progress("Waiting", short))
            await self._transfers.share(
                f"blob {descriptor.digest}", lambda shared: self._download(plan, descriptor, shared), report
            )
        report(Progress("Download complete", short))

    async def _download(self, plan: Plan, descriptor: Descriptor, report: Report) -> None:
        short = descriptor.digest.short
        meter = Meter(report, "Downloading", short, descriptor.size)

        def waiting(seconds: float) -> None:
            report(Progress(f"Retrying in {seconds:.0f} second{'' if round(seconds) == 1 else 's'}", short))

        async with self._transfers.downloading:
            with self._blobs.ingest(descriptor.digest, descriptor.size) as ingest:
                await plan.resolved.client.download(descriptor, ingest, meter.at, waiting)
                report(Progress("Verifying Checksum", short))
                await in_thread(ingest.commit)

    async def _stage(self, descriptor: Descriptor, diff_id: Digest, report: Report) -> Any:
        meter = Meter(report, "Extracting", descriptor.digest.short, descriptor.size)
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def moved(done_bytes: int) -> None:
            if cancelled.is_set():
                raise InterruptedError("the pull was cancelled")
            loop.call_soon_threadsafe(meter.at, done_bytes)

        async with self._transfers.unpacking:
            blob = self._blobs.path(descriptor.digest)
            work = asyncio.ensure_future(in_thread(self._layers.stage, blob, descriptor.media_type, diff_id, moved))
            try:
                staged = await asyncio.shield(work)
                meter.at(descriptor.size)
                return staged
            except asyncio.CancelledError:
                cancelled.set()
                await outlast(work)
                if work.exception() is None:
                    self._layers.discard(work.result())
                raise


async def _end(tasks: "Sequence[asyncio.Future[Any]]") -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        await outlast(task)


def _named(report: Report, id: str) -> Report:
    """The same progress under this pull's own name for the layer (another pull may know it by another blob)."""
    return lambda progress: report(Progress(progress.status, id, progress.current, progress.total))
