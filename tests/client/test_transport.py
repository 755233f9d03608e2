"""HTTP as daemons really speak it."""

from typing import Any

import pytest

from minidocker import errors
from minidocker.client.failures import DaemonError
from minidocker.client.transport import Transport, half_close, query_string, quote

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_connection_is_used_again_when_its_answer_has_been_read(script: Any, plain: Any) -> None:
    for _ in range(3):
        script.answer(plain(b'{"a": 1}'))
    transport = Transport(script.url)
    for _ in range(3):
        assert transport.request("GET", "/x").json() == {"a": 1}
    assert script.connections == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_an_answer_without_a_body_leaves_the_connection_free(head: bytes, script: Any, plain: Any) -> None:
    script.answer(head)
    script.answer(plain())
    transport = Transport(script.url)
    assert transport.request("POST", "/x").read() == b""
    assert transport.request("GET", "/x").json() == {}
    assert script.connections == 1


def test_a_connection_that_the_daemon_closed_meanwhile_is_replaced(script: Any, plain: Any) -> None:
    script.answer(plain(), b"")
    script.answer(plain(b"2"))
    transport = Transport(script.url)
    assert transport.request("POST", "/x").json() == {}
    while transport.idle[0].alive():        # until its end of file has come
        pass
    assert transport.request("POST", "/x").json() == 2
    assert script.connections == 2


def test_a_connection_that_is_not_read_to_its_end_is_not_used_again(script: Any, plain: Any) -> None:
    script.answer(plain(b"[1,2]"))
    script.answer(plain())
    transport = Transport(script.url)
    transport.request("GET", "/x")
    transport.request("GET", "/x").read()
    assert script.connections == 2


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_chunks_may_be_cut_anywhere(cut: int, script: Any) -> None:
    whole = CHUNKED + b"5\r\nhello\r\n1;extension=1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n"
    script.answer(whole[:cut], whole[cut:])
    assert Transport(script.url).request("GET", "/x").read() == b"hello world"


def test_objects_come_one_by_one_even_when_chunks_cut_them(script: Any) -> None:
    text = '{"status":"é"}\r\n{"a":[1,{"b":"}"}]}\n 3'.encode()
    pieces = [b"%x\r\n%b\r\n" % (1, text[index : index + 1]) for index in range(len(text))]
    script.answer(CHUNKED, *pieces, b"0\r\n\r\n")
    assert list(Transport(script.url).request("GET", "/x").objects()) == [{"status": "é"}, {"a": [1, {"b": "}"}]}, 3]


def test_a_stream_that_ends_in_the_middle_of_an_object_is_an_error(script: Any) -> None:
    script.answer(CHUNKED, b'5\r\n{"a":\r\n0\r\n\r\n')
    with pytest.raises(ValueError, match="not JSON"):
        list(Transport(script.url).request("GET", "/x").objects())


@pytest.mark.parametrize("answer", [CHUNKED + b"5\r\nhel", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel"])
def test_a_body_that_is_cut_off_is_an_error(answer: bytes, script: Any) -> None:
    script.answer(answer, b"")
    with pytest.raises(ConnectionError):
        Transport(script.url).request("GET", "/x").read()


@pytest.mark.parametrize(("status", "kind"), [(400, errors.InvalidArgument), (401, errors.Unauthorized),
                                              (403, errors.Forbidden), (404, errors.NotFound),
                                              (409, errors.Conflict), (501, errors.Unsupported),
                                              (503, errors.Unavailable), (500, errors.MinidockerError)])
def test_a_status_becomes_its_kind_with_the_daemons_words(status: int, kind: type[Exception], script: Any,
                                                          plain: Any) -> None:
    script.answer(plain(b'{"message": "no such thing: x"}', f"{status} Oh"))
    with pytest.raises(kind, match=r"^no such thing: x$") as caught:
        Transport(script.url).request("GET", "/x")
    assert isinstance(caught.value, DaemonError)
    assert caught.value.status == status


def test_an_error_page_that_is_not_json_is_shown_as_it_is(script: Any, plain: Any) -> None:
    script.answer(plain(b"<h1>Bad Gateway</h1>", "502 Bad Gateway"))
    with pytest.raises(DaemonError, match="<h1>Bad Gateway</h1>"):
        Transport(script.url).request("GET", "/x")


def test_an_answer_that_is_not_http_is_named(script: Any) -> None:
    script.answer(b"SSH-2.0-OpenSSH\r\n\r\n")
    with pytest.raises(errors.Unavailable, match="does not speak HTTP"):
        Transport(script.url).request("GET", "/x")


def test_a_daemon_that_hangs_up_is_unavailable(script: Any) -> None:
    script.answer(b"")
    with pytest.raises(errors.Unavailable, match="without an answer"):
        Transport(script.url).request("GET", "/x")


def test_nobody_there_says_where_and_what_to_do(tmp_path: Any) -> None:
    with pytest.raises(errors.Unavailable, match=f"(?s)unix://{tmp_path}/no.*minidockerd") as caught:
        Transport(f"unix://{tmp_path}/no").request("GET", "/x")
    assert "Is the daemon running?" in str(caught.value)


@pytest.mark.parametrize("url", ["foo://x", "ssh://x", "x", "unix://", "tcp://"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="unable to parse docker host"):
        Transport(url)


def test_bodies_go_out_as_json_as_bytes_or_in_chunks(script: Any, plain: Any) -> None:
    transport = Transport(script.url)
    for body in ({"a": ["é", None, 1.5, True]}, b"raw", iter([b"ab", b"", b"c" * 17])):
        script.answer(plain())
        transport.request("POST", "/x", body=body).read()
    assert script.requests[0].endswith(b'\r\n\r\n{"a":["\\u00e9",null,1.5,true]}')
    assert b"Content-Type: application/json\r\n" in script.requests[0]
    assert script.requests[1].endswith(b"\r\n\r\nraw")
    assert b"Content-Length: 3\r\n" in script.requests[1]
    assert script.requests[2].endswith(b"\r\n\r\n2\r\nab\r\n11\r\n" + b"c" * 17 + b"\r\n0\r\n\r\n")


def test_a_hijacked_connection_keeps_the_bytes_that_came_with_the_head(script: Any) -> None:
    script.answer(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly", b" late", b"")
    connection = Transport(script.url).request("POST", "/x", hijack=True).take_connection()
    assert b"Upgrade: tcp" in script.requests[0]
    half_close(connection)
    seen = connection.buffer
    while piece := connection.fill():
        seen += piece
    assert seen == b"early late"
    connection.close()


def test_queries_leave_out_what_says_nothing() -> None:
    query = {"a": 1, "b": None, "c": False, "d": True, "e": "", "f": {}, "g": {"x": ["y"]}, "h": ["p", "q"], "i": 0}
    assert query_string(query) == "?a=1&d=1&g=%7B%22x%22:%5B%22y%22%5D%7D&h=p&h=q&i=0"
    assert query_string({}) == ""


def test_foreign_text_is_quoted() -> None:
    assert quote("a b?c#d&e%/é:1@") == "a%20b%3Fc%23d%26e%25/%C3%A9:1@"
