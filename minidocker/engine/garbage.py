"""Garbage: blobs and layers that no image and no container needs, and when they may go.

Rules   - what is needed is asked of the image store and the containers at the moment of sweeping, never remembered.
        - nothing is swept while anyone makes an image (pull, load, build): its blobs and layers come before it. The
          last such maker sweeps for all that was put off meanwhile.
        - so a failure, a cancel or a crash needs no clean-up of its own: what it left is garbage.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from minidocker.oci.digest import Digest
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import ImageStore
from minidocker.storage.layers import LayerStore


class Garbage:
    """The sweeper of one engine. For its event loop's thread only."""

    def __init__(
        self, blobs: BlobStore, layers: LayerStore, images: ImageStore, used: Callable[[], Collection[Digest]]
    ) -> None:
        """used  the top chain IDs that containers stand on."""
        self._blobs, self._layers, self._images, self._used = blobs, layers, images, used
        self._lock = asyncio.Lock()
        self._makers = 0
        self._wanted = False

    @asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """Whoever adds blobs or layers that no image names yet does so in this `async with`."""
        async with self._lock:
            self._makers += 1
        try:
            yield
        except BaseException:
            self._wanted = True
            raise
        finally:
            self._makers -= 1
            if self._wanted:
                await self.sweep()

    async def sweep(self) -> None:
        """Delete all garbage, now or when the last maker is done."""
        self._wanted = True
        async with self._lock:
            if self._makers or not self._wanted:
                return
            self._wanted = False
            # Read here, in the loop's thread: no container can be created in between.
            layers, blobs = self._garbage()
            work = asyncio.get_running_loop().run_in_executor(None, self._delete, layers, blobs)
            await asyncio.shield(work)

    def _garbage(self) -> tuple[list[Digest], list[Digest]]:
        needed = set(self._images.needed_chains())
        for top in self._used():
            if self._layers.get(top) is not None:
                needed |= {layer.chain_id for layer in self._layers.chain(top)}
        layers = [layer.chain_id for layer in self._layers.all() if layer.chain_id not in needed]
        blobs = set(self._blobs) - self._images.needed_blobs()
        return layers, sorted(blobs)

    def _delete(self, layers: list[Digest], blobs: list[Digest]) -> None:
        for chain in layers:
            self._layers.delete(chain)
        for digest in blobs:
            self._blobs.delete(digest)
