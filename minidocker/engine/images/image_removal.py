"""Removing images: what a name or an ID takes away, and what forbids it.

Source  Docker's `rmi` (rules and words as seen with dockerd): a name is untagged; the image goes with its last name.
Rules   - hard conflicts (child images, running containers) are never forced; soft ones (other names, stopped
          containers) are.
        - a stopped container keeps the layers that it stands on, also after its image is gone.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from minidocker.errors import Conflict, NotFound
from minidocker.oci.digest import Digest
from minidocker.oci.reference import Reference
from minidocker.storage.images import Image, ImageStore


class ImageUser(Protocol):
    """A container, as far as an image's removal is concerned."""

    @property
    def id(self) -> str: ...
    @property
    def running(self) -> bool: ...


Users = Callable[[Digest], Collection[ImageUser]]


@dataclass(frozen=True, slots=True)
class Gone:
    """One thing that was taken away: a name, an image, or a layer (by chain ID)."""

    untagged: str = ""
    deleted: str = ""


class Remover:
    """Removes from one image store. The bytes are left to the sweeper."""

    def __init__(
        self, images: ImageStore, users: Users, untagged: Callable[[Digest], None], deleted: Callable[[Digest], None]
    ) -> None:
        """users  the containers made from an image. untagged, deleted  told of each event."""
        self._images, self._users, self._untagged, self._deleted = images, users, untagged, deleted

    def remove(self, text: str, *, force: bool, prune: bool, used_chains: Collection[Digest]) -> list[Gone]:
        """Remove by name, ID or beginning of an ID.

        prune        nameless parents that lose their last child go as well.
        used_chains  layers that containers stand on.
        Raises       NotFound. Conflict: Docker's words.
        """
        image = self._images.find(text)
        gone: list[Gone] = []
        name = self._name_meant(text, image)
        by_name = name is not None
        if name is not None:
            self._check_last_name(text, image, force=force)
            gone += self._untag_with_digests(name, image)
            if self._images.references(image.id):
                return gone
        elif _is_single(self._images.references(image.id)):
            self._check(image, force=force, ignore_names=True)
            gone += self._untag_all(image)
        return gone + self._delete(image, force=force, prune=prune, quiet=by_name, used_chains=used_chains)

    def _name_meant(self, text: str, image: Image) -> Reference | None:
        if image.id.hex.startswith(text.removeprefix("sha256:")):
            return None
        reference = Reference.parse(text)
        if reference.digest is not None:
            reference = reference.with_digest(reference.digest)
        if reference not in self._images.references(image.id):
            raise NotFound(f"No such image: {reference.familiar}")
        return reference

    def _check_last_name(self, text: str, image: Image, *, force: bool) -> None:
        user = next(iter(self._users(image.id)), None)
        if user is not None and not force and _is_single(self._images.references(image.id)):
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - '
                f"container {user.id[:12]} is using its referenced image {image.id.short}"
            )

    def _untag_with_digests(self, name: Reference, image: Image) -> list[Gone]:
        """Take `name` away, and the repository's digests with its last tag."""
        gone = [self._untag(name, image)]
        if name.tag is not None:
            rest = [other for other in self._images.references(image.id) if other.name == name.name]
            if not any(other.tag for other in rest):
                gone += [self._untag(other, image) for other in rest]
        return gone

    def _untag(self, name: Reference, image: Image) -> Gone:
        self._images.untag(name)
        self._untagged(image.id)
        return Gone(untagged=name.familiar)

    def _untag_all(self, image: Image) -> list[Gone]:
        return [self._untag(name, image) for name in self._images.references(image.id)]

    def _check(self, image: Image, *, force: bool, ignore_names: bool = False) -> None:
        reason = self._hard(image)
        if reason:
            raise Conflict(f"conflict: unable to delete {image.id.short} (cannot be forced) - {reason}")
        if not force and (reason := self._soft(image, ignore_names=ignore_names)):
            raise Conflict(f"conflict: unable to delete {image.id.short} (must be forced) - {reason}")

    def _hard(self, image: Image) -> str:
        if self._images.children(image.id):
            return "image has dependent child images"
        running = next((user for user in self._users(image.id) if user.running), None)
        return f"image is being used by running container {running.id[:12]}" if running else ""

    def _soft(self, image: Image, *, ignore_names: bool) -> str:
        if not ignore_names and len(self._images.references(image.id)) > 1:
            return "image is referenced in multiple repositories"
        user = next(iter(self._users(image.id)), None)
        return f"image is being used by stopped container {user.id[:12]}" if user else ""

    def _delete(
        self, image: Image, *, force: bool, prune: bool, quiet: bool, used_chains: Collection[Digest]
    ) -> list[Gone]:
        """The image itself. quiet  True: a conflict ends it without an error (the name is gone, the image stays)."""
        try:
            self._check(image, force=force)
        except Conflict:
            if quiet:
                return []
            raise
        plan = self._images.plan_removal([image.id], used_chains=used_chains, with_parents=False)
        gone = self._untag_all(image)
        self._images.remove(image.id)
        self._deleted(image.id)
        gone += [Gone(deleted=str(image.id)), *(Gone(deleted=str(chain)) for chain in plan.layers)]
        parent = next((i for i in self._images.list() if i.id == image.parent), None) if prune else None
        if parent is not None and not self._images.references(parent.id):
            gone += self._delete(parent, force=False, prune=True, quiet=True, used_chains=used_chains)
        return gone


def _is_single(names: Collection[Reference]) -> bool:
    """True if all names are one tag and digests of its repository, or there is at most one."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if name.tag]
    repositories = {name.name for name in names if name.digest}
    return len(tags) <= 1 and len(repositories) == 1 and all(tag.name in repositories for tag in tags)
