"""What is foretold of a build is what happens, or is said to be unknown: the daemon's decisions are the judge."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.client.client import Client
from minidocker.errors import InvalidArgument, NotFound
from minidocker.lab import room
from minidocker.lab.diagrams.builds import read_build
from minidocker.lab.props.foresight import UNKNOWN, foresee

pytestmark = pytest.mark.needs_root
ALL_KINDS = """\
ARG BASE=busybox
FROM $BASE AS one
MAINTAINER somebody
ENV A=1 B="x y"
ARG V=3
LABEL q=$V
WORKDIR /srv
WORKDIR deeper
COPY --chmod=600 app.txt dir ./
RUN echo $V > /count
SHELL ["/bin/sh", "-ec"]
RUN ["true"]
RUN <<EOF
echo in a document
EOF
FROM one
USER root
EXPOSE 80 90/udp
COPY --from=one --chown=0:0 /count /count
CMD ["cat", "/count"]
ENTRYPOINT sh
VOLUME /x
STOPSIGNAL TERM
HEALTHCHECK CMD true
ONBUILD RUN true
"""
FILES = {"Dockerfile": ALL_KINDS, "app.txt": "x", "dir/f": "1"}


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[room.Room, Client]]:
    made = room.Room()
    yield made, made.daemon()
    made.close()


def _foretold_and_happened(client: Client, folder: Path) -> tuple[list[str], list[str]]:
    foretold = [step.verdict for step in foresee(client, folder)]
    told: list[Any] = []
    client.images.build(str(folder), explain=True, progress=told.append)
    happened = [step.verdict for step in read_build(told)]
    assert len(foretold) == len(happened)
    return foretold, happened


def _agree(foretold: list[str], happened: list[str]) -> bool:
    return all(one in (other, UNKNOWN) for one, other in zip(foretold, happened, strict=True))


def test_every_instruction_is_foretold_as_it_happens(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    folder = made.folder("kinds", FILES)
    first, second = _foretold_and_happened(client, folder), _foretold_and_happened(client, folder)
    assert first[0] == first[1] and "hit" not in first[0]
    assert second[0] == second[1] and "miss" not in second[0]


@pytest.mark.parametrize(
    ("change", "first_miss"),
    [
        ({"app.txt": "y"}, 9),
        ({"dir/f": "2"}, 9),
        ({"Dockerfile": ALL_KINDS.replace("V=3", "V=4")}, 5),
        ({"Dockerfile": ALL_KINDS.replace("in a document", "in another")}, 13),
        ({"Dockerfile": ALL_KINDS.replace("EXPOSE 80", "EXPOSE 81")}, 16),
        ({"Dockerfile": ALL_KINDS.replace("TERM", "INT")}, 21),
    ],
)
def test_a_change_is_foretold_where_it_takes_effect(
    shop: tuple[room.Room, Client], change: dict[str, str], first_miss: int
) -> None:
    made, client = shop
    folder = made.folder("kinds", FILES)
    client.images.build(str(folder))
    made.folder("kinds", change)
    foretold, happened = _foretold_and_happened(client, folder)
    assert _agree(foretold, happened)
    assert foretold.index("miss") + 1 == happened.index("miss") + 1 == first_miss


def test_files_of_a_stage_that_is_made_anew_are_not_guessed_at(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    text = "FROM busybox AS one\nCOPY a /a\nRUN wc -c < /a > /n\nFROM busybox\nCOPY --from=one /n /n\nENV Z=1\n"
    folder = made.folder("stages", {"Dockerfile": text, "a": "same"})
    client.images.build(str(folder))
    made.folder("stages", {"a": "size"})  # another content that gives the same result
    foretold, happened = _foretold_and_happened(client, folder)
    assert foretold == ["start", "miss", "miss", "start", UNKNOWN, UNKNOWN]
    assert happened == ["start", "miss", "miss", "start", "hit", "hit"]


def test_a_wrong_dockerfile_and_a_missing_file_are_errors(shop: tuple[room.Room, Client]) -> None:
    made, client = shop
    with pytest.raises(InvalidArgument, match="line 2: unknown instruction: COPPY"):
        foresee(client, made.folder("wrong", {"Dockerfile": "FROM scratch\nCOPPY a b\n"}))
    with pytest.raises(NotFound):
        foresee(client, made.folder("missing", {"Dockerfile": "FROM scratch\nCOPY a b\n"}))
