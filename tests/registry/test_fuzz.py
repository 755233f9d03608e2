"""Strangers' headers: challenges, credentials, Retry-After, Content-Range of any shape are read or refused."""

import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidocker.errors import InvalidArgument
from minidocker.registry import credentials
from minidocker.registry.auth import Challenge, parse_challenges
from minidocker.registry.retry import retry_after_seconds

TOKEN = st.text(st.sampled_from("abcXYZ019-_"), min_size=1, max_size=8).filter(lambda text: text[0].isalpha())
QUOTED = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=12)


def written(challenge: Challenge, gap: str) -> str:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return f"{challenge.scheme}{gap}" + f",{gap}".join(f"{k}={quote(v)}" for k, v in challenge.parameters.items())


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.builds(Challenge, TOKEN.map(str.lower), st.dictionaries(TOKEN.map(str.lower), QUOTED, min_size=1,
                                                                            max_size=3)), max_size=3),
       st.sampled_from([" ", "  ", " \t"]), st.booleans())  # fmt: skip
def test_what_a_registry_writes_by_the_book_is_read(challenges: list[Challenge], gap: str, together: bool) -> None:
    headers = [written(challenge, gap) for challenge in challenges]
    assert parse_challenges([", ".join(headers)] if together else headers) == challenges


@settings(max_examples=3000, deadline=None)
@given(st.lists(st.text(st.sampled_from('Bearer realm="\\,= \tx;:/'), max_size=60) | st.text(max_size=40), max_size=3))
@example(["Bearer realm=" + '"\\' * 5000])
@example(["Basic    =x"])
def test_any_challenge_is_read_or_left_out(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme and challenge.scheme == challenge.scheme.lower()


def test_a_long_malformed_challenge_costs_no_time() -> None:
    """16 KiB, what a header may hold at most, of what makes a careless pattern try every split."""
    began = time.thread_time()
    for piece in (" ", ",", " ,", "a ", "a=", 'a="', "\\", "a,", "= "):
        parse_challenges([piece * (16384 // len(piece)) + "!"])
        parse_challenges(["Bearer " + piece * (16384 // len(piece)) + "!"])
    assert time.thread_time() - began < 1


@settings(max_examples=2000, deadline=None)
@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: credentials.base64.b64encode(raw).decode()))
@example("e30=")
@example(credentials.base64.b64encode(b"[" * 50000).decode())
@example(credentials.base64.b64encode(b'{"username":"\\ud800"}').decode())
@example(credentials.base64.b64encode(b'{"auth":"x"}').decode())
def test_any_auth_header_is_credentials_or_refused(text: str) -> None:
    try:
        found = credentials.from_header(text)
        assert found.basic is None or len(found.basic) == 2
    except InvalidArgument as error:
        assert len(str(error)) < 200
    try:
        credentials.all_from_header(text)
    except InvalidArgument:
        pass


@settings(max_examples=2000, deadline=None)
@given(
    st.text(max_size=40) | st.integers().map(str) | st.datetimes().map(lambda when: when.strftime("%a, %d %b %Y %T"))
)
@example("9" * 5000)
@example("Thu, 01 Jan 99999 00:00:00 GMT")
def test_any_retry_after_is_a_time_or_nothing(text: str) -> None:
    found = retry_after_seconds(text)
    assert found is None or found >= 0
