"""A wiretap passes everything on, writes it down, breaks lines when told, and lets nobody in without a token."""

import base64
import http.client
import json
import os
import shutil
import threading
from collections.abc import Iterator

import pytest

from minidocker.client.client import Client
from minidocker.errors import MinidockerError
from minidocker.lab import room
from minidocker.lab.props.wiretap import Wiretap
from minidocker.lab.widgets import pull_progress
from minidocker.lab.widgets.pull_progress import PullProgress

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry: apt-get install it"),
]
FILES = {"Dockerfile": "FROM scratch\nCOPY big /\nCOPY small /\n", "small": "x", "big": "0123456789abcdef" * 200_000}
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[str, Client]]:
    """The address of a registry with app:1 in it, and a daemon."""
    made = room.Room()
    registry, daemon = made.registry(), made.daemon(image="")
    folder = made.folder("app", FILES)
    (folder / "big").write_bytes(bytes(i * i % 251 for i in range(1000)) + os.urandom(3_000_000))
    daemon.images.build(str(folder), tag=f"{registry}/app:1")
    daemon.images.push(f"{registry}/app:1")
    daemon.images.remove(f"{registry}/app:1")
    yield registry, daemon
    made.close()


@pytest.fixture
def tap(shop: tuple[str, Client]) -> Iterator[Wiretap]:
    made = Wiretap(shop[0])
    yield made
    made.close()


@pytest.fixture
def reference(shop: tuple[str, Client], tap: Wiretap) -> Iterator[str]:
    """The image as seen through the wiretap; not here before, and gone afterwards."""
    yield f"{tap.address}/app:1"
    for image in shop[1].images.list(all=True):
        shop[1].images.remove(image.id, force=True)


def test_what_goes_over_the_wire_is_written_down(shop: tuple[str, Client], tap: Wiretap, reference: str) -> None:
    shop[1].images.pull(reference)
    heard = tap.take()
    assert [one.path for one in heard[:2]] == ["/v2/", "/v2/app/manifests/1"]
    assert {one.status for one in heard} == {200} and max(one.received for one in heard) > 3_000_000
    assert not tap.take()


def test_a_broken_line_is_gone_on_with(shop: tuple[str, Client], tap: Wiretap, reference: str) -> None:
    tap.cut_blob_at = 2_000_000
    shop[1].images.pull(reference)
    large = [one for one in tap.take() if one.received > 1_000_000]
    assert large[0].note == "the line breaks" and large[1].note.startswith("Range bytes=")
    assert large[0].received == 2_000_000 and large[1].status == 206


def test_an_upload_over_a_broken_line_is_begun_again(shop: tuple[str, Client], tap: Wiretap, reference: str) -> None:
    """What arrives at the registry, in the end, is the whole layer: it gives it back."""
    registry, daemon = shop
    daemon.images.pull(f"{registry}/app:1")
    copy = f"{tap.address}/again"
    daemon.images.get(f"{registry}/app:1").tag(copy, "1")
    tap.cut_upload_at = 2_000_000
    digest = daemon.images.push(f"{copy}:1")
    heard = tap.take()
    (broken,) = [number for number, one in enumerate(heard) if one.note == "the line breaks"]
    assert (heard[broken].sent, heard[broken].status, heard[broken].method) == (2_000_000, 0, "PUT")
    size = max(one.sent for one in heard)
    after = [(one.method, one.status) for one in heard[broken + 1 :] if one.method == "HEAD" or one.sent in (0, size)]
    assert after[:3] == [("HEAD", 404), ("POST", 202), ("PUT", 201)] and size > 3_000_000
    for name in (f"{copy}:1", f"{registry}/app:1"):
        daemon.images.remove(name, force=True)
    assert daemon.images.pull(f"{registry}/again@{digest}")
    assert tap.cut_upload_at is None


def test_without_a_token_nobody_gets_in(shop: tuple[str, Client], reference: str) -> None:
    gate = Wiretap(shop[0], users={"student": "sesame"})
    try:
        with pytest.raises(MinidockerError, match="wrong user or password"):
            shop[1].images.pull(f"{gate.address}/app:1", credentials={"username": "student", "password": "no"})
        gate.take()
        shop[1].images.pull(f"{gate.address}/app:1", credentials={"username": "student", "password": "sesame"})
        heard = gate.take()
        assert [(one.receiver, one.status) for one in heard[:2]] == [("registry", 401), ("token service", 200)]
        assert all("with Bearer" in one.note for one in heard[2:])
        connection = http.client.HTTPConnection(gate.address)
        connection.request("GET", "/v2/", headers={"Authorization": "Basic " + base64.b64encode(b"a:b").decode()})
        answer = connection.getresponse()
        assert answer.status == 401 and json.loads(answer.read())["errors"][0]["code"] == "UNAUTHORIZED"
        connection.close()
    finally:
        gate.close()


def test_a_client_that_tries_tls_is_hung_up_on(tap: Wiretap) -> None:
    import socket
    import ssl

    host, port = tap.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock, pytest.raises(OSError):
        ssl._create_unverified_context().wrap_socket(sock)


def test_a_closed_wiretap_leaves_no_listener(shop: tuple[str, Client]) -> None:
    made = Wiretap(shop[0])
    host, port = made.address.split(":")
    made.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(host, int(port), timeout=5).request("GET", "/")
    assert not [thread for thread in threading.enumerate() if thread.name == "wiretap" and not thread.daemon]


# ---------------------------------------------------------------- the widget that shows a pull


def test_bars_tell_each_layer_in_words_until_it_is_done(shop: tuple[str, Client], reference: str) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    progress = PullProgress(shop[1], reference)
    button, line, rows = progress.widget().children
    assert "not pulled yet" in line.value and not rows.children
    button.click()
    assert "Downloaded newer image" in line.value
    bars = {row.children[0].description: (row.children[0].value, row.children[1].value) for row in rows.children}
    assert len(bars) == 2 and set(bars.values()) == {(100, "Pull complete")}
    assert "Downloading" in {status for _, status in progress.history}
    button.click()
    assert "Image is up to date" in line.value and not rows.children  # of an image that is here no layer is told


def test_bytes_are_told_in_words_and_as_a_part(shop: tuple[str, Client]) -> None:
    progress = PullProgress(shop[1], "x")
    progress.tell({"status": "Downloading", "id": "abc", "progressDetail": {"current": 500_000, "total": 2_000_000}})
    assert (progress.layers["abc"].percent, progress.layers["abc"].words) == (25, "Downloading 0.5 of 2.0 MB")
    progress.tell({"status": "Extracting", "id": "abc", "progressDetail": {}})
    assert "abc      0 %  Extracting" in progress.table()


def test_a_pull_that_fails_says_why(shop: tuple[str, Client], reference: str) -> None:
    progress = PullProgress(shop[1], reference.replace("app", "nothing"))
    progress.run()
    assert progress.summary.startswith("Error: ") and "not found" in progress.summary


def test_without_ipywidgets_it_is_text(
    shop: tuple[str, Client], reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_progress, "ipywidgets", None)
    progress = PullProgress(shop[1], reference)
    assert progress._repr_mimebundle_() == {"text/plain": f"pull {reference}"}
    progress.run()
    assert "Pull complete" in progress._repr_mimebundle_()["text/plain"]
