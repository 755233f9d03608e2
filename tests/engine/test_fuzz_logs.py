"""A log file of any content is read: whole lines of ours come out, the rest is left out, the reader never dies."""

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidocker.engine import clock
from minidocker.engine.logs.log_records import LogQuery
from minidocker.engine.logs.logs import LogReader
from minidocker.errors import InvalidArgument

TIMES = st.sampled_from(["2026-01-01T00:00:00.5Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "soon", ""])
GOOD = st.builds(
    lambda text, stream, time: json.dumps({"log": text, "stream": stream, "time": time}).encode(),
    st.text(max_size=20).map(lambda text: text + "\n"), st.sampled_from(["stdout", "stderr", "", "x"]), TIMES,
)  # fmt: skip
BAD = st.binary(max_size=40) | st.sampled_from([
    b'{"log":"\\ud800\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}', b'{"log":"cut', b"\0" * 30, b"[]", b"3",
    b'{"log":5}', b'{"log":"x","time":"\\udfff"}', b'{"x":' + b"[" * 50_000, b"\xff\xfe", b'{"log":null}', b"{}",
])  # fmt: skip
QUERIES = st.builds(
    LogQuery, stdout=st.booleans(), stderr=st.booleans(), timestamps=st.booleans(),
    tail=st.none() | st.integers(0, 5), since=st.none() | st.just(1), until=st.none() | st.just(10**18),
)  # fmt: skip


def read(content: bytes, query: LogQuery, *, older: bytes | None = None) -> list[tuple[int, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c-json.log"
        path.write_bytes(content)
        if older is not None:
            (Path(folder) / "c-json.log.1").write_bytes(older)
        with LogReader(path, query) as reader:
            found = list(reader.present())
            return found + list(reader.more())


@settings(max_examples=700, deadline=None)
@given(st.lists(GOOD | BAD, max_size=6), st.none() | st.lists(GOOD | BAD, max_size=3), QUERIES)
def test_any_log_is_read(lines: list[bytes], older: list[bytes] | None, query: LogQuery) -> None:
    old = None if older is None else b"\n".join(older)
    for stream, payload in read(b"\n".join(lines), query, older=old):
        assert stream in (0, 1, 2) and isinstance(payload, bytes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["stdout", "stderr"])), max_size=6),
       st.lists(BAD.filter(lambda line: b"log" not in line and b"\n" not in line), min_size=1, max_size=3))  # fmt: skip
def test_garbage_between_lines_hides_none_of_them(said: list[tuple[str, str]], garbage: list[bytes]) -> None:
    content = b""
    for index, (text, stream) in enumerate(said):
        content += garbage[index % len(garbage)] + b"\n"
        content += json.dumps({"log": text, "stream": stream, "time": "2026-01-01T00:00:00Z"}).encode() + b"\n"
    expected = [(1 if stream == "stdout" else 2, text.encode()) for text, stream in said]
    found = [entry for entry in read(content, LogQuery()) if entry != (1, b"")]
    assert found == [entry for entry in expected if entry != (1, b"")]


@settings(max_examples=1500, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z"))
@example("9" * 5000)
@example("٣")
def test_any_time_is_read_or_refused(text: str) -> None:
    for read_time in (clock.nanoseconds_of, clock.parse_bound, clock.parse_moment):
        try:
            read_time(text)
        except InvalidArgument:
            pass
