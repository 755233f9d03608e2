"""Mounts: options as words, mounts as the kernel shows them, the change of root."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidocker.errors import InvalidArgument, KernelError
from minidocker.linux import mounts, namespaces
from minidocker.linux.mounts import NO_FLAGS, OPTIONS, Mount, MountFlag, mountinfo, parse_mountinfo, parse_options
from minidocker.linux.namespaces import CloneFlag

Child = Callable[..., Any]
needs_root = pytest.mark.needs_root


def _private_namespace() -> None:
    namespaces.unshare(CloneFlag.NEWNS)
    mounts.set_propagation("/", MountFlag.PRIVATE | MountFlag.REC)


def _at(place: Path | str) -> Mount:
    return [mount for mount in mountinfo() if mount.mount_point == str(place)][-1]


def test_flags_are_those_of_the_kernels_header() -> None:
    header = Path("/usr/include/linux/mount.h")
    if not header.exists():
        pytest.skip(f"needs the kernel's headers: {header}")
    text = header.read_text()
    official = {name: int(value) for name, value in re.findall(r"#define MS_(\w+)\s+(\d+)\b(?!<)", text)}
    official |= {name: 1 << int(shift) for name, shift in re.findall(r"#define MS_(\w+)\s+\(1<<(\d+)\)", text)}
    assert {flag.name: flag.value for flag in MountFlag} == {flag.name: official[str(flag.name)] for flag in MountFlag}


def test_words_set_and_clear_flags_and_the_rest_is_the_filesystems() -> None:
    options = parse_options(["nosuid", "noexec", "size=64k", "mode=1777", "tmpcopyup", "defaults"])
    assert options.flags == MountFlag.NOSUID | MountFlag.NOEXEC
    assert options.cleared == NO_FLAGS
    assert options.data == "size=64k,mode=1777"
    assert options.copy_up


def test_of_two_words_that_contradict_each_other_the_later_counts() -> None:
    assert parse_options(["ro", "rw"]).flags == NO_FLAGS
    assert parse_options(["ro", "rw"]).cleared == MountFlag.RDONLY
    assert parse_options(["rw", "ro"]).flags == MountFlag.RDONLY
    assert parse_options(["rw", "ro"]).cleared == NO_FLAGS


def test_propagation_is_kept_apart_and_in_order() -> None:
    options = parse_options(["rbind", "rslave", "unbindable"])
    assert options.flags == MountFlag.BIND | MountFlag.REC
    assert options.propagation == (MountFlag.SLAVE | MountFlag.REC, MountFlag.UNBINDABLE)


def test_an_r_before_a_word_means_the_whole_tree() -> None:
    options = parse_options(["rro", "rnosuid", "rdev", "rsize=1"])
    assert options.recursive == MountFlag.RDONLY | MountFlag.NOSUID
    assert options.recursive_cleared == MountFlag.NODEV
    assert (options.flags, options.data) == (NO_FLAGS, "rsize=1")


@pytest.mark.parametrize("word", [word for word, (sets, _) in OPTIONS.items() if not sets])
def test_each_clearing_word_undoes_a_setting_word(word: str) -> None:
    flag = OPTIONS[word][1]
    assert any(sets and other == flag for sets, other in OPTIONS.values())
    assert parse_options([word]).cleared == flag


def test_a_mountinfo_line_has_any_number_of_optional_fields() -> None:
    line = "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:7 master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n"
    assert parse_mountinfo(line) == [
        Mount(
            36,
            35,
            "98:0",
            "/mnt1",
            "/mnt2",
            ("rw", "noatime"),
            ("shared:7", "master:1", "propagate_from:2"),
            "ext3",
            "/dev/root",
            ("rw", "errors=continue"),
        )
    ]
    assert parse_mountinfo("1 0 0:2 / / rw - rootfs rootfs rw\n")[0].propagation == ()


def test_an_empty_source_is_a_field_too() -> None:
    mount = parse_mountinfo("1 0 0:2 / /x rw - tmpfs  rw,size=4k\n")[0]
    assert (mount.source, mount.super_options) == ("", ("rw", "size=4k"))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_name_comes_back_from_the_kernels_escapes(name: str) -> None:
    escaped = "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in name)
    assert parse_mountinfo(f"1 0 0:2 /{escaped} /{escaped} rw - tmpfs {escaped} rw\n") == [
        Mount(1, 0, "0:2", f"/{name}", f"/{name}", ("rw",), (), "tmpfs", name, ("rw",))
    ]


@needs_root
@pytest.mark.parametrize(
    "name", ["a b", "tab\tnew\nline", "back\\slash", "\\040", "#hash", "vertical\x0btab", "\udcff", "é"]
)
def test_a_mount_with_a_strange_name_is_found_under_that_name(name: str, tmp_path: Path, in_child: Child) -> None:
    place = tmp_path / name
    place.mkdir()

    def mounted() -> Mount:
        _private_namespace()
        mounts.mount("my source", place, "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "size=64k,mode=700")
        return _at(place)

    mount = in_child(mounted)
    assert (mount.mount_point, mount.source, mount.fstype) == (str(place), "my source", "tmpfs")
    assert {"nosuid", "nodev"} <= set(mount.options)
    assert {"size=64k", "mode=700"} <= set(mount.super_options)


@needs_root
def test_flags_of_a_bind_mount_need_a_second_call(tmp_path: Path, in_child: Child) -> None:
    def bound() -> tuple[bool, bool]:
        _private_namespace()
        mounts.mount("/etc", tmp_path, None, MountFlag.BIND | MountFlag.RDONLY)
        first = "ro" in _at(tmp_path).options
        mounts.mount(None, tmp_path, None, MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY)
        return first, "ro" in _at(tmp_path).options

    assert in_child(bound) == (False, True)


@needs_root
def test_a_whole_tree_becomes_read_only_or_nothing_does(tmp_path: Path, in_child: Child) -> None:
    def tree() -> list[bool]:
        _private_namespace()
        mounts.mount("t", tmp_path, "tmpfs")
        (tmp_path / "below").mkdir()
        mounts.mount("t", tmp_path / "below", "tmpfs")
        mounts.set_recursively(tmp_path, MountFlag.RDONLY | MountFlag.NOEXEC)
        mounts.set_recursively(tmp_path, NO_FLAGS, MountFlag.NOEXEC)
        return [
            "ro" in _at(place).options and "noexec" not in _at(place).options
            for place in (tmp_path, tmp_path / "below")
        ]

    assert in_child(tree) == [True, True]
    with pytest.raises(InvalidArgument, match="whole tree"):
        mounts.set_recursively(tmp_path, MountFlag.BIND)


@needs_root
@pytest.mark.parametrize(
    ("flag", "shown"),
    [(MountFlag.SHARED, "shared:"), (MountFlag.UNBINDABLE, "unbindable"), (MountFlag.PRIVATE, "")],
)
def test_propagation_is_shown_in_mountinfo(flag: MountFlag, shown: str, tmp_path: Path, in_child: Child) -> None:
    def propagated() -> tuple[str, ...]:
        _private_namespace()
        mounts.mount("t", tmp_path, "tmpfs")
        mounts.set_propagation(tmp_path, flag)
        return _at(tmp_path).propagation

    found = in_child(propagated)
    assert found == () if not shown else len(found) == 1 and found[0].startswith(shown)


def test_propagation_is_exactly_one_kind() -> None:
    for flag in (MountFlag.SHARED | MountFlag.PRIVATE, MountFlag.REC, MountFlag.SHARED | MountFlag.RDONLY):
        with pytest.raises(InvalidArgument, match="not one kind of propagation"):
            mounts.set_propagation("/", flag)


@needs_root
def test_pivot_root_lets_go_of_the_old_root(tmp_path: Path, in_child: Child) -> None:
    def pivoted() -> tuple[list[str], str, int]:
        _private_namespace()
        mounts.mount("new root", tmp_path, "tmpfs")
        (tmp_path / "only this").mkdir()
        (tmp_path / "proc").mkdir()
        mounts.mount("/proc", tmp_path / "proc", None, MountFlag.BIND)
        os.chdir(tmp_path)
        mounts.pivot_root_here()
        old_roots = [mount for mount in mountinfo() if mount.mount_point not in ("/", "/proc")]
        return sorted(os.listdir("/")), os.getcwd(), len(old_roots)

    assert in_child(pivoted) == (["only this", "proc"], "/", 0)


@needs_root
def test_pivot_root_explains_why_a_plain_directory_cannot_be_a_root(tmp_path: Path, in_child: Child) -> None:
    def refused() -> str:
        _private_namespace()
        os.chdir(tmp_path)
        with pytest.raises(KernelError) as caught:
            mounts.pivot_root_here()
        return str(caught.value)

    text = in_child(refused)
    # EBUSY where the directory is on the present root's mount, EINVAL where it is on another.
    assert text.startswith((f"pivot_root {tmp_path}: EBUSY", f"pivot_root {tmp_path}: EINVAL"))
    assert "must be a mount point" in text


@needs_root
def test_unmount_removes_the_topmost_and_detach_a_busy_one(tmp_path: Path, in_child: Child) -> None:
    def unmounted() -> list[Any]:
        _private_namespace()
        mounts.mount("lower", tmp_path, "tmpfs")
        mounts.mount("upper", tmp_path, "tmpfs")
        mounts.unmount(tmp_path)
        seen: list[Any] = [_at(tmp_path).source]
        inside = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(KernelError) as caught:
            mounts.unmount(tmp_path)
        mounts.unmount(tmp_path, detach=True)
        os.close(inside)
        return [*seen, caught.value.errno, str(tmp_path) in {mount.mount_point for mount in mountinfo()}]

    assert in_child(unmounted) == ["lower", errno.EBUSY, False]


@needs_root
def test_unmount_does_not_follow_a_link(tmp_path: Path, in_child: Child) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    def followed() -> int | None:
        _private_namespace()
        mounts.mount("t", tmp_path / "real", "tmpfs")
        with pytest.raises(KernelError) as caught:
            mounts.unmount(tmp_path / "link")
        return caught.value.errno

    assert in_child(followed) == errno.EINVAL


def test_unmount_says_that_a_place_is_no_mount_point(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: EPERM comes first")
    with pytest.raises(KernelError, match=r"EINVAL .*not a mount point"):
        mounts.unmount(tmp_path)


def test_options_longer_than_a_page_are_refused_instead_of_cut(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="longer than a page"):
        mounts.mount("t", tmp_path, "tmpfs", data="x" * os.sysconf("SC_PAGESIZE"))


def test_a_zero_byte_in_a_path_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="zero byte"):
        mounts.mount("t", "/tmp\0/../etc", "tmpfs")


def test_an_unknown_filesystem_is_explained(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: EPERM comes first")
    with pytest.raises(KernelError, match=r"ENODEV .*/proc/filesystems"):
        mounts.mount("t", tmp_path, "nosuchfs")


def test_the_mounts_of_a_process_that_is_not_there() -> None:
    with pytest.raises(KernelError) as caught:
        mountinfo(2**22)
    assert caught.value.errno == errno.ENOENT
