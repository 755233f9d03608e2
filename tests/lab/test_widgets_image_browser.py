"""The browser of an archive's blobs, by its fields and buttons and without ipywidgets."""

from typing import Any

import pytest

from minidocker.lab.props.image_archive import ImageArchive, layer_of
from minidocker.lab.widgets import image_browser
from minidocker.lab.widgets.image_browser import ImageBrowser, browse


@pytest.fixture
def archive() -> ImageArchive:
    made = ImageArchive()
    made.add_image("one", [layer_of({"etc/motd": b"hello"})], config={"Cmd": ["<sh>"]})
    return made


def test_each_blob_is_shown_with_its_digest_computed_anew(archive: ImageArchive) -> None:
    browser = browse(archive)
    config, layer = browser.links()
    assert "They agree." in browser.text()
    assert '"Cmd"' in browser.choose(config).text() and browser.links() == []
    assert "etc/motd" in browser.choose(layer).text()
    assert browser.choose("index.json").links() == [archive.index["manifests"][0]["digest"]]


def test_a_changed_byte_is_noticed_and_the_archive_stays_as_it_is(archive: ImageArchive) -> None:
    before = archive.copy()
    browser = browse(archive)
    for digest in list(browser.blobs):
        assert "THEY DIFFER" in browser.choose(digest).change_a_byte(True).text()
        assert "They agree" in browser.change_a_byte(False).text()
    assert archive == before


def test_a_blob_that_is_not_there_is_refused(archive: ImageArchive) -> None:
    with pytest.raises(LookupError, match="no blob sha256:0"):
        browse(archive).choose("sha256:0")


def _parts(browser: ImageBrowser) -> Any:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    return browser.widget().children


def test_the_buttons_follow_the_descriptors(archive: ImageArchive) -> None:
    browser = browse(archive)
    blobs, _change, verdict, links, content = _parts(browser)
    to_config, to_layer = links.children
    assert to_config.description.startswith("go to config") and to_config.tooltip in archive.blobs
    to_config.click()
    assert blobs.value == browser.chosen == to_config.tooltip and links.children == ()
    assert "&lt;sh&gt;" in content.value and "They agree" in verdict.value
    blobs.value = to_layer.tooltip
    assert "etc/motd" in content.value


def test_the_box_changes_one_bit(archive: ImageArchive) -> None:
    _blobs, change, verdict, _links, content = _parts(browse(archive))
    change.value = True
    assert "THEY DIFFER" in verdict.value
    change.value = False
    assert "They agree" in verdict.value and "config" in content.value


def test_without_ipywidgets_the_blobs_are_listed_as_text(
    archive: ImageArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_browser, "ipywidgets", None)
    bundle = browse(archive)._repr_mimebundle_()
    assert set(bundle) == {"text/plain"}
    assert bundle["text/plain"].splitlines()[0] == "  index.json" and "They agree." in bundle["text/plain"]
