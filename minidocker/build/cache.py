"""The build cache: whether an image is here already that a step would make. The decision is data.

Source  moby image/cache (compare, and what --cache-from may restore).
Rules   - a step's key is its parent image and the configuration it would run with: its command says what the
          instruction does, and for COPY and ADD the sum of what is copied (storage.sums; times count for nothing).
        - every image of a step keeps that configuration (`container_config`), so there is no other file to go stale.
        - after the first miss of a stage nothing is looked up any more: a later step stands on what is new.
        - pure: a notebook can give it images and ask.
"""

from collections.abc import Sequence

import msgspec

from minidocker.oci.digest import Digest
from minidocker.oci.image_config import ExecutionConfig, ImageConfig
from minidocker.storage.images import Image

_COMPARED = ("cmd", "user", "env", "labels", "exposed_ports", "entrypoint", "volumes")


class Difference(msgspec.Struct, frozen=True):
    """A field of the configuration that differs: what was wanted, what the nearest image has."""

    field: str
    wanted: str
    found: str


class Decision(msgspec.Struct, frozen=True):
    """What the cache said to one step.

    step         the instruction.
    parent       the image it stands on; "" for none.
    hit          the image that is taken; "" for a miss.
    reason       in words.
    nearest      of the images made on the same parent the most similar one, and in what it differs.
    """

    step: str
    parent: str
    hit: str
    reason: str
    nearest: str = ""
    differences: tuple[Difference, ...] = ()


def differences(wanted: ExecutionConfig, found: ExecutionConfig) -> tuple[Difference, ...]:
    """In what two configurations differ, as far as the cache looks."""
    different = []
    for field in _COMPARED:
        one, other = getattr(wanted, field) or None, getattr(found, field) or None
        if field == "volumes" and one and other and set(one) == set(other):
            continue
        if one != other:
            different.append(Difference(field, _shown(one), _shown(other)))
    return tuple(different)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" if isinstance(item, str) else str(key) for key, item in sorted(value.items()))
    return "" if value is None else str(value)


def decide(step: str, parent: Digest | None, wanted: ExecutionConfig, candidates: Sequence[Image]) -> Decision:
    """Look for the step among the images made on the same parent, newest first."""
    shown_parent = str(parent or "")
    nearest: tuple[tuple[Difference, ...], str] | None = None
    for image in candidates:
        if image.config.container_config is None:
            continue
        found = differences(wanted, image.config.container_config)
        if not found:
            return Decision(step, shown_parent, str(image.id), "made before on the same parent by the same instruction")
        if nearest is None or len(found) < len(nearest[0]):
            nearest = (found, str(image.id))
    if nearest is None:
        return Decision(step, shown_parent, "", "nothing was built on this parent before")
    return Decision(step, shown_parent, "", _why(nearest[0]), nearest[1], nearest[0])


def _why(found: tuple[Difference, ...]) -> str:
    first = found[0]
    if first.field == "cmd":
        same_verb = _without_sums(first.wanted) == _without_sums(first.found)
        return "what is copied has changed" if same_verb else "the instruction is another one"
    return "other " + ", ".join(difference.field for difference in found)


def _without_sums(text: str) -> list[str]:
    return [word.partition(":")[0] if word.startswith(("file:", "dir:", "multi:")) else word for word in text.split()]


# -- --cache-from: images that came from elsewhere --


def continues(image: ImageConfig, parent: ImageConfig | None) -> bool:
    """Whether `image` was made by at least one more step on what `parent` is."""
    history, before = image.history or [], (parent.history or []) if parent else []
    if not history:
        return False
    if parent is None or (not before and not parent.diff_ids):
        return True
    count = len(parent.diff_ids)
    return len(before) < len(history) and history[: len(before)] == before and image.diff_ids[:count] == parent.diff_ids


def same_step(image: ImageConfig, parent: ImageConfig | None, wanted: ExecutionConfig) -> bool:
    """Whether the next step of `image` after `parent` is the wanted one, as far as its history tells."""
    step = (image.history or [])[len((parent.history or []) if parent else [])]
    return step.created_by == " ".join(wanted.cmd or [])
