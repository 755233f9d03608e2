"""The cache of one build: what it may look at, and what a hit brings.

Source  moby builder/dockerfile/imageprobe.go and image/cache.
Rules   - after the first miss of a stage nothing is looked up any more.
        - with --cache-from only the images named, and what they stand on, count; a step that they have made elsewhere
          is taken over from them.
"""

from typing import TYPE_CHECKING

from minidocker.build import cache
from minidocker.build.cache import Decision
from minidocker.build.layering import Layering, Step
from minidocker.build.options import Options
from minidocker.errors import MinidockerError
from minidocker.registry.client import in_thread
from minidocker.storage.images import Image

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine


class Prober:
    """Answers whether a step was made before."""

    def __init__(self, engine: "Engine", options: Options, layering: Layering) -> None:
        self._engine, self._layering = engine, layering
        self._enabled = not options.no_cache
        self._named = bool(options.cache_from)
        self._sources = [image for name in options.cache_from if (image := self._find(name)) is not None]
        self._missed = False

    def _find(self, name: str) -> Image | None:
        try:
            return self._engine.image_store.find(name)
        except MinidockerError:
            return None

    def begin_stage(self) -> None:
        """A new stage may hit again."""
        self._missed = False

    async def probe(self, instruction: str, parent: Image | None, step: Step) -> tuple[Decision, Image | None]:
        """What the cache says to a step upon `parent`, and the image of a hit."""
        shown = str(parent.id) if parent else ""
        if not self._enabled:
            return Decision(instruction, shown, "", "the cache is switched off"), None
        if self._missed:
            return Decision(instruction, shown, "", "a step before it was made anew"), None
        found = [
            image
            for image in self._engine.image_store.list()
            if image.parent == (parent.id if parent else None) and image.config.container_config is not None
        ]
        decision = cache.decide(instruction, parent.id if parent else None, step.compared, found)
        image = next((one for one in found if str(one.id) == decision.hit), None)
        if image is not None and (not self._named or any(self._stands_on(source, image) for source in self._sources)):
            return decision, image
        restored = await self._from_elsewhere(parent, step)
        if restored is not None:
            return Decision(instruction, shown, str(restored.id), "an image of --cache-from has made it"), restored
        self._missed = True
        if image is not None:
            return Decision(instruction, shown, "", "made before, but by no image of --cache-from"), None
        return decision, None

    def _stands_on(self, image: Image | None, ancestor: Image) -> bool:
        while image is not None and image.id != ancestor.id:
            image = self._find(str(image.parent)) if image.parent else None
        return image is not None

    async def _from_elsewhere(self, parent: Image | None, step: Step) -> Image | None:
        config = parent.config if parent else None
        for source in self._sources:
            if not cache.continues(source.config, config) or not cache.same_step(source.config, config, step.compared):
                continue
            before = len((config.history if config else None) or [])
            if len(source.config.history or []) == before + 1:
                return source
            restored = await in_thread(self._layering.restore, parent, source, step)
            self._sources = [source]  # what follows is taken from the same image
            return restored
        return None
