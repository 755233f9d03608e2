"""Plugins without HTTP: where they are found, how often they are asked, what becomes of their answers."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker.engine import plugins
from minidocker.engine.plugins import Address, Directories, Limits, Plugins, TimedOut, Unreachable
from minidocker.engine.volumes.volume_drivers import VolumeDrivers
from minidocker.errors import InvalidArgument, MinidockerError, NotFound


class Fake:
    """A transport: answers by method; an exception is raised."""

    def __init__(self, **answers: object) -> None:
        self.answers: dict[str, object] = {"Activate": {"Implements": ["VolumeDriver"]}, **answers}
        self.calls: list[tuple[str, object, float]] = []
        self.absent = 0  # so many calls find nobody

    async def __call__(self, address: Address, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        method = path.rpartition(".")[2]
        self.calls.append((method, json.loads(body or b"null"), seconds))
        if self.absent:
            self.absent -= 1
            raise Unreachable("nobody")
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            return answer
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.calls]


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[Directories]:
    """One plugin, `cell`, with a socket."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run/cell.sock"))
        yield Directories(tmp_path / "run", (tmp_path / "etc", tmp_path / "lib"))


def made(directories: Directories, transport: Fake, **limits: float) -> tuple[Plugins, VolumeDrivers]:
    found = Plugins(transport, directories, Limits(**limits) if limits else Limits())
    return found, VolumeDrivers(found)


def test_a_socket_counts_before_a_spec_and_that_before_json(directories: Directories, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    for name in ("cell", "other"):
        (etc / f"{name}.spec").write_text("tcp://127.0.0.1:1\n")
        (etc / f"{name}.json").write_text('{"Name": "x", "Addr": "tcp://127.0.0.1:2"}')
    (tmp_path / "lib/deep").mkdir(parents=True)
    (tmp_path / "lib/deep/deep.json").write_text('{"Addr": "https://h:3", "TLSConfig": {"CAFile": "/ca"}}')
    assert plugins.find(directories, "cell").url == f"unix://{tmp_path}/run/cell.sock"
    assert plugins.find(directories, "other").url == "tcp://127.0.0.1:1"
    deep = plugins.find(directories, "deep")
    assert deep.tls is not None and (deep.url, deep.tls.authority, deep.tls.insecure) == ("https://h:3", "/ca", False)
    assert plugins.names(directories) == ["cell", "deep", "other"]


@pytest.mark.parametrize("name", ["", ".", "..", "../run/cell", "a/b", "x" * 300, "cell\0"])
def test_a_name_is_never_a_path(directories: Directories, name: str) -> None:
    with pytest.raises(NotFound):
        plugins.find(directories, name)


def test_it_is_asked_once_what_it_implements_and_again_when_another_listens(
    directories: Directories, tmp_path: Path
) -> None:
    transport = Fake(Create={}, Remove={})
    found, drivers = made(directories, transport)
    asyncio.run(drivers.create("cell", "one", None))
    asyncio.run(drivers.remove("cell", "one"))
    assert transport.methods() == ["Activate", "Create", "Remove"]
    assert transport.calls[1] == ("Create", {"Name": "one", "Opts": None}, 120.0)
    assert transport.calls[2] == ("Remove", {"Name": "one"}, 60.0)
    assert found.active("VolumeDriver") == ["cell"]
    (tmp_path / "run/cell.sock").rename(tmp_path / "run/old")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run/cell.sock"))
        transport.answers["Activate"] = {"Implements": ["NetworkDriver"]}
        with pytest.raises(InvalidArgument, match="does not implement"):
            asyncio.run(drivers.remove("cell", "one"))
    (tmp_path / "run/cell.sock").unlink()
    assert found.active("NetworkDriver") == []


def test_a_call_that_reached_nobody_is_tried_again_and_no_other(
    directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    transport = Fake(Create={}, Remove=TimedOut("slow"))
    transport.absent = 4
    _, drivers = made(directories, transport)
    asyncio.run(drivers.create("cell", "one", {}))
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    pauses.clear()
    with pytest.raises(TimedOut):
        asyncio.run(drivers.remove("cell", "one"))
    assert transport.methods().count("Remove") == 1
    transport.absent = 100
    with pytest.raises(Unreachable):
        asyncio.run(made(directories, transport, retry=7.0)[1].create("cell", "one", {}))
    assert pauses == [1.0, 2.0, 4.0]


def test_lists_and_searches_do_not_wait_for_who_is_gone_or_silent(directories: Directories) -> None:
    transport = Fake(List=TimedOut("slow"))
    found, drivers = made(directories, transport, search=0.5)
    with pytest.raises(TimedOut):
        asyncio.run(drivers.all("cell"))
    assert transport.calls[-1][2] == 0.5
    assert found.silent("cell")
    asyncio.run(found.all())
    assert asyncio.run(found.implementing("VolumeDriver")) == []
    transport.answers["List"] = {"Volumes": None}
    assert asyncio.run(drivers.all("cell")) == []
    assert not found.silent("cell")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"Err": "the disk is lost"}, "^the disk is lost$"),
        ((500, b'{"Err": "inside"}'), "^VolumeDriver.Mount: inside$"),
        ((404, b"no such page\n"), "^VolumeDriver.Mount: no such page$"),
        ((500, b""), "^VolumeDriver.Mount: status 500$"),
        (b"[" * 100_000, "no JSON of it"),
        (b"{", "no JSON of it"),
        (b"null", "no JSON of it"),
        ({"Mountpoint": 5}, "no JSON of it"),
        ({"Mountpoint": "../x"}, "must be an absolute path"),
        ({}, "must be an absolute path"),
        (b"", "must be an absolute path"),
        ({"Mountpoint": "/x\0y"}, "must be an absolute path"),
    ],
)
def test_what_it_answers_is_checked(directories: Directories, answer: object, words: str) -> None:
    _, drivers = made(directories, Fake(Mount=answer))
    with pytest.raises(MinidockerError, match=words):
        asyncio.run(drivers.mount("cell", "one", "id"))


def test_the_scope_is_local_unless_it_says_global(directories: Directories) -> None:
    for answer, scope in (
        ({"Capabilities": {"Scope": "GLOBAL"}}, "global"),
        ({"Capabilities": {"Scope": "strange"}}, "local"),
        ({}, "local"),
        ((404, b"page not found"), "local"),
    ):
        assert asyncio.run(made(directories, Fake(Capabilities=answer))[1].scope("cell")) == scope


def test_limits_keep_dockers_proportions() -> None:
    assert Limits.within(60) == Limits()
    assert Limits.within(2) == Limits(short=2, long=4, retry=1, search=2)
