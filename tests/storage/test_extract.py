"""The extractor: what layers of strangers may and may not do.

Each hostile layer goes in two packings: alone through the worker, and as a layer of an image archive through `load`.
"""

import errno
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from builders import directory, docker_archive, hardlink, make_tar, member, symlink

from minidocker.errors import Breakout, Conflict, InvalidArgument, KernelError, MinidockerError, VerificationError
from minidocker.oci.digest import Digest
from minidocker.storage import archive
from minidocker.storage.archive import Stores
from minidocker.storage.extract import Extractor
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import TarEntry, TarReader
from minidocker.storage.worker import Worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chown, mknod, chroot")


def unpack(worker: Worker, tmp_path: Path, layer: bytes) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "layer.tar").write_bytes(layer)
    worker.unpack(tmp_path / "layer.tar", target, name="test layer", diff_id=Digest.of(layer))
    return target


def device(name: str, kind: bytes, major: int, minor: int) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, devmajor=major, devminor=minor)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


# name: (members, the error's kind, what its text names)
HOSTILE: dict[str, tuple[bytes, type[MinidockerError], str]] = {
    "name above the root": (make_tar(member("../evil", b"x")), Breakout, "../evil"),
    "name above the root, later": (make_tar(member("a/../../evil", b"x")), Breakout, "a/../../evil"),
    "directory above the root": (make_tar(directory("../../evil")), Breakout, "../../evil"),
    "hard link above the root": (make_tar(hardlink("h", "../../etc/shadow")), Breakout, "'h'"),
    "hard link to the host": (make_tar(hardlink("h", "/etc/hostname")), InvalidArgument, "'h'"),
    "file through a climbing link": (
        make_tar(symlink("out", "../../../../tmp"), member("out/evil", b"x")),
        Breakout,
        "out/evil",
    ),
    "file through a chain of links": (
        make_tar(symlink("a", "b/.."), directory("b"), symlink("c", "a/../../.."), member("c/evil", b"x")),
        Breakout,
        "c/evil",
    ),
    "hard link through a climbing link": (
        make_tar(symlink("out", "../../../../etc"), hardlink("h", "out/hostname")),
        Breakout,
        "'h'",
    ),
    "whiteout of the parent": (make_tar(directory("d"), member("d/.wh...")), Breakout, "d/.wh..."),
    "whiteout of the directory itself": (make_tar(directory("d"), member("d/.wh..")), Breakout, "d/.wh.."),
    "whiteout of nothing": (make_tar(member(".wh.")), Breakout, ".wh."),
    "whiteout through a climbing link": (make_tar(symlink("o", "../.."), member("o/.wh.etc")), Breakout, "o/.wh.etc"),
    "opaque through a climbing link": (make_tar(symlink("o", "../.."), member("o/.wh..wh..opq")), Breakout, "opq"),
    "link to itself as a directory": (make_tar(symlink("l", "l"), member("l/x", b"x")), KernelError, "l/x"),
    "root replaced": (make_tar(symlink(".", "/etc")), InvalidArgument, "root"),
    "file below a file": (make_tar(member("f", b"x"), member("f/g", b"x")), InvalidArgument, "f"),
    "hard link to a directory": (make_tar(directory("d"), hardlink("h", "d")), KernelError, "'h'"),
    "hard link to nothing": (make_tar(hardlink("h", "missing")), InvalidArgument, "missing"),
    "name of 300 bytes": (make_tar(member("n" * 300, b"x")), KernelError, "nnn"),
    "uid 2^32-1": (make_tar(member("f", uid=(1 << 32) - 1)), InvalidArgument, "uid"),
    "truncated": (make_tar(member("f", b"x" * 4000))[:2000], InvalidArgument, "cut off"),
    "not a tar": (b"not a tar " * 100, InvalidArgument, "archive"),
}


