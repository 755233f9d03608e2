"""The fate of a file is what containers really show, and an experiment leaves nothing behind."""

from collections.abc import Iterator

import pytest

from minidocker.client.client import Client
from minidocker.errors import MinidockerError
from minidocker.lab import room
from minidocker.lab.widgets import file_fate
from minidocker.lab.widgets.file_fate import BIND, KINDS, LAYER, TMPFS, USERS, VOLUME, FileFate

pytestmark = pytest.mark.needs_daemon
ipywidgets = pytest.importorskip("ipywidgets", reason="needs the notebooks: pip install minidocker[notebooks]")


@pytest.fixture(scope="module")
def place() -> Iterator[room.Room]:
    made = room.Room()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(place: room.Room) -> Client:
    return place.daemon()


@pytest.fixture
def fate(place: room.Room, client: Client) -> Iterator[FileFate]:
    yield FileFate(client, place.folder("fate"))
    assert not client.containers.list(all=True) and not client.volumes.list()
    assert [image.tags for image in client.images.list()] == [["busybox:latest"]]
    assert not list(place.folder("fate").iterdir())


def test_each_place_has_its_own_fate(fate: FileFate) -> None:
    questions = ("write it", "restart", "new container", "commit")
    found = {kind: [fate.run(kind).answer(question) for question in questions] for kind in KINDS}
    assert found == {
        LAYER: ["yes", "yes", "no", "yes"],
        VOLUME: ["yes", "yes", "yes", "no"],
        BIND: ["yes", "yes", "yes", "no"],
        TMPFS: ["yes", "no", "no", "no"],
    }
    assert fate.run(BIND).answer("who owns") == "user 0"


def test_read_only_places_and_other_peoples_directories_refuse(fate: FileFate) -> None:
    for kind in KINDS:
        assert fate.run(kind, read_only=True).told[0][1:] == ("no", fate.last.told[0][2] if fate.last else "")
        assert fate.last is not None and "Read-only file system" in fate.last.told[0][2]
    assert "Permission denied" in fate.run(VOLUME, "user 1000").told[0][2]
    with pytest.raises(ValueError, match="kinds"):
        fate.run("the moon")
    with pytest.raises(KeyError):
        fate.run(TMPFS).answer("who owns")


def test_the_button_writes_a_file_as_chosen(fate: FileFate) -> None:
    row, area = fate.widget().children
    kind, user, read_only, button = row.children
    assert tuple(kind.options) == KINDS and list(user.options) == list(USERS)
    kind.value = TMPFS
    button.click()
    assert "IS IT" not in area.value and "is it there after a restart: no" in area.value and not button.disabled
    read_only.value = True
    button.click()
    assert "can root write it: no" in area.value


def test_a_failure_is_told_and_the_button_stays(fate: FileFate, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MinidockerError("the daemon has gone")

    monkeypatch.setattr(fate, "run", fail)
    row, area = fate.widget().children
    row.children[3].click()
    assert "the daemon has gone" in area.value and not row.children[3].disabled


def test_without_ipywidgets_it_is_text(fate: FileFate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_fate, "ipywidgets", None)
    assert fate._repr_mimebundle_() == {"text/plain": "no file was written yet"}
    fate.run(LAYER)
    bundle = fate._repr_mimebundle_()
    assert "is it in an image made by commit: yes" in bundle["text/plain"] and "img alt=" in bundle["text/html"]
