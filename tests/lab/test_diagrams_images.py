"""The graph of an archive's descriptors: of made-up archives, and of what a daemon saves."""

import pytest

from minidocker.client import connect
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.images import image_graph, state_of
from minidocker.lab.props.image_archive import ImageArchive, layer_of
from minidocker.oci import manifest

BASE = layer_of({"etc/motd": b"base"})


@pytest.fixture
def two_images() -> ImageArchive:
    archive = ImageArchive()
    for name in ("one", "two"):
        archive.add_image(name, [BASE, layer_of({name: b""})], config={"Cmd": [name]})
    return archive


def test_a_shared_layer_is_drawn_once_with_both_its_holders(two_images: ImageArchive) -> None:
    picture = image_graph(two_images)
    assert [row[0] for row in picture.rows] == ["manifest", "config", "layer", "layer", "manifest", "config", "layer"]
    shared = [row for row in picture.rows if "," in row[4]]
    assert len(shared) == 1 and shared[0][0] == "layer"
    holders = {row[2] for row in picture.rows if row[0] == "manifest"}
    assert set(shared[0][4].split(", ")) == holders
    assert picture.dot.count("shared by 2") == 1
    assert picture.alt == (
        "index.json leads to 2 manifests, 2 configs, 3 layers; 1 of these blobs shared, "
        "all of them what their names promise"
    )


def test_a_changed_blob_and_a_missing_one_are_told_in_words(two_images: ImageArchive) -> None:
    config = two_images.read_json(two_images.manifest_of("one")["digest"])["config"]["digest"]
    top = two_images.read_json(two_images.manifest_of("two")["digest"])["layers"][1]["digest"]
    two_images.blobs[config] += b" "
    del two_images.blobs[top]
    assert (state_of(two_images, config), state_of(two_images, top)) == ("changed", "missing")
    picture = image_graph(two_images)
    assert {row[2]: row[5] for row in picture.rows if row[5] != "verified"} == {
        config[7:19]: "changed",
        top[7:19]: "missing",
    }
    assert "CHANGED!" in picture.dot and "MISSING!" in picture.dot
    assert picture.alt.endswith("2 not what their names promise")


def test_an_index_in_the_index_is_followed_and_its_platforms_are_named() -> None:
    archive = ImageArchive()
    entries = [
        archive.add_image(f"many-{name}", [BASE], architecture=name)
        | {"platform": {"os": "linux", "architecture": name}}
        for name in ("arm64", "amd64")
    ]
    for entry in entries:
        entry.pop("annotations")
    archive.index["manifests"] = [archive.put_json({"schemaVersion": 2, "manifests": entries}, manifest.OCI_INDEX)]
    picture = image_graph(archive)
    assert [row[1] for row in picture.rows if row[0] == "manifest"] == ["linux/arm64", "linux/amd64"]
    assert picture.alt.startswith("index.json leads to 1 index, 2 manifests, 2 configs, 1 layer; 1 of these")


def test_the_picture_of_a_saved_image_has_the_daemons_own_ids() -> None:
    try:
        client = connect()
        image = client.images.get("busybox")
    except (OSError, MinidockerError):
        pytest.skip("needs the course's daemon with busybox: ./lab setup")
    rows = image_graph(ImageArchive.read(client.images.save(["busybox"]))).rows
    assert [row[2] for row in rows if row[0] == "config"] == [image.short_id]
    assert {row[5] for row in rows} == {"verified"}
