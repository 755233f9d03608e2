"""The multiplexed stream."""

from hypothesis import given
from hypothesis import strategies as st

from minidocker.client.frames import Demultiplexer

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=6)


@given(FRAMES, st.lists(st.integers(1, 30), min_size=1))
def test_frames_may_be_cut_anywhere(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    raw = b"".join(bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload for stream, payload in frames)
    demultiplexer = Demultiplexer()
    seen: dict[int, bytes] = {1: b"", 2: b""}
    position = turn = 0
    while position < len(raw):
        size = cuts[turn % len(cuts)]
        for stream, payload in demultiplexer.feed(raw[position : position + size]):
            seen[stream] += payload
        position += size
        turn += 1
    for stream in (1, 2):
        assert seen[stream] == b"".join(payload for of, payload in frames if of == stream)
