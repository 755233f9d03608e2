"""The path explorer's word agrees with a real ping for every pair, and its lists and button work."""

import uuid
from collections.abc import Iterator

import pytest

from minidocker.client import connect
from minidocker.client.container_body import ContainerOptions
from minidocker.client.containers import Container
from minidocker.lab.diagrams.networks import look
from minidocker.lab.widgets import path_explorer
from minidocker.lab.widgets.path_explorer import GATEWAY, OUTSIDE, PathExplorer

ipywidgets = pytest.importorskip("ipywidgets", reason="needs the notebooks: pip install minidocker[notebooks]")


pytestmark = pytest.mark.needs_daemon


@pytest.fixture(scope="module")
def containers() -> Iterator[dict[str, Container]]:
    client, tag = connect(), uuid.uuid4().hex[:8]
    networks = {
        "front": client.networks.create(f"test-f-{tag}"),
        "back": client.networks.create(f"test-b-{tag}", internal=True),
    }
    made: dict[str, Container] = {}
    try:
        for name, network in (("web", "front"), ("db", "back"), ("plain", "bridge"), ("none", "none")):
            place = networks[network].name if network in networks else network
            options: ContainerOptions = {"network": place, "name": f"{name}-{tag}"}
            made[name] = client.containers.run("busybox", ["sleep", "600"], detach=True, **options)
        yield made
    finally:
        for container in made.values():
            container.remove(force=True)
        for one in networks.values():
            one.remove()


def test_the_verdict_agrees_with_a_ping_for_every_pair(containers: dict[str, Container]) -> None:
    paths = PathExplorer(list(containers.values()))
    for source in paths.names:
        for target in [*paths.names, GATEWAY]:
            verdict = paths.verdict(source, target)
            assert "They agree." in verdict or ("not tried" in verdict and target.startswith("none")), verdict
        assert "not tried" in paths.verdict(source, OUTSIDE)


def test_a_plug_that_comes_changes_the_way(containers: dict[str, Container]) -> None:
    names = {name: str(container.attrs["Name"]).lstrip("/") for name, container in containers.items()}
    paths = PathExplorer(list(containers.values()))
    assert "does not get through" in paths.verdict(names["web"], names["db"])
    assert "by its address only" in paths.naming(names["web"], names["db"])
    network = connect().networks.get(look(containers["db"]).networks[0])
    network.connect(containers["web"])
    try:
        assert "it gets through; a real ping: answered" in paths.verdict(names["web"], names["db"])
        assert paths.naming(names["web"], names["db"]).startswith("by name")
    finally:
        network.disconnect(containers["web"])


def test_lists_and_button_show_the_way_of_that_moment(containers: dict[str, Container]) -> None:
    paths = PathExplorer(list(containers.values()))
    row, area = paths.widget().children
    source, target, button = row.children
    source.value, target.value = paths.names[2], GATEWAY
    assert "it gets through" in area.value and "img alt=" in area.value
    source.value = paths.names[3]
    assert "STOPS HERE" in area.value
    area.value = ""
    button.click()
    assert "STOPS HERE" in area.value


def test_without_ipywidgets_the_way_is_text(containers: dict[str, Container], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_explorer, "ipywidgets", None)
    bundle = PathExplorer([containers["web"], containers["plain"]])._repr_mimebundle_()
    assert "a real ping" in bundle["text/plain"] and "application/vnd.jupyter.widget-view+json" not in bundle


def test_a_container_that_has_ended_is_told_not_raised(containers: dict[str, Container]) -> None:
    client = connect()
    gone = client.containers.run("busybox", ["sleep", "600"], detach=True)
    paths = PathExplorer([containers["web"], gone])
    row, area = paths.widget().children
    gone.remove(force=True)
    row.children[2].click()
    assert "nothing to see" in area.value