def canary(tmp_path: Path) -> dict[str, tuple[int, ...]]:
    """What must not change: the surroundings of the stores and of the target, and the host's /etc."""
    watched = [
        Path("/etc"),
        Path("/etc/hostname"),
        Path("/etc/shadow"),
        Path("/tmp/evil"),
        tmp_path / "evil",
        Path("/evil"),
    ]
    return {
        str(path): (s.st_mode, s.st_nlink, s.st_mtime_ns) for path in watched if path.exists() and (s := path.lstat())
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layer_is_refused_alone(name: str, worker: Worker, tmp_path: Path) -> None:
    layer, kind, named = HOSTILE[name]
    before = canary(tmp_path)
    with pytest.raises(kind) as caught:
        unpack(worker, tmp_path, layer)
    assert named in str(caught.value)
    assert canary(tmp_path) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layer_is_refused_in_an_image_and_leaves_nothing(name: str, stores: Stores, tmp_path: Path) -> None:
    layer, kind, named = HOSTILE[name]
    good = make_tar(member("good", b"x"))
    before = canary(tmp_path)
    with pytest.raises(kind) as caught:
        archive.load(io.BytesIO(docker_archive(good, layer)), stores)
    assert named in str(caught.value)
    assert canary(tmp_path) == before
    assert stores.images.list() == ()
    assert os.listdir(stores.layers.directory / "staged") == []
    assert os.listdir(stores.blobs.partial) == []
    assert [layer.diff_id for layer in stores.layers.all()] == [Digest.of(good)]  # whole, so it may stay


def test_absolute_names_land_below_the_root_as_in_docker(worker: Worker, tmp_path: Path) -> None:
    target = unpack(worker, tmp_path, make_tar(member("/etc/minidocker-test", b"x"), member("a/./b/../c", b"y")))
    assert (target / "etc/minidocker-test").read_bytes() == b"x"
    assert (target / "a/c").read_bytes() == b"y"
    assert not Path("/etc/minidocker-test").exists()


def test_absolute_link_as_parent_means_the_root_of_the_layer(worker: Worker, tmp_path: Path) -> None:
    layer = make_tar(symlink("lib", "/usr/lib"), member("lib/x", b"x"), symlink("climbs", "../../../../tmp"))
    target = unpack(worker, tmp_path, layer)
    assert (target / "usr/lib/x").read_bytes() == b"x"  # the link's target was missing: it is made, within the root
    assert os.readlink(target / "climbs") == "../../../../tmp"  # a link as such is harmless: nothing was written by it


def test_whiteout_becomes_the_overlay_mark(worker: Worker, tmp_path: Path) -> None:
    target = unpack(
        worker, tmp_path, make_tar(directory("d"), member("d/.wh.gone"), member("e/.wh..wh..opq"), member("e/x"))
    )
    assert is_whiteout(target / "d/gone")
    assert not (target / "d/.wh.gone").exists()
    assert os.getxattr(target / "e", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(target / "e")) == ["x"]


def test_other_marks_of_aufs_are_skipped(worker: Worker, tmp_path: Path) -> None:
    target = unpack(
        worker, tmp_path, make_tar(member(".wh..wh.plnk/1.2", b"x"), member(".wh..wh.aufs", b"x"), member("f", b"y"))
    )
    assert "f" in os.listdir(target)
    assert os.listdir(target) == ["f"]


def test_whiteout_hides_only_the_layers_below(worker: Worker, tmp_path: Path) -> None:
    before = unpack(worker, tmp_path, make_tar(member("f", b"kept"), member(".wh.f"), member("d/x"), member(".wh.d")))
    assert (before / "f").read_bytes() == b"kept"
    assert (before / "d/x").exists()
    assert os.getxattr(before / "d", "trusted.overlay.opaque") == b"y"


def test_directory_over_a_whiteout_of_the_same_layer_is_opaque(worker: Worker, tmp_path: Path) -> None:
    layer = make_tar(
        member(".wh.d"), directory("d"), member("d/x"), member(".wh.e"), member("e/x"), member(".wh.f"), member("f")
    )
    target = unpack(worker, tmp_path, layer)
    for name in ("d", "e"):
        assert os.getxattr(target / name, "trusted.overlay.opaque") == b"y"
        assert (target / name / "x").exists()
    assert (target / "f").is_file()


def test_a_layer_cannot_set_the_marks_of_overlayfs_by_itself(worker: Worker, tmp_path: Path) -> None:
    headers = {f"SCHILY.xattr.{name}": "y" for name in ("trusted.overlay.redirect", "user.overlay.opaque", "user.kept")}
    target = unpack(worker, tmp_path, make_tar(directory("d", pax_headers=headers)))
    assert [name for name in os.listxattr(target / "d") if name != "security.selinux"] == ["user.kept"]


def test_setuid_survives_the_change_of_owner(worker: Worker, tmp_path: Path) -> None:
    target = unpack(
        worker, tmp_path, make_tar(member("su", b"x", mode=0o6755, uid=1234, gid=4321), directory("t", mode=0o1777))
    )
    status = (target / "su").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o6755, 1234, 4321)
    assert (target / "t").stat().st_mode & 0o7777 == 0o1777


