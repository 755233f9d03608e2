"""Strangers' bytes in front of HTTP: however they are cut, and whatever they are, nothing is lost, added or dies."""

import asyncio
from typing import cast

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from minidocker.daemon.connection import Body, Connection
from minidocker.daemon.streams import Deframer, DetachScanner, frame, parse_detach_keys
from minidocker.errors import InvalidArgument

CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


class Http(asyncio.Protocol):
    """Stands for aiohttp: remembers what it was given."""

    def __init__(self) -> None:
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data


class Line:
    """Stands for the transport."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    found, position, turn = [], 0, 0
    while position < len(content):
        found.append(content[position : position + cuts[turn % len(cuts)]])
        position += cuts[turn % len(cuts)]
        turn += 1
    return found


def passed(content: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """What aiohttp got, and what is held for a stream, when `content` comes in pieces."""
    http = Http()
    connection = Connection(http)
    connection.connection_made(cast(asyncio.Transport, Line()))
    for piece in pieces(content, cuts):
        connection.data_received(piece)
    return http.seen, b"".join(connection._queue)


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


PLAIN = st.tuples(st.sampled_from([b"GET /_ping", b"POST /containers/create", b"GET /info"]), st.binary(max_size=30))
REQUEST = st.builds(
    lambda start, parts, coded: (
        start
        + b" HTTP/1.1\r\nHost: d\r\n"
        + (b"Transfer-Encoding: chunked\r\n\r\n" + chunked(parts) if coded else
           b"Content-Length: %d\r\n\r\n" % len(b"".join(parts)) + b"".join(parts))
    ),
    st.sampled_from([b"GET /_ping", b"POST /containers/create?name=x", b"PUT /containers/a/archive"]),
    st.lists(st.binary(max_size=30), max_size=3),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(REQUEST, max_size=4), CUTS)
def test_requests_reach_http_unchanged_however_they_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    content = b"".join(requests)
    assert passed(content, cuts) == (content, b"")


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=3), st.booleans(), st.binary(max_size=60), CUTS,
       st.sampled_from([b"POST /v1.41/exec/abc/start", b"POST /containers/abc/attach?stream=1"]))  # fmt: skip
def test_what_follows_the_body_of_an_upgrade_is_held(
    parts: list[bytes], coded: bool, stdin: bytes, cuts: list[int], start: bytes
) -> None:
    body = chunked(parts) if coded else b"".join(parts)
    length = b"Transfer-Encoding: chunked" if coded else b"Content-Length: %d" % len(body)
    seen, held = passed(start + b" HTTP/1.1\r\n" + length + b"\r\n\r\n" + body + stdin, cuts)
    assert held == stdin
    assert seen.endswith(body) and b"/v1.41" not in seen


def test_an_upgrade_that_is_refused_before_its_body_came_holds_nothing_back() -> None:
    http = Http()
    connection = Connection(http)
    connection.connection_made(cast(asyncio.Transport, Line()))
    connection.data_received(b"POST /exec/nope/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
    connection.release()  # the handler has answered: there is no such exec
    connection.data_received(b"{}")
    connection.data_received(b"GET /_ping HTTP/1.1\r\n\r\n")
    assert http.seen.endswith(b"{}GET /_ping HTTP/1.1\r\n\r\n")


@settings(max_examples=3000, deadline=None)
@given(st.binary(max_size=200) | st.text(st.sampled_from("POST /v1.41exec/start HTTP\r\n:0-5;contelghTrasfEidk"),
                                         max_size=200).map(str.encode), CUTS)  # fmt: skip
@example(b"POST /x HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx", [40])
@example(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n0\r\n\r\n", [3])
@example(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\n", [40])
@example(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5_0\r\nabc", [40])
@example(b"GET / HTTP/1.1\nHost: d\n\n", [40])
def test_garbage_is_passed_on_or_held_and_never_kills_the_connection(content: bytes, cuts: list[int]) -> None:
    whole, whole_held = passed(content, [1 << 20])
    seen, held = passed(content, cuts)
    assert len(held) + len(seen) <= len(content) + 64
    assume(b"\n\n" not in content and b"\n\r\n" not in content)
    assert seen == whole == b"" or (seen, held) == (whole, whole_held)


def test_a_head_that_ends_by_bare_newlines_is_not_waited_after() -> None:
    assert passed(b"GET /info HTTP/1.1\nHost: d\n\n", [5])[0] == b"GET /info HTTP/1.1\nHost: d\n\n"


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=120), CUTS)
def test_a_body_never_takes_more_than_there_is(content: bytes, cuts: list[int]) -> None:
    for head in (b"Content-Length: 30\r\n", b"Transfer-Encoding: chunked\r\n"):
        body = Body(b"POST / HTTP/1.1\r\n" + head + b"\r\n")
        for piece in pieces(content, cuts):
            assert 0 <= body.take(piece) <= len(piece)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40)), max_size=6), CUTS)
def test_frames_may_be_cut_anywhere(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    deframer = Deframer()
    raw = b"".join(frame(stream, payload) for stream, payload in frames)
    assert [found for piece in pieces(raw, cuts) for found in deframer.feed(piece)] == frames


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=100), CUTS)
def test_garbage_instead_of_frames_is_taken_in(content: bytes, cuts: list[int]) -> None:
    deframer = Deframer()
    for piece in pieces(content, cuts):
        for _, payload in deframer.feed(piece):
            assert payload in content


@settings(max_examples=1500, deadline=None)
@given(st.text(st.sampled_from("ctrl-pq,@[]^_ aZé"), max_size=30))
def test_any_detach_keys_are_read_or_refused(text: str) -> None:
    try:
        keys = parse_detach_keys(text)
    except InvalidArgument:
        return
    assert keys


@settings(max_examples=1500, deadline=None)
@given(st.binary(min_size=1, max_size=3), st.lists(st.sampled_from([b"\x10", b"\x11", b"a", b"b"]), max_size=30), CUTS)
def test_typed_bytes_pass_until_the_whole_sequence_came(keys: bytes, typed: list[bytes], cuts: list[int]) -> None:
    """As if all had been typed at once: the cuts change nothing, and what comes before the keys is passed on."""
    content = b"".join(typed)

    def scan(parts: list[bytes]) -> tuple[bytes, bool]:
        scanner, out = DetachScanner(keys), b""
        for part in parts:
            more, detached = scanner.feed(part)
            out += more
            if detached:
                return out, True
        return out, False

    assert scan(pieces(content, cuts)) == scan([content])
    out, detached = scan([content])
    assert content.startswith(out)
    if detached:
        assert content.startswith(out + keys)
    else:
        assert keys not in content or len(keys) > 1
