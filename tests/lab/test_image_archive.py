"""An image archive in memory, beside the engine's own reader and writer."""

import gzip
import io
import tarfile

import pytest

from minidocker.lab.props.image_archive import ImageArchive, descriptors_in, kind_of, layer_of, listing
from minidocker.oci import manifest


def archive_of(*images: tuple[str, list[bytes]]) -> ImageArchive:
    """An archive of images by name, each with its layers."""
    archive = ImageArchive()
    for name, layers in images:
        archive.add_image(name, layers, config={"Cmd": [name]})
    return archive


def test_what_was_packed_is_read_again() -> None:
    archive = archive_of(("one", [layer_of({"a": b"1"})]))
    again = ImageArchive.read([archive.pack()])
    assert again == archive and again.pack() == archive.pack()


def test_a_copy_does_not_change_with_the_original() -> None:
    archive = archive_of(("one", []))
    copy = archive.copy()
    copy.index["manifests"].clear()
    copy.blobs.clear()
    assert archive == archive_of(("one", []))


def test_the_parts_are_what_the_engines_own_parser_reads() -> None:
    archive = archive_of(("one", [layer_of({"a": b"1"})]))
    entry = archive.manifest_of("one")
    document = manifest.parse(archive.blobs[entry["digest"]], entry["mediaType"])
    assert isinstance(document, manifest.Manifest)
    assert [one["digest"] for one in descriptors_in(archive.read_json(entry["digest"]))] == [
        document.config.digest,
        document.layers[0].digest,
    ]


@pytest.mark.parametrize("name", ["one", "one:latest", "docker.io/library/one:latest"])
def test_an_image_is_found_by_each_form_of_its_name(name: str) -> None:
    archive = archive_of(("other", []), ("one", [layer_of({"a": b"1"})]))
    assert archive.manifest_of(name)["digest"] == archive.index["manifests"][1]["digest"]


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(LookupError, match="no image is called two"):
        archive_of(("one", [])).manifest_of("two")


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        (manifest.DOCKER_INDEX, "index"),
        (manifest.OCI_MANIFEST, "manifest"),
        (manifest.DOCKER_CONFIG, "config"),
        (manifest.OCI_LAYER + "+gzip", "layer"),
    ],
)
def test_a_media_type_in_one_word(media_type: str, kind: str) -> None:
    assert kind_of(media_type) == kind


def test_a_layer_is_listed_packed_or_not() -> None:
    layer = layer_of({"etc/motd": b"hello"})
    assert listing(layer) == listing(gzip.compress(layer)) == ["-rw-r--r--         5 etc/motd"]
    many = io.BytesIO()
    with tarfile.open(fileobj=many, mode="w") as tar:
        for number in range(5):
            tar.addfile(tarfile.TarInfo(str(number)))
    assert listing(many.getvalue(), limit=2)[-1] == "... and 3 more"
