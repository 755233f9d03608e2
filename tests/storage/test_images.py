"""The image store: names, look-up, what a removal frees."""

import json
from pathlib import Path

import pytest
from builders import image_config

from minidocker.errors import Conflict, InvalidArgument, NotFound, VerificationError
from minidocker.oci.digest import Digest, chain_id
from minidocker.oci.reference import Reference
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import Image, ImageLayer, ImageStore

BUSYBOX = Reference.parse("busybox:1")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path, BlobStore(tmp_path))


def add(
    store: ImageStore, *layers: bytes, names: tuple[str, ...] = (), parent: Digest | None = None, **config: object
) -> Image:
    id = store.blobs.put(image_config(*layers, **config))
    image_layers = tuple(ImageLayer(Digest.of(layer), Digest.of(b"gz" + layer), 10) for layer in layers)
    return store.add(id, image_layers, parent=parent, references=[Reference.parse(name) for name in names])


def test_image_is_found_by_all_its_names(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, b"base", names=("busybox:1", "localhost:5000/a/b"))
    manifest = Digest.of(b"manifest")
    store.set_digest(BUSYBOX.with_digest(manifest), image.id)
    forms = ["busybox:1", "docker.io/library/busybox:1", "localhost:5000/a/b:latest", f"busybox@{manifest}"]
    forms += [image.id, image.id.hex, image.id.hex[:3], f"sha256:{image.id.hex[:5]}"]
    for form in forms:
        assert store.find(form).id == image.id, form
    again = ImageStore(tmp_path)
    assert [again.find(form) for form in forms] == [image] * len(forms)


@pytest.mark.parametrize("text", ["busybox", "busybox:2", "f" * 64, "sha256:" + "f" * 64, "nothing/here"])
def test_unknown_image_is_not_found(store: ImageStore, text: str) -> None:
    add(store, b"base", names=("busybox:1",))
    with pytest.raises(NotFound, match="no such image"):
        store.find(text)


@pytest.mark.parametrize("text", ["", "UPPER/case", "a b", "../x"])
def test_text_that_names_nothing_is_invalid(store: ImageStore, text: str) -> None:
    with pytest.raises((InvalidArgument, NotFound)):
        store.find(text)


def test_ambiguous_prefix_is_refused(store: ImageStore) -> None:
    images = [add(store, author=str(number)) for number in range(17)]  # 17 IDs, 16 first digits
    firsts = [image.id.hex[0] for image in images]
    double = next(digit for digit in firsts if firsts.count(digit) > 1)
    with pytest.raises(Conflict, match="ambiguous"):
        store.find(double)


def test_name_that_looks_like_an_id_goes_first(store: ImageStore) -> None:
    first = add(store, author="1")
    second = add(store, author="2", names=(first.id.hex[:6],))
    assert store.find(first.id.hex[:6]).id == second.id


def test_tag_moves_and_says_who_lost_it(store: ImageStore) -> None:
    old = add(store, author="old", names=("busybox:1",))
    new = add(store, author="new")
    assert store.tag(BUSYBOX, new.id) == old.id
    assert store.tag(BUSYBOX, new.id) is None
    assert store.references(old.id) == ()
    assert store.dangling() == (old,)
    assert store.untag(BUSYBOX) == new.id
    with pytest.raises(NotFound):
        store.untag(BUSYBOX)


def test_config_that_names_other_layers_is_refused(store: ImageStore) -> None:
    id = store.blobs.put(image_config(b"one"))
    with pytest.raises(VerificationError, match="not those that its config names"):
        store.add(id, (ImageLayer(Digest.of(b"another"), Digest.of(b"x"), 1),))
    assert store.list() == ()


def test_loading_again_keeps_what_the_pull_knew(store: ImageStore) -> None:
    image = add(store, b"base")
    manifest = Digest.of(b"manifest")
    store.add(image.id, image.layers, manifest=manifest, manifest_media_type="type")
    assert add(store, b"base").manifest == manifest


def test_removal_frees_only_what_nobody_else_needs(store: ImageStore) -> None:
    one = add(store, b"base", b"one")
    two = add(store, b"base", b"two")
    base, top = (chain_id((Digest.of(b"base"),)), chain_id((Digest.of(b"base"), Digest.of(b"one"))))
    plan = store.plan_removal([one.id])
    assert plan.images == (one.id,)
    assert plan.layers == (top,)
    assert set(plan.blobs) == {one.id, Digest.of(b"gzone")}
    assert store.plan_removal([one.id], used_chains=[base, top]).layers == ()
    assert store.plan_removal([one.id, two.id]).layers[-1] == base  # top layers first


def test_nameless_parents_go_with_their_last_child(store: ImageStore) -> None:
    grandparent = add(store, author="1")
    parent = add(store, author="2", parent=grandparent.id)
    named = add(store, author="3", parent=grandparent.id, names=("named:1",))
    child = add(store, author="4", parent=parent.id)
    assert set(store.plan_removal([child.id]).images) == {child.id, parent.id}
    assert store.plan_removal([child.id], with_parents=False).images == (child.id,)
    store.remove(named.id)
    assert set(store.plan_removal([child.id]).images) == {child.id, parent.id, grandparent.id}


def test_removed_image_and_its_names_are_gone_after_a_restart(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, b"base", names=("busybox:1",))
    store.remove(image.id)
    again = ImageStore(tmp_path)
    assert again.list() == ()
    with pytest.raises(NotFound):
        again.find("busybox:1")
    assert json.loads((tmp_path / "images.json").read_bytes()) == {"images": {}, "references": {}}


def test_damaged_image_does_not_keep_the_others_away(store: ImageStore, tmp_path: Path) -> None:
    bad, good = add(store, author="1", names=("bad:1",)), add(store, author="2", names=("good:1",))
    store.blobs.path(bad.id).write_bytes(b"damaged")
    again = ImageStore(tmp_path)
    assert again.list() == (good,)
    with pytest.raises(NotFound):
        again.find("bad:1")
    again.blobs.delete(bad.id)
    assert add(again, author="1").id == bad.id  # pulled again
    assert again.find("bad:1").id == bad.id


def test_needed_blobs_and_chains_are_all_that_images_use(store: ImageStore) -> None:
    image = add(store, b"base", b"top")
    assert store.needed_blobs() == {image.id, Digest.of(b"gzbase"), Digest.of(b"gztop")}
    assert store.needed_chains() == set(image.chain_ids)
    assert len(image.chain_ids) == 2


def test_an_image_that_lost_a_layer_hides_alone_and_keeps_its_blobs(store: ImageStore, tmp_path: Path) -> None:
    whole, damaged = add(store, b"base"), add(store, b"base", b"lost")
    lost = damaged.chain_ids[-1]
    again = ImageStore(tmp_path)
    again.leave_out_without(lambda chain: chain != lost)
    assert [image.id for image in again.list()] == [whole.id]
    assert damaged.blobs <= again.needed_blobs() and set(damaged.chain_ids) <= again.needed_chains()
