"""Trees: the hint to the filesystem."""

import array
import fcntl
import os
from pathlib import Path

import pytest

from minidocker.storage import trees

_GET_FLAGS = 0x80086601
_TOP_OF_HIERARCHIES = 0x00020000  # chattr +T


def _flags(path: Path) -> int:
    flags = array.array("i", [0])
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    finally:
        os.close(fd)
    return flags[0]


def test_the_filesystem_is_told_that_trees_are_unrelated(tmp_path: Path) -> None:
    try:
        assert not _flags(tmp_path) & _TOP_OF_HIERARCHIES
    except OSError:
        pytest.skip("this filesystem keeps no flags")
    trees.unrelated_below(tmp_path)
    if not _flags(tmp_path) & _TOP_OF_HIERARCHIES:
        pytest.skip("this filesystem has no such hint (only ext2, ext3 and ext4 do)")
    (tmp_path / "child").mkdir()
    assert not _flags(tmp_path / "child") & _TOP_OF_HIERARCHIES, "the hint is for the top alone"


def test_a_filesystem_without_the_hint_goes_without() -> None:
    trees.unrelated_below(Path("/proc"))
