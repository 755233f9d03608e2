"""`docker cp`: paths and links within a running and a stopped container's root."""

import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import directory, make_tar, member, symlink

from minidocker.errors import Breakout, Conflict, Forbidden, InvalidArgument, KernelError, NotFound
from minidocker.oci.digest import Digest
from minidocker.storage.archive import Stores
from minidocker.storage.copying import go_mode
from minidocker.storage.worker import Bind, Place, Running, Stopped, Worker

IMAGE = make_tar(
    directory("dir"),
    member("dir/file", b"content", mode=0o640, uid=7, mtime=1_000_000_000),
    directory("dir/sub"),
    member("dir/hard", type=tarfile.LNKTYPE, linkname="dir/file", mode=0o640, uid=7, mtime=1_000_000_000),
    symlink("abs", "/dir/file"),
    symlink("todir", "dir"),
    symlink("dangling", "/no/where"),
    symlink("out", "../../../../../etc"),
    symlink("loop", "loop"),
    member("fifo", type=tarfile.FIFOTYPE),
    directory("data"),
    member("data/seed", b"from the image"),
    directory("ro"),
)


class Box:
    """A container's files: what `place` the worker is to be given, and where the host sees what was written."""

    def __init__(self, place: Place, written: Path) -> None:
        self.place, self.written = place, written


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, stores: Stores, tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "image.tar").write_bytes(IMAGE)
    layer = stores.layers.apply(tmp_path / "image.tar", None, Digest.of(IMAGE), None)
    upper, work, volume = tmp_path / "upper", tmp_path / "work", tmp_path / "volume"
    for path in (upper, work, volume):
        path.mkdir()
    (volume / "in-volume").write_bytes(b"v")
    lowerdir = stores.layers.lowerdir((layer,))
    if request.param == "stopped":
        binds = (Bind(str(volume), "/volume"), Bind(str(volume), "/ro", read_only=True))
        yield Box(Stopped(str(stores.layers.directory), lowerdir, str(upper), str(work), binds), upper)
        return
    root = tmp_path / "root"
    root.mkdir()
    script = f"""
        mount -t overlay o -o lowerdir={lowerdir},upperdir={upper},workdir={work} {root} &&
        mkdir -p {root}/volume && mount --bind {volume} {root}/volume && mount --bind {volume} {root}/ro &&
        mount -o remount,bind,ro {root}/ro && cd {root} && exec {sys.executable} -c '
import os
os.chroot(".")
print(flush=True)
os.read(0, 1)'
    """
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    process = subprocess.Popen(command, cwd=stores.layers.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"\n"
    pidfd = os.pidfd_open(process.pid)
    yield Box(Running(process.pid, pidfd), upper)
    process.stdin.close()
    process.stdout.close()
    process.wait()
    os.close(pidfd)


def get(worker: Worker, box: Box, path: str, tmp_path: Path) -> dict[str, tarfile.TarInfo]:
    with open(tmp_path / "got.tar", "wb") as file:
        worker.archive_get(box.place, path, file.fileno())
    with tarfile.open(tmp_path / "got.tar") as opened:
        return {info.name: info for info in opened}


def put(worker: Worker, box: Box, path: str, content: bytes, tmp_path: Path, **options: object) -> None:
    (tmp_path / "put.tar").write_bytes(content)
    with open(tmp_path / "put.tar", "rb") as file:
        worker.archive_put(box.place, path, file.fileno(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/dir/file", {"file"}),
        ("dir/file", {"file"}),
        ("/todir/file", {"file"}),
        ("/dir", {"dir", "dir/file", "dir/hard", "dir/sub"}),
        ("/dir/./", {".", "./file", "./hard", "./sub"}),
        ("/dir/", {"dir", "dir/file", "dir/hard", "dir/sub"}),
        ("/todir/", {"todir", "todir/file", "todir/hard", "todir/sub"}),
        ("/dir/.", {".", "./file", "./hard", "./sub"}),
        ("/abs", {"abs"}),
        ("/../../dir/file", {"file"}),
        ("/fifo", {"fifo"}),
        ("/volume", {"volume", "volume/in-volume"}),
    ],
)
def test_names_in_the_archive_are_dockers(worker: Worker, box: Box, tmp_path: Path, path: str, names: set[str]) -> None:
    assert get(worker, box, path, tmp_path).keys() == names


def test_link_is_copied_as_a_link(worker: Worker, box: Box, tmp_path: Path) -> None:
    assert get(worker, box, "/abs", tmp_path)["abs"].linkname == "/dir/file"


@pytest.mark.parametrize("path", ["/nothing", "/dir/file/x", "/dangling/", "/out/hostname", "/dir/nothing/x"])
def test_missing_path_is_not_found(worker: Worker, box: Box, tmp_path: Path, path: str) -> None:
    with pytest.raises(NotFound, match="could not find the file"):
        get(worker, box, path, tmp_path)
    with pytest.raises(NotFound):
        worker.path_stat(box.place, path)


def test_stat_is_what_the_header_needs(worker: Worker, box: Box) -> None:
    found = worker.path_stat(box.place, "/dir/file")
    assert (found.name, found.size, found.mode, found.mtime) == ("file", 7, 0o640, "2001-09-09T01:46:40Z")
    assert worker.path_stat(box.place, "/dir").mode == 1 << 31 | 0o755
    link = worker.path_stat(box.place, "/abs")
    assert (link.mode & 1 << 27, link.link_target) == (1 << 27, "/dir/file")
    assert worker.path_stat(box.place, "/out").link_target == "/etc"
    assert worker.path_stat(box.place, "/dangling").link_target == "/no/where"
    assert worker.path_stat(box.place, "/").name == "/"


def test_go_mode_has_the_bits_of_gos_os_filemode() -> None:
    assert go_mode(stat.S_IFREG | 0o4755) == 1 << 23 | 0o755
    assert go_mode(stat.S_IFCHR | 0o666) == 1 << 26 | 1 << 21 | 0o666
    assert go_mode(stat.S_IFDIR | 0o1777) == 1 << 31 | 1 << 20 | 0o777


def test_files_are_put_where_the_path_leads(worker: Worker, box: Box, tmp_path: Path) -> None:
    put(worker, box, "/todir", make_tar(member("new", b"n", uid=3), directory("d")), tmp_path)
    assert (box.written / "dir/new").read_bytes() == b"n"
    assert (box.written / "dir/new").stat().st_uid == 3
    put(worker, box, "/volume", make_tar(member("new", b"n")), tmp_path)
    assert (tmp_path / "volume/new").exists()


def test_owner_can_be_the_containers_user(worker: Worker, box: Box, tmp_path: Path) -> None:
    put(worker, box, "/dir", make_tar(member("new", b"n", uid=3)), tmp_path, owner=(1000, 1001))
    status = (box.written / "dir/new").stat()
    assert (status.st_uid, status.st_gid) == (1000, 1001)


def test_compressed_archive_can_be_put(worker: Worker, box: Box, tmp_path: Path) -> None:
    put(worker, box, "/dir", gzip.compress(make_tar(member("new", b"n"))), tmp_path)
    assert (box.written / "dir/new").exists()


def test_missing_directory_is_made_if_asked(worker: Worker, box: Box, tmp_path: Path) -> None:
    put(worker, box, "/made/here", make_tar(member("new", b"n")), tmp_path, create=True)
    assert (box.written / "made/here/new").exists()


@pytest.mark.parametrize(
    ("path", "content", "options", "kind"),
    [
        ("/nothing", make_tar(member("f")), {}, NotFound),
        ("/dir/file", make_tar(member("f")), {}, InvalidArgument),
        ("/out", make_tar(member("f")), {}, NotFound),
        ("/loop", make_tar(member("f")), {}, (NotFound, KernelError)),
        ("/ro", make_tar(member("f", b"x")), {}, Forbidden),
        ("/dir", make_tar(member("../../f", b"x")), {}, Breakout),
        ("/dir", make_tar(member("sub", b"x")), {"keep_kind": True}, Conflict),
        ("/dir", make_tar(directory("file")), {"keep_kind": True}, Conflict),
    ],
)
def test_what_cannot_be_put_is_refused(
    worker: Worker, box: Box, tmp_path: Path, path: str, content: bytes, options: dict[str, bool], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        put(worker, box, path, content, tmp_path, **options)
    assert not Path("/etc/f").exists()


def test_archive_through_the_containers_own_link_stays_inside(worker: Worker, box: Box, tmp_path: Path) -> None:
    name = "minidocker-cp-test"
    put(worker, box, "/", make_tar(symlink("esc", "/etc"), member(f"esc/{name}", b"x")), tmp_path)
    assert not Path("/etc", name).exists()
    assert (box.written / "etc" / name).read_bytes() == b"x"


def test_reader_that_goes_away_ends_the_copy(worker: Worker, box: Box) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(KernelError):
        worker.archive_get(box.place, "/dir", write_end)
    os.close(write_end)


def test_volume_is_filled_from_the_image(worker: Worker, box: Box, tmp_path: Path) -> None:
    volume = tmp_path / "fresh"
    volume.mkdir(mode=0o700)
    worker.copy_up(box.place, "/dir", volume)
    assert sorted(os.listdir(volume)) == ["file", "hard", "sub"]
    assert (volume / "file").stat().st_uid == 7
    assert (volume / "hard").stat().st_nlink == 2
    assert stat.S_IMODE(volume.stat().st_mode) == 0o755
    worker.copy_up(box.place, "/nothing", volume)


def test_export_leaves_mounts_out(worker: Worker, box: Box, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()

    def export() -> None:
        with os.fdopen(write_end, "wb") as file:
            worker.export(box.place, file.fileno())

    thread = threading.Thread(target=export)
    thread.start()
    with open(read_end, "rb") as file:
        content = file.read(1 << 20)  # no more, should it ever be the host's tree
    thread.join()
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        names = opened.getnames()
    assert "dir/file" in names and "data/seed" in names
    assert not any("in-volume" in name for name in names)


def test_pid_that_is_another_process_by_now_is_refused(worker: Worker) -> None:
    gone = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(gone.pid)
    gone.wait()
    with pytest.raises(NotFound, match="has ended"):
        worker.path_stat(Running(os.getpid(), pidfd), "/etc/passwd")
    os.close(pidfd)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_link_exchanged_during_the_copy_never_shows_the_host(
    worker: Worker, box: Box, tmp_path: Path, kind: str
) -> None:
    """CVE-2018-15664: a path that turns into a link while it is copied. The host's file must never be read."""
    if not isinstance(box.place, Running):
        pytest.skip("only a running container can exchange its files")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_bytes(b"the host's secret")
    script = (
        "mkdir x && echo inside > x/f; i=0; while [ $i -lt 300 ]; do mv x a; ln -s $0 x; rm x; mv a x; i=$((i+1)); done"
    )
    root = f"/proc/{box.place.pid}/root"
    writer = subprocess.Popen(["sh", "-c", script, str(secret)], cwd=root, stderr=subprocess.DEVNULL)
    try:
        while writer.poll() is None:
            try:
                with open(tmp_path / "got.tar", "wb") as file:
                    worker.archive_get(box.place, "/x/f" if kind == "file" else "/x", file.fileno())
            except (NotFound, KernelError):
                continue
            assert b"the host's secret" not in (tmp_path / "got.tar").read_bytes()
    finally:
        writer.wait()
