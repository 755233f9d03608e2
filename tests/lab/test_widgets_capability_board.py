"""The board's probes are tried for real: each succeeds exactly with the capabilities that it names."""

from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.client import connect
from minidocker.lab import session
from minidocker.lab.widgets import capability_board
from minidocker.lab.widgets.capability_board import NAMES, PRESETS, PROBES, CapabilityBoard
from minidocker.linux.capabilities import DEFAULT, mask

pytestmark = pytest.mark.needs_daemon


@pytest.fixture
def board() -> Iterator[CapabilityBoard]:
    labels = session.begin(connect())
    yield CapabilityBoard(connect(), labels)
    assert not connect().containers.list(all=True, filters={"label": [f"{key}={labels[key]}" for key in labels]})


def _succeeded(board: CapabilityBoard) -> set[str]:
    return {one.probe.name for one in board.results if one.succeeded}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: "+".join(probe.needs))
def test_a_probe_succeeds_with_its_capabilities_and_with_no_others(board: CapabilityBoard, probe: Any) -> None:
    board.try_with(probe.needs)
    assert _succeeded(board) == {probe.name}
    assert board.effective == mask(f"CAP_{name}" for name in probe.needs)


def test_half_of_what_a_probe_needs_is_not_enough(board: CapabilityBoard) -> None:
    board.try_with(["SETUID"])
    assert not _succeeded(board) and board.said == "0 of 12 succeed; the kernel says CapEff 0000000000000080"


def test_the_presets_are_what_they_say(board: CapabilityBoard) -> None:
    assert len(PROBES) == 12 and set(PRESETS["all of these"]) == set(NAMES)
    assert {f"CAP_{name}" for name in PRESETS["the default"]} == {f"CAP_{name}" for name in NAMES} & set(DEFAULT)
    board.try_with(PRESETS["all of these"])
    assert len(_succeeded(board)) == 12


def test_what_is_ticked_is_what_the_container_gets(board: CapabilityBoard) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    (none, default, everything, button), grid, words, table = (
        getattr(part, "children", part) if number == 0 else part
        for number, part in enumerate(board.widget().children)
    )
    boxes = {box.description: box for box in grid.children}
    default.click()
    assert {name for name, box in boxes.items() if box.value} == set(PRESETS["the default"])
    none.click()
    boxes["MKNOD"].value = True
    button.click()
    assert words.value == '<span role="status">1 of 12 succeed; the kernel says CapEff 0000000008000000</span>'
    assert table.value.count("<b>succeeds</b>") == 1 and table.value.count("refused: ") == 11
    everything.click()
    assert all(box.value for box in boxes.values())


def test_a_daemon_that_refuses_is_told_in_words(board: CapabilityBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    monkeypatch.setattr(capability_board, "IMAGE", "127.0.0.1:1/none")
    bar, _, words, _ = board.widget().children
    bar.children[-1].click()
    assert "not tried: " in words.value


def test_without_ipywidgets_the_board_is_text(board: CapabilityBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability_board, "ipywidgets", None)
    assert board._repr_mimebundle_() == {"text/plain": "tick capabilities, then try"}
    board.try_with(["CHOWN"])
    assert board.table() in board._repr_mimebundle_()["text/plain"]
