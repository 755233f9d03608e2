"""The picture of an overlay says what the mount says: for each name, which layer gives it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import NotFound
from minidocker.lab.diagrams.overlay import Layer, Overlay, origin, overlay_at, overlay_stack, what_is_at
from minidocker.lab.diagrams.picture import Picture
from minidocker.lab.props.layered import stack
from minidocker.linux.namespaces import CloneFlag, unshare

needs_root = pytest.mark.needs_root


def _own_mounts() -> None:
    from minidocker.linux.mounts import MountFlag, set_propagation

    unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)


def _changed() -> tuple[Picture, dict[str, bool]]:
    """A picture of changes of every kind, and what the mount itself shows under each name."""
    _own_mounts()
    place = stack({"a": "1", "b": "1", "dir/old": "1", "both/one": "1"}, {"b": "22", "both/two": "2", "c": 2000})
    (place.merged / "new").write_text("new")
    (place.merged / "a").unlink()
    with open(place.merged / "c", "ab") as file:
        file.write(b"x")
    shutil.rmtree(place.merged / "dir")
    (place.merged / "dir").mkdir()
    (place.merged / "dir/fresh").write_text("f")
    names = ["/a", "/b", "/both", "/both/one", "/both/two", "/c", "/dir", "/dir/fresh", "/dir/old", "/new", "/nothing"]
    picture = overlay_stack(overlay_at(str(place.merged), base=place.base), names=names, most=20)
    return picture, {name: os.path.lexists(place.merged / name[1:]) for name in names}


@needs_root
def test_what_is_seen_comes_from_the_layer_that_the_picture_names(in_child: Callable[..., Any]) -> None:
    picture, there = in_child(_changed)
    rows = {row[0]: row[1:] for row in picture.rows}
    assert picture.columns == ("name", "seen", "upper (writable)", "lower 2", "lower 1")
    assert rows["/a"] == ("not seen", "whiteout", "", "file, 1 B")
    assert rows["/b"] == ("from lower 2", "", "file, 2 B", "file, 1 B")
    assert rows["/c"] == ("from upper (writable)", "file, 2.0 kB", "file, 2.0 kB", "")
    assert rows["/dir"] == ("from upper (writable)", "opaque directory", "", "directory")
    assert rows["/dir/fresh"][0] == "from upper (writable)" and rows["/dir/old"] == ("not seen", "", "", "file, 1 B")
    assert rows["/both/one"][0] == "from lower 1" and rows["/both/two"][0] == "from lower 2"
    assert {name: not row[0].startswith("not seen") for name, row in rows.items()} == there
    assert not [row for row in picture.rows if "otherwise" in row[1]]
    assert "merged" in picture.dot and "hides what is below" in picture.dot
    assert picture.alt.startswith("an overlay of 3 layers: 11 names, 8 of them seen")


def _first_few() -> Picture:
    _own_mounts()
    place = stack({f"file{number}": "" for number in range(9)}, {"file3": "again"})
    return overlay_stack(overlay_at(str(place.merged), base=place.base), most=4)


@needs_root
def test_of_many_names_the_first_are_shown_and_the_words_say_so(in_child: Callable[..., Any]) -> None:
    picture = in_child(_first_few)
    assert [row[0] for row in picture.rows] == ["/file0", "/file1", "/file2", "/file3"]
    assert "4 names (the first of 9), 4 of them seen" in picture.alt


def test_where_there_is_no_overlay_that_is_said() -> None:
    with pytest.raises(NotFound, match="no overlay mounted at /proc"):
        overlay_at("/proc")


def test_a_mount_that_disagrees_with_the_rules_is_reported(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/x").write_text("x")
    (tmp_path / "merged").mkdir()  # empty: no overlay at all
    overlay = Overlay((Layer("lower", tmp_path / "layer"),), tmp_path / "merged")
    assert overlay_stack(overlay).rows == (("/x", "from lower (but the mount says otherwise)", "file, 1 B"),)


def test_a_file_in_the_way_hides_what_is_below_it(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top/dir").write_text("a file now")
    (tmp_path / "below/dir").mkdir(parents=True)
    (tmp_path / "below/dir/x").symlink_to("elsewhere")
    layers = [Layer("top", tmp_path / "top"), Layer("below", tmp_path / "below")]
    assert origin(layers, "/dir") == 0 and origin(layers, "/dir/x") is None
    assert origin(layers[1:], "/dir/x") == 0 and what_is_at(tmp_path / "below", "/dir/x") == "link to elsewhere"
