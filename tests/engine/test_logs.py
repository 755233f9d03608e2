"""Reading json-file logs: from the end, over rotations, with times."""

import json
import os
from pathlib import Path

import pytest

from minidocker.engine import clock
from minidocker.engine.logs.log_records import BLOCK_BYTES, LogQuery, lines_backwards
from minidocker.engine.logs.logs import LogReader
from minidocker.errors import InvalidArgument


def line(text: str, second: int = 0, stream: str = "stdout") -> bytes:
    return json.dumps({"log": text + "\n", "stream": stream, "time": clock.text_of(second * 10**9)}).encode() + b"\n"


def texts(reader: LogReader) -> list[str]:
    return [payload.decode().rstrip("\n") for _, payload in reader.present()]


def test_lines_come_backwards_whatever_the_blocks_cut(tmp_path: Path) -> None:
    lines = [b"x" * (BLOCK_BYTES // 3 + n) + str(n).encode() for n in range(20)]
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with path.open("rb") as file:
        assert list(lines_backwards(file.fileno(), path.stat().st_size)) == lines[::-1]


@pytest.mark.parametrize("tail", [0, 1, 3, 7, 9, 50])
def test_tail_counts_over_rotated_files(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "c-json.log"
    (tmp_path / "c-json.log.2").write_bytes(b"".join(line(str(n)) for n in range(3)))
    (tmp_path / "c-json.log.1").write_bytes(b"".join(line(str(n)) for n in range(3, 6)))
    path.write_bytes(b"".join(line(str(n)) for n in range(6, 9)))
    with LogReader(path, LogQuery(tail=tail)) as reader:
        assert texts(reader) == [str(n) for n in range(9)][9 - min(tail, 9) :]


def test_tail_reads_only_the_end_of_a_large_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # a hole: reading it all would take long and find no line
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(line(str(n)) for n in range(20)))
    with LogReader(path, LogQuery(tail=10)) as reader:
        assert texts(reader) == [str(n) for n in range(10, 20)]


def test_streams_times_and_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("a", 1) + line("b", 2, "stderr") + line("c", 3) + b'{"log":"cut')
    with LogReader(path, LogQuery(stderr=False)) as reader:
        assert texts(reader) == ["a", "c"]
    with LogReader(path, LogQuery(since=2 * 10**9)) as reader:
        assert texts(reader) == ["b", "c"]
    with LogReader(path, LogQuery(until=2 * 10**9)) as reader:
        assert texts(reader) == ["a", "b"]
    with LogReader(path, LogQuery(timestamps=True, tail=1)) as reader:
        assert texts(reader) == ["1970-01-01T00:00:03Z c"]


def test_a_follower_reads_files_that_were_handed_over_though_no_name_leads_to_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("0"))
    handed: list[int | None] = []
    with LogReader(path, LogQuery()) as reader:
        assert texts(reader) == ["0"]
        with path.open("ab") as file:
            file.write(line("1"))
        for number in range(2, 9):
            path.unlink()
            path.write_bytes(line(str(number)))
            handed.append(os.open(path, os.O_RDONLY))
        reader.hand(handed)
        reader.hand([os.open(path, os.O_RDONLY)])  # known already
        assert [payload for _, payload in reader.more()] == [b"%d\n" % number for number in range(1, 9)]
        assert list(reader.more()) == []


def test_a_follower_that_missed_some_gets_every_line_over_several_rotations(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("0"))
    with LogReader(path, LogQuery()) as reader:
        assert texts(reader) == ["0"]
        with path.open("ab") as file:
            file.write(line("1"))
        path.rename(tmp_path / "log.1")
        path.write_bytes(line("2"))
        (tmp_path / "log.1").rename(tmp_path / "log.2")
        path.rename(tmp_path / "log.1")
        path.write_bytes(line("3"))
        reader.hand([None])
        assert [payload for _, payload in reader.more()] == [b"1\n", b"2\n", b"3\n"]
        assert list(reader.more()) == []


def test_a_line_in_two_pieces_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = line("split")
    path.write_bytes(whole[:10])
    with LogReader(path, LogQuery()) as reader:
        assert texts(reader) == []
        with path.open("ab") as file:
            file.write(whole[10:])
        assert [payload for _, payload in reader.more()] == [b"split\n"]


def test_times_are_read_as_docker_writes_them() -> None:
    assert clock.nanoseconds_of("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert clock.nanoseconds_of("1970-01-01T02:00:00+02:00") == 0
    assert clock.text_of(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert clock.parse_bound("12.000000003") == 12_000_000_003
    assert clock.parse_bound("") is None
    with pytest.raises(InvalidArgument):
        clock.nanoseconds_of("yesterday")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
     (150, "2 minutes"), (3600, "About an hour"), (7300, "2 hours"),
     (3 * 86400, "3 days"), (20 * 86400, "2 weeks"), (800 * 86400, "2 years")],
)  # fmt: skip
def test_ages_are_rough(seconds: float, words: str) -> None:
    assert clock.age(seconds) == words
