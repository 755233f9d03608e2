"""Frames, detach keys, and where a request's body ends."""

import pytest

from minidocker.daemon.connection import Body
from minidocker.daemon.streams import Deframer, DetachScanner, frame, parse_detach_keys
from minidocker.errors import InvalidArgument


def test_frames_come_out_as_they_went_in_whatever_the_pieces() -> None:
    whole = frame(1, b"out") + frame(2, b"") + frame(2, b"err" * 1000)
    for step in (1, 7, 9000):
        deframer, found = Deframer(), []
        for start in range(0, len(whole), step):
            found += deframer.feed(whole[start : start + step])
        assert found == [(1, b"out"), (2, b""), (2, b"err" * 1000)]


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", b"\x10\x11"), ("ctrl-a", b"\x01"), ("ctrl-@,x", b"\x00x"), ("ctrl-\\,a,ctrl-[", b"\x1ca\x1b")],
)
def test_detach_keys_are_read(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "ctrl-a,,b", "é"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        parse_detach_keys(text)


def test_the_sequence_is_found_over_pieces_and_all_else_passes() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"ab\x10") == (b"ab", False)
    assert scanner.feed(b"c") == (b"\x10c", False)
    assert scanner.feed(b"\x10\x10") == (b"\x10", False)
    assert scanner.feed(b"\x11never") == (b"", True)


def body(headers: str, content: bytes, step: int) -> int:
    """How much of `content` a request with `headers` takes, fed in pieces."""
    counter, taken = Body(f"POST / HTTP/1.1\r\n{headers}\r\n\r\n".encode()), 0
    while not counter.done and taken < len(content):
        count = counter.take(content[taken : taken + step])
        taken += count
    return taken


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_body_ends_where_its_framing_says(step: int) -> None:
    assert body("Content-Length: 5", b"helloNEXT", step) == 5
    chunked = b"4;ext=1\r\nwiki\r\n5\r\npedia\r\n0\r\nTrailer: x\r\n\r\n"
    assert body("Transfer-Encoding: gzip, chunked", chunked + b"NEXT", step) == len(chunked)
    assert body("Host: x", b"NEXT", step) == 0