def test_file_capabilities_are_kept(worker: Worker, tmp_path: Path) -> None:
    source = tmp_path / "ping"
    source.write_bytes(b"x")
    subprocess.run(["setcap", "cap_net_raw+ep", str(source)], check=True)
    capability = os.getxattr(source, "security.capability")
    info, content = member("ping", b"x", uid=5)
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape", encoding="utf-8"
    ) as made:
        info.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
        made.addfile(info, io.BytesIO(content))
    target = unpack(worker, tmp_path, buffer.getvalue())
    assert os.getxattr(target / "ping", "security.capability") == capability


def test_devices_fifos_and_links_are_made(worker: Worker, tmp_path: Path) -> None:
    layer = make_tar(
        device("null", tarfile.CHRTYPE, 1, 3),
        device("disk", tarfile.BLKTYPE, 8, 1),
        member("fifo", type=tarfile.FIFOTYPE, mode=0o640),
        member("sub/f", b"x"),
        hardlink("h", "sub/f"),
        hardlink("abs", "/sub/f"),
        symlink("s", "/anywhere"),
    )
    target = unpack(worker, tmp_path, layer)
    assert (target / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((target / "disk").stat().st_mode)
    assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
    assert (target / "h").stat().st_nlink == 3
    assert os.readlink(target / "s") == "/anywhere"
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o755  # no entry of its own


def test_times_of_directories_are_set_last(worker: Worker, tmp_path: Path) -> None:
    target = unpack(
        worker, tmp_path, make_tar(directory("d", mtime=1_000_000_000), member("d/f", b"x", mtime=1_100_000_000))
    )
    assert (target / "d").stat().st_mtime == 1_000_000_000
    assert (target / "d/f").stat().st_mtime == 1_100_000_000


def test_a_later_entry_replaces_an_earlier_one(worker: Worker, tmp_path: Path) -> None:
    layer = make_tar(
        member("f", b"old"),
        member("f", b"new"),
        member("d/deep/x", b"x"),
        member("d", b"file now"),
        member("g", b"file"),
        directory("g"),
        member("g/x", b"x"),
        symlink("s", "g"),
        directory("s"),
        member("s/y", b"y"),
        directory("two", mode=0o700),
        member("two/kept", b"x"),
        directory("two", mode=0o755),
    )
    target = unpack(worker, tmp_path, layer)
    assert (target / "f").read_bytes() == b"new"
    assert (target / "d").read_bytes() == b"file now"
    assert (target / "g/x").exists()
    assert (target / "s/y").exists() and not (target / "g/y").exists()
    assert (target / "two/kept").exists()
    assert stat.S_IMODE((target / "two").stat().st_mode) == 0o755


def test_replaced_hard_link_does_not_change_its_other_name(worker: Worker, tmp_path: Path) -> None:
    target = unpack(worker, tmp_path, make_tar(member("a", b"old"), hardlink("b", "a"), member("b", b"new")))
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"old", b"new")


def test_hard_links_own_attributes_go_for_the_file_as_in_docker(worker: Worker, tmp_path: Path) -> None:
    link, _ = hardlink("b", "a")
    link.mode, link.uid = 0o4711, 9
    target = unpack(worker, tmp_path, make_tar(member("a", b"x", mode=0o644), (link, b"")))
    assert ((target / "a").stat().st_mode & 0o7777, (target / "a").stat().st_uid) == (0o4711, 9)


