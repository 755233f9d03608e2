"""Predictions and refreshed pictures, with the buttons and without ipywidgets."""

from collections.abc import Iterator
from typing import Any

import pytest

from minidocker.lab import widgets
from minidocker.lab.diagrams import Picture
from minidocker.lab.widgets import prediction, refreshed

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without ipywidgets."""
    for module in (prediction, refreshed):
        monkeypatch.setattr(module, "ipywidgets", None)


@pytest.fixture
def asked() -> widgets.Prediction:
    return widgets.predict("Is `sleep` <there>?", ["yes", "no"])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("yes", "Right: yes."),
        ("no", "You said no; the kernel says: yes."),
        (None, "The kernel says: yes. (You made no"),
    ],
)
def test_the_kernel_has_the_last_word(
    asked: widgets.Prediction, answer: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if answer:
        asked.say(answer)
    asked.check("yes")
    assert capsys.readouterr().out.startswith(words)


def test_an_answer_and_a_measurement_must_be_among_the_options(asked: widgets.Prediction) -> None:
    with pytest.raises(ValueError, match="'maybe' is not among the options: yes, no"):
        asked.say("maybe")
    with pytest.raises(ValueError, match="measured 'maybe'"):
        asked.check("maybe")


def test_without_ipywidgets_the_question_is_text(plain: None, asked: widgets.Prediction) -> None:
    assert asked._repr_mimebundle_() == {"text/plain": "Predict. Is `sleep` <there>?\n  yes  |  no"}


def test_a_button_chooses_and_says_so_in_words(asked: widgets.Prediction) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    question, buttons, chosen = asked.widget().children
    assert question.value == "<b>Predict.</b> Is <code>sleep</code> &lt;there&gt;?"
    buttons.value = "no"
    assert asked.answer == "no" and "You predict: <b>no</b>" in chosen.value
    assert buttons.tooltips == ("predict: yes", "predict: no")
    assert asked.widget().children[1].value == "no"  # shown again, the choice is still there
    assert set(asked._repr_mimebundle_()) >= {WIDGET, "text/plain"}


def _pictures() -> Iterator[Any]:
    yield lambda: Picture("a", "first look", ("name",), (("a",),))
    yield lambda: Picture("b", "second look", ("name",), (("b",),))
    while True:
        yield None


def _refreshed() -> widgets.Refreshed:
    states = _pictures()

    def draw() -> Picture:
        picture = next(states)
        if picture is None:
            raise ValueError("there is no process 5")
        return picture()  # type: ignore[no-any-return]

    return widgets.Refreshed(draw)


def test_without_ipywidgets_a_picture_is_drawn_each_time_it_is_shown(plain: None) -> None:
    tree = _refreshed()
    looks = [tree._repr_mimebundle_()["text/plain"].splitlines()[0] for _ in range(3)]
    assert looks == ["first look", "second look", "nothing to see: there is no process 5"]


def test_the_button_draws_the_picture_again() -> None:
    ipywidgets = pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install minidocker[notebooks]")
    boxes: list[Any] = []
    plain_box = ipywidgets.VBox
    tree = _refreshed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ipywidgets, "VBox", lambda children: boxes.append(plain_box(children)) or boxes[-1])  # type: ignore[func-returns-value]
        bundle = tree._repr_mimebundle_()
    button, area = boxes[0].children
    assert "first look" in area.value and "look number 1" in area.value and "first look" in bundle["text/plain"]
    button.click()
    assert "second look" in area.value and "look number 2" in area.value
    button.click()
    assert "nothing to see: there is no process 5" in area.value
