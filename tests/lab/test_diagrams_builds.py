"""The build graph says what the daemon's cache has decided."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client.client import Client
from minidocker.client.resource import member
from minidocker.errors import MinidockerError
from minidocker.lab import room
from minidocker.lab.diagrams.builds import build_graph, read_build

pytestmark = pytest.mark.needs_root
TWO_STAGES = """\
ARG BASE=scratch
FROM $BASE AS first
COPY one /one
ENV A=1
FROM scratch
COPY --from=first /one /two
LABEL last="x"
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[room.Room, Client]]:
    made = room.Room()
    yield made, made.daemon(image="")
    made.close()


def _told(client: Client, folder: Path) -> list[Any]:
    told: list[Any] = []
    client.images.build(str(folder), explain=True, progress=told.append)
    return told


def test_each_step_has_the_verdict_and_the_image_that_the_daemon_named(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    folder = made.folder("two", {"Dockerfile": TWO_STAGES, "one": "1"})
    first, again = read_build(_told(client, folder)), read_build(_told(client, folder))
    assert [step.verdict for step in first] == ["start", "start", "miss", "miss", "start", "miss", "miss"]
    assert [step.verdict for step in again] == ["start", "start", "hit", "hit", "start", "hit", "hit"]
    assert [step.stage for step in first] == [-1, 0, 0, 0, 1, 1, 1]
    for step, cached in zip(first, again, strict=True):
        assert step.image == cached.image
    assert member(client.images.get(first[-1].image).attrs, "Config", "Labels") == {"last": "x"}


def test_a_change_is_named_as_the_reason_and_what_follows_as_its_consequence(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    folder = made.folder("change", {"Dockerfile": "FROM scratch\nENV B=1\nCOPY f /f\nENV C=1\n", "f": "1"})
    _told(client, folder)
    made.folder("change", {"f": "2"})
    picture = build_graph(_told(client, folder), "after a change")
    assert [row[2] for row in picture.rows] == ["", "HIT", "MISS", "MISS"]
    assert picture.rows[2][3] == "what is copied has changed" and picture.rows[3][3] == "a step before it was made anew"
    assert picture.alt == (
        "after a change: 4 steps, 1 taken from the cache, 2 made anew; "
        "the first of these is step 3: what is copied has changed"
    )
    assert "MISS: what is copied has changed" in picture.dot  # a word, not only a colour


def test_stages_are_framed_and_what_is_copied_between_them_is_an_edge(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    folder = made.folder("two", {"Dockerfile": TWO_STAGES, "one": "1"})
    dot = build_graph(_told(client, folder)).dot
    assert 'label="stage first"' in dot and 'label="stage 1"' in dot and 'label="before the first stage"' in dot
    assert dot.count('label="files"') == 1 and "s4 -> s6" in dot


def test_a_failed_step_is_told_from_one_that_was_made(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    folder = made.folder("failing", {"Dockerfile": "FROM scratch\nENV D=1\nCOPY f /f\nRUN nothing\n", "f": "1"})
    told: list[Any] = []
    with pytest.raises(MinidockerError):
        client.images.build(str(folder), explain=True, progress=told.append)
    assert [step.verdict for step in read_build(told)] == ["start", "miss", "miss", "failed"]
    assert build_graph(told).alt.endswith("; step 4 failed")


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot: apt-get install graphviz")
def test_the_graph_can_be_drawn(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    folder = made.folder("two", {"Dockerfile": TWO_STAGES, "one": "1"})
    svg = build_graph(_told(client, folder)).svg()
    assert svg is not None and "COPY one /one" in svg


def test_of_nothing_there_is_no_graph() -> None:
    with pytest.raises(ValueError, match="nothing was built"):
        build_graph([{"stream": "hello"}])
