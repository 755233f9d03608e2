"""An engine's image side on real stores, without containers' launcher or network."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from minidocker.engine.events import Events
from minidocker.engine.images.images import Images
from minidocker.oci.reference import Reference
from minidocker.registry.credentials import ANONYMOUS
from minidocker.registry.hosts import RegistryConfig
from minidocker.registry.progress import Progress
from minidocker.registry.retry import Retry
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import ImageStore
from minidocker.storage.layers import LayerStore
from minidocker.storage.worker import Worker


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


@dataclass
class Desk:
    """`images`, the stores below it, the progress lines seen, and containers that a test makes up."""

    root: Path
    images: Images
    blobs: BlobStore
    layers: LayerStore
    store: ImageStore
    containers: list[Any] = field(default_factory=list)
    lines: list[Progress] = field(default_factory=list)

    async def pull(self, text: str, **more: Any) -> None:
        how = {"all_tags": False, "platform": None, "credentials": ANONYMOUS, "report": self.lines.append} | more
        await self.images.pull(Reference.parse(text), **how)

    def use(self, text: str, *, running: bool) -> str:
        """Make up a container of that image."""
        image = self.images.find(text)
        id = f"{len(self.containers):064x}"
        chain = str(image.chain_ids[-1]) if image.chain_ids else ""
        record = SimpleNamespace(image_id=str(image.id), chain=chain)
        self.containers.append(SimpleNamespace(id=id, record=record, state=SimpleNamespace(running=running)))
        return id

    def files(self) -> list[str]:
        """All that lies in the blob and layer stores, but their fixed directories."""
        layers = [path for path in (self.root / "layers").iterdir() if path.name not in ("l", "staged", "empty")]
        staged = list((self.root / "layers" / "staged").iterdir())
        blobs = [*(self.root / "blobs" / "sha256").iterdir(), *(self.root / "blobs" / "partial").iterdir()]
        return sorted(path.name for path in (*layers, *staged, *blobs))


@contextlib.asynccontextmanager
async def open_desk(root: Path) -> AsyncIterator[Desk]:
    worker = Worker(root / "exec")
    (root / "exec").mkdir(parents=True)
    blobs = BlobStore(root)
    layers, store = LayerStore(root, worker), ImageStore(root, blobs)
    containers: list[Any] = []
    engine: Any = SimpleNamespace(
        blobs=blobs,
        layers=layers,
        image_store=store,
        events=Events(),
        containers=SimpleNamespace(all=lambda: containers),
    )
    engine.settings = SimpleNamespace(insecure_registries=(), registry_mirrors=())
    images = Images(engine, RegistryConfig(certs_dirs=(), retry=Retry(sleep=no_sleep)))
    try:
        yield Desk(root, images, blobs, layers, store, containers)
    finally:
        await images.close()
        worker.close()