def test_sparse_file_stays_sparse(worker: Worker, tmp_path: Path) -> None:
    with open(tmp_path / "holes", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    done = subprocess.run(["tar", "--format=pax", "-Scf", "-", "holes"], cwd=tmp_path, capture_output=True, check=True)
    target = unpack(worker, tmp_path, done.stdout)
    status = (target / "holes").stat()
    assert status.st_size == (50 << 20) + 3
    assert status.st_blocks * 512 < 1 << 20


def test_deeply_nested_layer_is_unpacked_and_removed(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    """1,500 levels: more than Python's recursion limit."""
    layer = make_tar(member("d/" * 1500 + "f", b"x"))
    (tmp_path / "layer").write_bytes(layer)
    made = stores.layers.apply(tmp_path / "layer", None, Digest.of(layer), None)
    assert stores.layers.delete(made.chain_id) == 1
    assert os.listdir(stores.layers.directory / "staged") == []


def test_wrong_diff_id_is_refused(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(make_tar(member("f", b"x")))
    with pytest.raises(VerificationError, match="unpacks to sha256:"):
        stores.layers.apply(tmp_path / "layer", None, Digest.of(b"another"), None)
    assert os.listdir(stores.layers.directory / "staged") == []


def test_bytes_after_the_end_count_for_the_diff_id_but_not_without_bound(worker: Worker, tmp_path: Path) -> None:
    layer = make_tar(member("f", b"x"))
    unpack(worker, tmp_path, layer + bytes(1 << 20))
    (tmp_path / "bomb").write_bytes(layer + bytes(65 << 20))
    with pytest.raises(InvalidArgument, match="follow the end"):
        worker.unpack(tmp_path / "bomb", tmp_path / "target")


def test_full_disk_is_a_clear_error_and_the_space_comes_back(worker: Worker, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=True)
    try:
        from minidocker.storage.layers import LayerStore

        layers = LayerStore(disk, worker)
        layer = make_tar(member("some/big", bytes(20 << 20)))
        (tmp_path / "layer").write_bytes(layer)
        free = os.statvfs(disk).f_bfree
        with pytest.raises(KernelError) as caught:
            layers.apply(tmp_path / "layer", None, Digest.of(layer), None)
        assert caught.value.errno == errno.ENOSPC
        assert "some/big" in str(caught.value) and "free some space" in str(caught.value)
        assert os.statvfs(disk).f_bfree >= free - 2
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def in_process(target: Path, archive_bytes: bytes, **options: object) -> None:
    fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
    try:
        with Extractor(fd, **options) as extractor:  # type: ignore[arg-type]
            extractor.extract(TarReader(ByteStream(iter([archive_bytes]))))
    finally:
        os.close(fd)


def test_without_chroot_the_root_still_holds(tmp_path: Path) -> None:
    """The second wall alone: openat2 beneath the root."""
    target = tmp_path / "root"
    target.mkdir()
    in_process(target, make_tar(symlink("abs", f"{tmp_path}"), member("abs/evil", b"x")))
    assert not (tmp_path / "evil").exists()
    assert (target / str(tmp_path)[1:] / "evil").exists()
    with pytest.raises(Breakout):
        in_process(target, make_tar(symlink("up", ".."), member("up/evil", b"x")))
    assert not (tmp_path / "evil").exists()


def test_owner_given_by_the_caller_wins(tmp_path: Path) -> None:
    in_process(tmp_path, make_tar(member("f", b"x", uid=7), directory("d", uid=7)), owner=(12, 34))
    assert [((tmp_path / n).stat().st_uid, (tmp_path / n).stat().st_gid) for n in ("f", "d")] == [(12, 34)] * 2


def test_whiteout_names_are_ordinary_outside_layers(tmp_path: Path) -> None:
    in_process(tmp_path, make_tar(member(".wh.f", b"x")))
    assert (tmp_path / ".wh.f").read_bytes() == b"x"


def test_keep_kind_refuses_to_exchange_directory_and_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(Conflict, match="cannot overwrite directory"):
        in_process(tmp_path, make_tar(member("d", b"x")), keep_kind=True)
    with pytest.raises(Conflict, match="cannot overwrite non-directory"):
        in_process(tmp_path, make_tar(directory("f")), keep_kind=True)


def test_entries_that_hold_nothing_are_no_danger(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with Extractor(fd) as extractor, pytest.raises(InvalidArgument):
        extractor.put(TarEntry("a\0b"))
    os.close(fd)
