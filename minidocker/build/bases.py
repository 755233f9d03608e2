"""Base images: what FROM and --from name, found here or pulled.

Source  Dockerfile reference, "FROM"; docker build's `--pull` and `--platform`.
Rules   - what is here is taken, unless it is for another platform or the registry is to be asked.
"""

from typing import TYPE_CHECKING

from minidocker.build.options import Options
from minidocker.build.output import Output
from minidocker.errors import Conflict, InvalidArgument, NotFound
from minidocker.oci.manifest import Platform
from minidocker.oci.reference import Reference
from minidocker.registry.credentials import ANONYMOUS
from minidocker.storage.images import Image

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine


class Bases:
    """The base images of one build."""

    def __init__(self, engine: "Engine", options: Options, output: Output) -> None:
        self._engine, self._options, self._output = engine, options, output

    async def find(self, name: str, platform: str) -> Image:
        """The image called `name`. platform: "" is this machine's. Raises as a pull does."""
        wanted = Platform.parse(platform) if platform else None
        if not self._options.pull:
            try:
                image = self._engine.image_store.find(name)
            except (NotFound, InvalidArgument, Conflict):  # Conflict: the name begins several IDs
                image = None
            if image is not None and (wanted is None or _suits(image.config.platform, wanted)):
                return image
        reference = Reference.parse(name)
        credentials = self._options.credentials.get(reference.domain, ANONYMOUS)
        await self._engine.images.pull(
            reference, all_tags=False, platform=wanted, credentials=credentials, report=self._output.report
        )
        return self._engine.image_store.find(name)


def _suits(actual: Platform, wanted: Platform) -> bool:
    return (actual.os, actual.architecture) == (wanted.os, wanted.architecture) and (
        not wanted.variant or not actual.variant or wanted.variant == actual.variant
    )
