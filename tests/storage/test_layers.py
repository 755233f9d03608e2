"""The layer store: commit by rename, sharing, repair, and 120 layers in one real overlay mount."""

import gzip
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zstandard
from builders import directory, make_tar, member

from minidocker.errors import InvalidArgument, NotFound, Unavailable, VerificationError
from minidocker.oci.digest import Digest, chain_id
from minidocker.oci.manifest import OCI_LAYER
from minidocker.storage import layers as layers_module
from minidocker.storage import overlay, records
from minidocker.storage.archive import Stores
from minidocker.storage.layers import Layer, LayerStore
from minidocker.storage.worker import Stopped, Worker


def apply(stores: Stores, tmp_path: Path, layer: bytes, parent: Layer | None = None) -> Layer:
    blob = tmp_path / f"blob-{Digest.of(layer).short}"
    blob.write_bytes(gzip.compress(layer, 1))
    return stores.layers.apply(blob, OCI_LAYER + "+gzip", Digest.of(layer), parent)


def test_layer_is_filed_under_its_chain_id(stores: Stores, tmp_path: Path) -> None:
    base, top = make_tar(member("a", b"1")), make_tar(member("b", b"22"))
    lower = apply(stores, tmp_path, base)
    upper = apply(stores, tmp_path, top, lower)
    assert upper.chain_id == chain_id((Digest.of(base), Digest.of(top)))
    assert (stores.layers.path(upper.chain_id) / "b").read_bytes() == b"22"
    assert (upper.size, lower.size) == (2, 1)
    assert stores.layers.chain(upper.chain_id) == (lower, upper)
    assert os.path.samefile(stores.layers.directory / "l" / upper.short, stores.layers.path(upper.chain_id))


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (OCI_LAYER + "+gzip", gzip.compress),
        (OCI_LAYER + "+zstd", zstandard.compress),
        (OCI_LAYER, bytes),
        (None, bytes),
    ],
)
def test_every_compression_unpacks(stores: Stores, tmp_path: Path, media_type: str | None, pack: object) -> None:
    layer = make_tar(member("f", os.urandom(100_000)))
    (tmp_path / "blob").write_bytes(pack(layer))  # type: ignore[operator]
    made = stores.layers.apply(tmp_path / "blob", media_type, Digest.of(layer), None)
    assert made.size == 100_000


def test_gzip_of_several_members_is_one_stream(stores: Stores, tmp_path: Path) -> None:
    layer = make_tar(member("f", os.urandom(100_000)))
    (tmp_path / "blob").write_bytes(
        b"".join(gzip.compress(layer[at : at + 30_000]) for at in range(0, len(layer), 30_000))
    )
    assert stores.layers.apply(tmp_path / "blob", None, Digest.of(layer), None).size == 100_000


