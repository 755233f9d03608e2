"""The local driver's files: the format, rotation, compression, a full disk and a crash; read by the engine's reader."""

import gzip
import os
from pathlib import Path

import pytest

from minidocker.engine import clock
from minidocker.engine.logs.log_records import LocalRecords, LogQuery
from minidocker.engine.logs.logs import LogReader
from minidocker.runtime import rotating_log
from minidocker.runtime.locallog import LocalLog, record
from minidocker.runtime.rotating_log import LogTarget

# What dockerd 20.10.24 wrote for `echo hello`.
FROM_DOCKERD = bytes.fromhex("000000190a067374646f757410a8c4fdb9d18dbdf5181a0568656c6c6f00000019")


def target(folder: Path, **more: object) -> LogTarget:
    return LogTarget(path=str(folder / "container.log"), driver="local", **more)  # type: ignore[arg-type]


def read(folder: Path, **query: object) -> list[tuple[int, bytes]]:
    with LogReader(folder / "container.log", LogQuery(**query)) as reader:  # type: ignore[arg-type]
        return list(reader.present())


def test_a_record_is_dockers() -> None:
    assert LocalRecords().entry(FROM_DOCKERD[4:-4], LogQuery()) == (1, b"hello\n")
    stamped = LocalRecords().entry(FROM_DOCKERD[4:-4], LogQuery(timestamps=True))
    assert stamped is not None
    moment = clock.nanoseconds_of(stamped[1].split()[0].decode())
    assert record("stdout", moment, b"hello\n") == FROM_DOCKERD


def test_lines_come_back_as_they_were_long_and_unended_ones_too(tmp_path: Path) -> None:
    log = LocalLog(target(tmp_path))
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"\xff\x00 raw\n")
    log.write("stdout", b"o\n" + b"x" * 40_000 + b"\nend")
    log.close()
    whole = read(tmp_path)
    assert b"".join(line for stream, line in whole if stream == 1) == b"one\ntwo\n" + b"x" * 40_000 + b"\nend"
    assert [line for stream, line in whole if stream == 2] == [b"\xff\x00 raw\n"], "bytes are kept as they are"
    assert read(tmp_path, tail=1) == [(1, b"end")]
    assert read(tmp_path, tail=1, stdout=False) == [(2, b"\xff\x00 raw\n")]


def test_times_bound_what_is_read(tmp_path: Path) -> None:
    content = b"".join(record("stdout", second * 10**9, f"{second}\n".encode()) for second in range(1, 6))
    (tmp_path / "container.log").write_bytes(content)
    assert read(tmp_path, since=2 * 10**9, until=4 * 10**9) == [(1, b"2\n"), (1, b"3\n"), (1, b"4\n")]
    assert read(tmp_path, tail=1, timestamps=True) == [(1, b"1970-01-01T00:00:05.000000000Z 5\n")]


def test_files_rotate_are_compressed_and_read_over_their_borders(tmp_path: Path) -> None:
    log = LocalLog(target(tmp_path, max_bytes=3000, max_files=3, compress=True))
    for number in range(400):
        log.write("stdout", b"line %d\n" % number)
    names = sorted(os.listdir(tmp_path))
    assert names == ["container.log", "container.log.1.gz", "container.log.2.gz"]
    assert all(len(gzip.decompress((tmp_path / name).read_bytes())) <= 3000 for name in names[1:])
    lines = [line for _, line in read(tmp_path)]
    assert lines == [b"line %d\n" % number for number in range(400 - len(lines), 400)] and len(lines) > 200
    for tail in (1, 50, 120, len(lines)):
        assert [line for _, line in read(tmp_path, tail=tail)] == lines[-tail:]
    log.close()
    assert sorted(os.listdir(tmp_path)) == names, "nothing unfinished is left"


def test_compression_goes_bit_by_bit_and_a_later_start_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotating_log, "_STEP_BYTES", 1000)
    wanted = target(tmp_path, max_bytes=3000, max_files=2, compress=True)
    log = LocalLog(wanted)
    written = 0
    while not (tmp_path / "container.log.1").exists():
        log.write("stdout", b"line %d\n" % written)
        written += 1
    log.close()
    assert "container.log.1.gz" not in os.listdir(tmp_path), "one write does not compress all of it"
    log = LocalLog(wanted)
    for _ in range(5):
        log.write("stdout", b"more\n")
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["container.log", "container.log.1.gz"]
    assert [line for _, line in read(tmp_path)] == [b"line %d\n" % n for n in range(written)] + [b"more\n"] * 5


def test_the_plain_file_counts_where_a_crash_left_both(tmp_path: Path) -> None:
    one, two = record("stdout", 1, b"one\n"), record("stdout", 2, b"two\n")
    (tmp_path / "container.log").write_bytes(two)
    (tmp_path / "container.log.1").write_bytes(one)
    (tmp_path / "container.log.1.gz").write_bytes(gzip.compress(one))
    assert read(tmp_path) == [(1, b"one\n"), (1, b"two\n")]


def test_a_record_that_a_crash_cut_is_cut_off_at_the_next_start(tmp_path: Path) -> None:
    one, two = record("stdout", 1, b"one\n"), record("stdout", 2, b"two\n")
    (tmp_path / "container.log").write_bytes(one + two[:-3])
    assert read(tmp_path) == [(1, b"one\n")]
    log = LocalLog(target(tmp_path))
    log.write("stdout", b"three\n")
    log.close()
    assert read(tmp_path) == read(tmp_path, tail=9) == [(1, b"one\n"), (1, b"three\n")]


def test_a_record_that_a_full_disk_cut_is_completed_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(target(tmp_path))
    room = [10]

    def write(fd: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        count = real(fd, content[: room[0]])
        room[0] -= count
        return count

    real = os.write
    monkeypatch.setattr(os, "write", write)
    log.write("stdout", b"cut\nlost\n")
    assert log.lost == 2
    monkeypatch.setattr(os, "write", real)
    log.write("stdout", b"next\n")
    log.close()
    assert read(tmp_path) == [(1, b"cut\n"), (1, b"next\n")]


def test_nonsense_is_left_out(tmp_path: Path) -> None:
    good = record("stdout", 1, b"good\n")
    for bad in (b"\x00\x00\x00\x03\xff\xff\xff\x00\x00\x00\x03", b"\x00\x00\x00\x00\x00\x00\x00\x00"):
        (tmp_path / "container.log").write_bytes(good + bad + good)
        assert [line for _, line in read(tmp_path)][::2] in ([b"good\n"], [b"good\n", b"good\n"])
    (tmp_path / "container.log").write_bytes(b"\xff" * 100)
    assert read(tmp_path) == read(tmp_path, tail=3) == []
