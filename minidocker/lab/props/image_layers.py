"""The layers of an image, entry by entry: what each adds, changes and removes, seen from the layers below it.

Source  OCI image-spec, layer.md ("Change Types", "Whiteouts", "Opaque Whiteout"), config.md (history).
Rules   - a layer's archive says only what is in it. Whether a name is new is found out from the layers below.
        - a whiteout hides what the layers *below* have; what its own layer has of that name stays.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from minidocker.lab.props.image_archive import ImageArchive, unpacked
from minidocker.storage.extract import OPAQUE, WHITEOUT

ADDS, CHANGES, REMOVES, EMPTIES, AGAIN = "adds", "changes", "removes", "empties", "names again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a layer: what the layer does to it (ADDS, ...), and the bytes that the entry holds."""

    act: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer. `step` is what made it, as the image's history tells."""

    number: int  # the base is 1
    diff_id: str
    step: str
    size: int
    entries: tuple[Entry, ...]

    def count(self, act: str) -> int:
        """How many of its entries do this."""
        return sum(entry.act == act for entry in self.entries)


def layers_of(pieces: Iterable[bytes], name: str) -> tuple[ImageLayer, ...]:
    """The layers of the image `name` in an archive as `client.images.save` gives it, base first.

    Raises  LookupError: no such image in it.
    """
    archive = ImageArchive.read(pieces)
    manifest = archive.read_json(archive.manifest_of(name)["digest"])
    config = archive.read_json(manifest["config"]["digest"])
    return tuple(_layers(archive, manifest, config))


def _layers(archive: ImageArchive, manifest: dict[str, Any], config: dict[str, Any]) -> Iterator[ImageLayer]:
    steps = [str(step.get("created_by", "")) for step in config.get("history", []) if not step.get("empty_layer")]
    there: dict[str, bool] = {}  # every name that is seen so far -> is it a directory?
    for number, (descriptor, diff_id) in enumerate(
        zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True), start=1
    ):
        entries = tuple(_entries(unpacked(archive.blobs[descriptor["digest"]]), there))
        step = steps[number - 1] if number <= len(steps) else ""
        yield ImageLayer(number, diff_id, step, sum(entry.size for entry in entries), entries)


def _entries(layer: bytes, there: dict[str, bool]) -> Iterator[Entry]:
    """The entries of one layer; `there` is brought up to date."""
    below = dict(there)
    own: dict[str, bool] = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            path = "/" + member.name.removeprefix("./").strip("/")
            directory, _, leaf = path.rpartition("/")
            if leaf == OPAQUE:
                _forget(there, directory, itself=False)
                yield Entry(EMPTIES, directory or "/", 0)
            elif leaf.startswith(WHITEOUT):
                hidden = f"{directory}/{leaf.removeprefix(WHITEOUT)}"
                _forget(there, hidden, itself=True)
                yield Entry(REMOVES, hidden, 0)
            elif path != "/":
                own[path] = member.isdir()
                again = member.isdir() and below.get(path)
                yield Entry(AGAIN if again else CHANGES if path in below else ADDS, path, member.size)
    there.update(own)


def _forget(there: dict[str, bool], path: str, *, itself: bool) -> None:
    for name in [name for name in there if name.startswith(f"{path}/") or (itself and name == path)]:
        del there[name]


def story(layers: Iterable[ImageLayer], path: str) -> list[str]:
    """What became of one name, layer by layer, in words."""
    told, directory = [], path.rpartition("/")[0]
    for layer in layers:
        for entry in layer.entries:
            if entry.path == path:
                told.append(f"layer {layer.number} {entry.act} it" + (f" ({entry.size} bytes)" if entry.size else ""))
            elif entry.act in (REMOVES, EMPTIES) and f"{directory}/".startswith(f"{entry.path.rstrip('/')}/"):
                told.append(f"layer {layer.number} {entry.act} {entry.path}, and it with that")
    return told
