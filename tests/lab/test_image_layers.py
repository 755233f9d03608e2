"""What each layer of an image does, told from its archive and from the layers below it."""

import io
import tarfile

import pytest

from minidocker.lab.props.image_archive import ImageArchive
from minidocker.lab.props.image_layers import ADDS, AGAIN, CHANGES, EMPTIES, REMOVES, layers_of, story


def _layer(*entries: tuple[str, bytes | None]) -> bytes:
    """A tar of files; content None: a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return buffer.getvalue()


@pytest.fixture
def archive() -> bytes:
    made = ImageArchive()
    base = _layer(("etc", None), ("etc/a", b"1"), ("etc/b", b"1"), ("dir", None), ("dir/old", b"1"))
    middle = _layer(("etc", None), ("etc/a", b"22"), ("etc/.wh.b", b""), ("etc/c", b"333"))
    top = _layer(("dir", None), ("dir/.wh..wh..opq", b""), ("dir/new", b"4"), ("etc/b", b"back"), (".wh.gone", b""))
    made.add_image(
        "three", [base, middle, top], history=[{"created_by": "first"}, {"empty_layer": True}, {"created_by": "second"}]
    )
    return made.pack()


def test_each_entry_is_told_from_the_layers_below_it(archive: bytes) -> None:
    base, middle, top = layers_of([archive], "three")
    assert {entry.act for entry in base.entries} == {ADDS} and base.size == 3
    assert [(entry.act, entry.path) for entry in middle.entries] == [
        (AGAIN, "/etc"), (CHANGES, "/etc/a"), (REMOVES, "/etc/b"), (ADDS, "/etc/c"),
    ]  # fmt: skip
    assert [(entry.act, entry.path) for entry in top.entries] == [
        (AGAIN, "/dir"), (EMPTIES, "/dir"), (ADDS, "/dir/new"), (ADDS, "/etc/b"), (REMOVES, "/gone"),
    ]  # fmt: skip
    assert (base.step, middle.step, top.step) == ("first", "second", "")


def test_the_story_of_a_name_goes_through_all_layers(archive: bytes) -> None:
    layers = layers_of([archive[:700], archive[700:]], "three")
    assert story(layers, "/etc/b") == [
        "layer 1 adds it (1 bytes)", "layer 2 removes it", "layer 3 adds it (4 bytes)"
    ]  # fmt: skip
    assert story(layers, "/dir/old") == ["layer 1 adds it (1 bytes)", "layer 3 empties /dir, and it with that"]
    assert story(layers, "/never") == []


def test_an_image_that_is_not_there_is_an_error(archive: bytes) -> None:
    with pytest.raises(LookupError, match="no image is called four"):
        layers_of([archive], "four")
