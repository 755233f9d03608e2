"""`docker system df`: what images, containers and volumes take on the disk.

Source  Docker Engine API 1.44, SystemDataUsage; replies recorded from dockerd.
Rules   - a layer that several images share counts once in LayersSize.
        - SizeRw is what a container wrote; an image's files are no part of it.
"""

from typing import TYPE_CHECKING, Any

from minidocker.engine.containers import views
from minidocker.errors import InvalidArgument

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

IMAGES, CONTAINERS, VOLUMES, BUILD_CACHE = "image", "container", "volume", "build-cache"
KINDS = (CONTAINERS, IMAGES, VOLUMES, BUILD_CACHE)


async def usage(engine: "Engine", kinds: list[str], version: views.Version) -> dict[str, Any]:
    """The document. kinds: what to look at; [] means everything.

    Raises  InvalidArgument: an unknown kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidArgument(f"unknown object type: {kind}")
    wanted = set(kinds or KINDS)
    document: dict[str, Any] = {
        "LayersSize": layers_bytes(engine) if IMAGES in wanted else 0,
        "Images": images(engine, version) if IMAGES in wanted else None,
        "Containers": await containers(engine, version) if CONTAINERS in wanted else None,
        "Volumes": await engine.volumes.documents_with_usage() if VOLUMES in wanted else None,
        "BuildCache": [] if BUILD_CACHE in wanted else None,
    }
    if version < (1, 42):
        document["BuilderSize"] = 0
    return document


def layers_bytes(engine: "Engine") -> int:
    """All layers that images stand on, each once."""
    chains = {chain for image in engine.image_store.list() for chain in image.chain_ids}
    layers = (engine.layers.get(chain) for chain in chains)
    return sum(layer.size for layer in layers if layer is not None)


def images(engine: "Engine", version: views.Version) -> list[dict[str, Any]]:
    """The image list, with who uses each."""
    shown = engine.images.listing({}, version, shared_size=True)
    for document in shown:
        document["Containers"] = len(engine.containers.using_image(document["Id"]))
    return shown


async def containers(engine: "Engine", version: views.Version) -> list[dict[str, Any]]:
    """The container list, with sizes."""
    linked = engine.links.names()
    shown = []
    for container in sorted(engine.containers.all(), key=lambda one: one.record.created, reverse=True):
        document = engine.containers.summary(container, version, linked)
        written, all_bytes = await engine.containers.sizes(container)
        document["SizeRootFs"] = all_bytes
        if written:
            document["SizeRw"] = written
        shown.append(document)
    return shown