def test_compression_that_contradicts_the_media_type_is_refused(stores: Stores, tmp_path: Path) -> None:
    layer = make_tar(member("f", b"x"))
    (tmp_path / "blob").write_bytes(zstandard.compress(layer))
    with pytest.raises(VerificationError, match="is zstd, but its media type"):
        stores.layers.apply(tmp_path / "blob", OCI_LAYER + "+gzip", Digest.of(layer), None)


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage behind"])
def test_damaged_gzip_is_refused(stores: Stores, tmp_path: Path, damage: str) -> None:
    layer = make_tar(member("f", os.urandom(100_000)))
    blob = bytearray(gzip.compress(layer))
    if damage == "cut":
        del blob[-20:]
    elif damage == "flipped":
        blob[len(blob) // 2] ^= 0xFF
    else:
        blob += b"garbage"
    (tmp_path / "blob").write_bytes(blob)
    with pytest.raises((VerificationError, InvalidArgument)):
        stores.layers.apply(tmp_path / "blob", None, Digest.of(layer), None)
    assert os.listdir(stores.layers.directory / "staged") == []


def test_concurrent_calls_for_one_layer_share_the_work(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    unpack = Worker.unpack

    def counted(self: Worker, *args: object, **options: object) -> object:
        calls.append(1)
        return unpack(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "unpack", counted)
    layer = make_tar(member("f", os.urandom(1 << 20)))
    found: list[Layer] = []
    blob = tmp_path / "blob"
    blob.write_bytes(layer)

    def run() -> None:
        found.append(stores.layers.apply(blob, None, Digest.of(layer), None))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1
    assert len(calls) == 1


def test_layers_are_staged_in_any_order(stores: Stores, tmp_path: Path) -> None:
    tars = [make_tar(member(f"f{n}", b"x")) for n in range(3)]
    staged = []
    for layer in reversed(tars):
        (tmp_path / "blob").write_bytes(layer)
        staged.append(stores.layers.stage(tmp_path / "blob", None, Digest.of(layer)))
    parent: Layer | None = None
    for one in reversed(staged):
        parent = stores.layers.commit(one, parent)
    assert parent is not None
    assert parent.chain_id == chain_id(tuple(Digest.of(layer) for layer in tars))


def test_failed_image_leaves_whole_layers_only(stores: Stores, tmp_path: Path) -> None:
    good, bad, above = make_tar(member("a", b"x")), make_tar(member("../b", b"x")), make_tar(member("c", b"x"))
    wanted = []
    for layer in (good, bad, above):
        path = tmp_path / Digest.of(layer).short
        path.write_bytes(layer)
        wanted.append((path, None, Digest.of(layer)))
    with pytest.raises(InvalidArgument):
        stores.layers.apply_all(wanted)
    assert [layer.diff_id for layer in stores.layers.all()] == [Digest.of(good)]
    assert os.listdir(stores.layers.directory / "staged") == []
    assert len(os.listdir(stores.layers.directory / "l")) == 1


def test_progress_can_cancel_and_nothing_stays(stores: Stores, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        raise Stop

    layer = make_tar(member("f", os.urandom(4 << 20)))
    (tmp_path / "blob").write_bytes(layer)
    with pytest.raises(Stop):
        stores.layers.apply(tmp_path / "blob", None, Digest.of(layer), None, stop)
    assert os.listdir(stores.layers.directory / "staged") == []


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_worker_child_is_an_error_and_nothing_stays(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    layer = make_tar(member("f", os.urandom(8 << 20)))
    (tmp_path / "blob").write_bytes(layer)

    def kill(done: int) -> None:
        assert worker.pid is not None
        for child in children_of(worker.pid):
            os.kill(child, signal.SIGKILL)

    with pytest.raises(Unavailable):
        stores.layers.apply(tmp_path / "blob", None, Digest.of(layer), None, kill)
    assert os.listdir(stores.layers.directory / "staged") == []


def test_fork_server_that_died_is_started_again(stores: Stores, tmp_path: Path) -> None:
    own = Worker(tmp_path / "run")
    layers = LayerStore(tmp_path / "own", own)
    try:
        for number in range(2):
            layer = make_tar(member(f"f{number}", b"x"))
            (tmp_path / "blob").write_bytes(layer)
            layers.apply(tmp_path / "blob", None, Digest.of(layer), None)
            if number == 0 and own.pid is not None:
                pidfd = os.pidfd_open(own.pid)
                os.kill(own.pid, signal.SIGKILL)
                select.select([pidfd], [], [])
                os.close(pidfd)
        assert len(layers.all()) == 2
    finally:
        own.close()


_DAEMON = """
import sys
from pathlib import Path
from minidocker.oci.digest import Digest
from minidocker.storage.layers import LayerStore
from minidocker.storage.worker import Worker
root, blob, diff_id = Path(sys.argv[1]), Path(sys.argv[2]), Digest(sys.argv[3])
def report(done):
    print(done, flush=True)
    sys.stdin.readline()
LayerStore(root, Worker(root / "run")).apply(blob, None, diff_id, None, report)
"""


def test_kill_of_the_daemon_in_mid_unpack_is_repaired_by_the_next(worker: Worker, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    layer = make_tar(member("f", os.urandom(8 << 20)))
    (tmp_path / "blob").write_bytes(layer)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", _DAEMON, str(root), str(tmp_path / "blob"), Digest.of(layer)]
    daemon = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert daemon.stdout is not None and daemon.stdin is not None
    daemon.stdout.readline()  # it is in the middle of the layer
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    daemon.stdin.close()
    assert len(os.listdir(root / "layers" / "staged")) == 1
    layers = LayerStore(root, worker)
    assert layers.all() == ()
    _until(lambda: not _processes_of(str(root / "run")))
    layers.repair()
    assert os.listdir(root / "layers" / "staged") == []
    made = layers.apply(tmp_path / "blob", None, Digest.of(layer), None)
    assert made.size == 8 << 20


def _processes_of(exec_root: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if exec_root.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def _until(condition: object, seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("step", ["_is_opaque", "_sync_filesystem", "rename", "sync_directory"])
def test_a_crash_at_any_step_of_the_commit_leaves_all_or_nothing(
    stores: Stores, worker: Worker, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash is a copy of the directory at that moment, which the next daemon then opens."""
    copy = tmp_path / "crashed"

    rename = os.rename

    def crash(*paths: object, **directories: object) -> object:
        if directories:  # the removal of the staged tree
            return rename(*paths, **directories)  # type: ignore[arg-type]
        subprocess.run(["cp", "-a", str(stores.layers.directory.parent), str(copy)], check=True)
        raise KeyboardInterrupt

    where = {"rename": (os, "rename"), "sync_directory": (records, "sync_directory")}
    owner, name = where.get(step, (layers_module, step))
    layer = make_tar(member("f", b"content"))
    blob = tmp_path / "blob"
    blob.write_bytes(layer)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(KeyboardInterrupt):
            stores.layers.apply(blob, None, Digest.of(layer), None)
    assert os.listdir(stores.layers.directory / "staged") == []
    again = LayerStore(copy, worker)
    again.repair()
    assert os.listdir(again.directory / "staged") == []
    exists = step == "sync_directory"
    assert [one.diff_id for one in again.all()] == ([Digest.of(layer)] if exists else [])
    assert len(os.listdir(again.directory / "l")) == (1 if exists else 0)
    made = again.apply(blob, None, Digest.of(layer), None)
    assert (again.directory / "l" / made.short / "f").read_bytes() == b"content"


def test_repair_removes_damaged_layers_and_mends_links(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    made = apply(stores, tmp_path, make_tar(member("f", b"x")))
    root = stores.layers.directory
    (root / ("0" * 64) / "diff").mkdir(parents=True)
    os.unlink(root / "l" / made.short)
    os.symlink("../nowhere", root / "l" / "DANGLING")
    again = LayerStore(root.parent, worker)
    again.repair()
    assert sorted(os.listdir(root)) == sorted([made.chain_id.hex, "empty", "l", "staged"])
    assert os.listdir(root / "l") == [made.short]
    assert (root / "l" / made.short / "f").exists()


def test_missing_layer_in_a_chain_is_named(stores: Stores, tmp_path: Path) -> None:
    lower = apply(stores, tmp_path, make_tar(member("a", b"1")))
    upper = apply(stores, tmp_path, make_tar(member("b", b"1")), lower)
    stores.layers.delete(lower.chain_id)
    with pytest.raises(NotFound, match=str(lower.chain_id)):
        stores.layers.chain(upper.chain_id)


def test_upper_directory_is_adopted_without_a_copy(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    upper = tmp_path / "data" / "upper"
    upper.mkdir()
    (upper / "f").write_bytes(b"made by a container")
    inode = (upper / "f").stat().st_ino
    pieces: list[bytes] = []
    diff_id = worker.diff(upper, pieces.append)
    assert diff_id == Digest.of(b"".join(pieces))
    made = stores.layers.adopt(upper, diff_id, None)
    assert (stores.layers.path(made.chain_id) / "f").stat().st_ino == inode
    assert not upper.exists()


def in_merged(worker: Worker, stores: Stores, chain: Layer, path: str) -> str:
    """`path` as a container on `chain` would see it: through a real overlay mount, made by the worker."""
    lowerdir = stores.layers.lowerdir(stores.layers.chain(chain.chain_id))
    place = Stopped(str(stores.layers.directory), lowerdir)
    return worker.path_stat(place, path).name


def test_120_layers_fit_one_mount(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    parent: Layer | None = None
    for number in range(120):
        parent = apply(stores, tmp_path, make_tar(member(f"f{number}", b"x")), parent)
    assert parent is not None
    lowerdir = stores.layers.lowerdir(stores.layers.chain(parent.chain_id))
    data_root = "/var/lib/minidocker/containers/" + "f" * 64
    assert len(overlay.options(lowerdir, f"{data_root}/upper", f"{data_root}/work")) < 4096
    assert in_merged(worker, stores, parent, "/f0") == "f0"
    assert in_merged(worker, stores, parent, "/f119") == "f119"


def test_128th_layer_is_refused(stores: Stores, tmp_path: Path) -> None:
    tars = [make_tar(member(f"f{number}")) for number in range(128)]
    wanted = []
    for layer in tars:
        path = tmp_path / Digest.of(layer).short
        path.write_bytes(layer)
        wanted.append((path, None, Digest.of(layer)))
    with pytest.raises(InvalidArgument, match="more than 127 layers"):
        stores.layers.apply_all(wanted)
    assert os.listdir(stores.layers.directory / "staged") == []


def test_whiteout_hides_a_file_of_the_layer_below(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    base = apply(
        stores, tmp_path, make_tar(member("gone", b"x"), directory("d"), member("d/below", b"x"), member("stays", b"x"))
    )
    top = apply(stores, tmp_path, make_tar(member(".wh.gone"), member("d/.wh..wh..opq"), member("d/above", b"x")), base)
    assert in_merged(worker, stores, top, "/stays") == "stays"
    assert in_merged(worker, stores, top, "/d/above") == "above"
    for path in ("/gone", "/d/below"):
        with pytest.raises(NotFound):
            in_merged(worker, stores, top, path)


def test_opaque_root_hides_all_layers_below(stores: Stores, worker: Worker, tmp_path: Path) -> None:
    base = apply(stores, tmp_path, make_tar(member("below", b"x")))
    top = apply(stores, tmp_path, make_tar(member(".wh..wh..opq"), member("above", b"x")), base)
    assert in_merged(worker, stores, top, "/above") == "above"
    with pytest.raises(NotFound):
        in_merged(worker, stores, top, "/below")


def test_device_0_0_is_what_the_kernel_takes_for_a_whiteout(stores: Stores, tmp_path: Path) -> None:
    made = apply(stores, tmp_path, make_tar(member(".wh.x")))
    status = (stores.layers.path(made.chain_id) / "x").lstat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_options_escape_what_separates_them() -> None:
    assert overlay.options("l/A:l/B", "/a,b:c\\d", "/w") == "lowerdir=l/A:l/B,upperdir=/a\\,b\\:c\\\\d,workdir=/w"
    assert overlay.options("l/A", None, None, in_user_namespace=True) == "lowerdir=l/A,userxattr"
    with pytest.raises(InvalidArgument, match="shorter path"):
        overlay.options("l/A", "/" + "u" * 4000, "/" + "w" * 100)


def test_an_idle_worker_ends_and_comes_back(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "run", idle_seconds=0)
    (tmp_path / "target").mkdir()
    try:
        for _ in range(2):
            worker.unpack(Path(os.devnull), tmp_path / "target")
            while worker.pid is not None:  # the timer's thread ends it
                os.sched_yield()
    finally:
        worker.close()
