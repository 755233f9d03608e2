"""A sequence chart says what was recorded: who, what, and the answer, in the picture, in words and as a table."""

import shutil

import pytest

from minidocker.lab.diagrams.requests import Request, request_sequence

HEX = "0123456789abcdef" * 4
UPLOAD = f"/v2/app/blobs/uploads/x?_state={HEX * 2}&digest=sha256:{HEX}"
RECORDED = [
    Request("client", "daemon", "POST", "/images/create?fromImage=app", 200, 0, 1500),
    Request("daemon", "registry", "HEAD", f"/v2/app/blobs/sha256:{HEX}", 404),
    Request("daemon", "registry", "PUT", UPLOAD, 201, 2_340_000),
    Request("daemon", "token service", "GET", "/token", 0, note="with Basic"),
]  # fmt: skip


def test_each_request_is_a_row_with_its_answer_in_words() -> None:
    picture = request_sequence(RECORDED, "an exchange")
    assert picture.rows[1] == (
        "2", "daemon to registry", "HEAD", "/v2/app/blobs/sha256:0123456789ab", "", "404 Not Found", "", ""
    )  # fmt: skip
    assert picture.rows[2][3:6] == ("/v2/app/blobs/uploads/x?digest=sha256:0123456789ab", "2.34 MB", "201 Created")
    assert picture.rows[3][5:] == ("0: no answer", "", "with Basic")
    assert picture.alt == (
        "an exchange: 4 requests (1 POST, 1 HEAD, 1 PUT, 1 GET), 2.34 MB moved, 2 answered 4xx, 5xx or not at all"
    )


def test_everyone_has_a_lifeline_in_the_order_of_appearance_or_as_asked() -> None:
    def order(dot: str) -> list[str]:
        names = ("client", "daemon", "registry", "token service")
        places = {line.split('"')[1]: float(line.split('pos="')[1].split(",")[0]) for line in dot.splitlines()
                  if line.startswith('"') and line.split('"')[1] in names and "pos=" in line}  # fmt: skip
        return sorted(places, key=lambda name: places[name])

    assert order(request_sequence(RECORDED).dot) == ["client", "daemon", "registry", "token service"]
    asked = request_sequence(RECORDED, parties=["registry", "daemon"]).dot
    assert order(asked) == ["registry", "daemon", "client", "token service"]


def test_errors_are_marked_by_a_box_and_not_only_by_colour() -> None:
    dot = request_sequence(RECORDED).dot
    boxed = [line for line in dot.splitlines() if 'shape="box"' in line]
    assert len(boxed) == 2 and "404 Not Found" in boxed[0] and "no answer" in boxed[1]


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot: apt-get install graphviz")
def test_the_chart_is_drawn_with_the_first_request_on_top() -> None:
    svg = request_sequence(RECORDED).svg()
    assert svg is not None
    heights = [
        float(svg.split(words)[0].rpartition(' y="')[2].split('"')[0]) for words in ("POST /images", "GET /token")
    ]
    assert heights[0] < heights[1]


def test_of_nothing_there_is_no_chart() -> None:
    with pytest.raises(ValueError, match="no request was recorded"):
        request_sequence([])
