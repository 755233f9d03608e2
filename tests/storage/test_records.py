"""Records and blobs: whole or not there."""

import os
import threading
from pathlib import Path

import msgspec
import pytest

from minidocker.errors import InvalidArgument, KernelError, NotFound, VerificationError
from minidocker.oci.digest import Digest
from minidocker.storage import records
from minidocker.storage.blobs import BlobStore


class Note(msgspec.Struct):
    text: str
    digest: Digest


NOTE = Note("hello", Digest.of(b"x"))


def test_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    records.write(tmp_path / "note.json", NOTE)
    assert records.read(tmp_path / "note.json", Note) == NOTE
    assert os.listdir(tmp_path) == ["note.json"]


def test_missing_and_damaged_records_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        records.read(tmp_path / "none.json", Note)
    (tmp_path / "half.json").write_bytes(b'{"text": "hel')
    with pytest.raises(InvalidArgument, match=r"half\.json"):
        records.read(tmp_path / "half.json", Note)


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_crash_while_writing_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "note.json"
    records.write(path, NOTE)

    def crash(*_: object) -> int:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, crash)
        with pytest.raises(KernelError):
            records.write(path, Note("new", NOTE.digest))
    assert records.read(path, Note) == NOTE
    assert os.listdir(tmp_path) == ["note.json"]


def test_readers_beside_a_writer_never_see_half(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    records.write(path, NOTE)
    done = threading.Event()
    seen = set()

    def read() -> None:
        while not done.is_set():
            seen.add(len(records.read(path, Note).text))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(100):
        records.write(path, Note("x" * (5 + number * 1000), NOTE.digest))
    done.set()
    thread.join()
    assert seen <= {5 + number * 1000 for number in range(100)}


def test_blob_is_there_only_after_commit(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = Digest.of(b"content")
    with store.ingest(digest, 7) as ingest:
        ingest.write(b"cont")
        assert not store.has(digest)
        ingest.write(b"ent")
        assert ingest.commit() == digest
    assert store.read(digest, 100) == b"content"
    assert store.size(digest) == 7
    assert list(store) == [digest]
    assert os.listdir(store.partial) == []


@pytest.mark.parametrize(
    ("content", "size"), [(b"contenT", 7), (b"conten", 7), (b"content!", 7), (b"content!", None), (b"", 7)]
)
def test_wrong_bytes_never_become_a_blob(tmp_path: Path, content: bytes, size: int | None) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(VerificationError), store.ingest(Digest.of(b"content"), size) as ingest:
        ingest.write(content)
        ingest.commit()
    assert list(store) == []
    assert os.listdir(store.partial) == []


def test_aborted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    content = os.urandom(100_000)
    digest = Digest.of(content)
    with store.ingest(digest, len(content), resume=True) as first:
        first.write(content[:60_000])
    store.repair()  # a restart of the daemon in between
    with store.ingest(digest, len(content), resume=True) as second:
        assert second.offset == 60_000
        second.write(content[second.offset :])
        second.commit()
    assert store.read(digest, len(content)) == content
    assert os.listdir(store.partial) == []


def test_wrong_partial_bytes_are_thrown_away(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = Digest.of(b"content")
    with store.ingest(digest, 7, resume=True) as first:
        first.write(b"conX")
    with pytest.raises(VerificationError), store.ingest(digest, 7, resume=True) as second:
        second.write(b"ent")
        second.commit()
    with store.ingest(digest, 7, resume=True) as third:
        assert third.offset == 0


def test_two_downloads_of_one_blob_do_not_mix(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = Digest.of(b"content")
    with store.ingest(digest, 7, resume=True) as one, store.ingest(digest, 7, resume=True) as other:
        one.write(b"con")
        other.write(b"content")
        other.commit()
        one.write(b"tent")
        one.commit()
    assert store.read(digest, 7) == b"content"
    assert os.listdir(store.partial) == []


def test_blob_changed_on_disk_is_not_handed_out(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    store.path(digest).write_bytes(b"changed")
    with pytest.raises(VerificationError, match="changed on disk"):
        store.read(digest, 100)
    with pytest.raises(InvalidArgument, match="larger"):
        store.read(digest, 3)
    assert store.delete(digest) == 7
    assert store.delete(digest) == 0
    with pytest.raises(NotFound):
        store.open(digest)


def test_repair_drops_what_nobody_can_resume(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    (store.partial / "new-1234").write_bytes(b"x")
    (store.partial / "load-1").mkdir()
    (store.partial / "load-1" / "0").write_bytes(b"x")
    store.repair()
    assert os.listdir(store.partial) == []
