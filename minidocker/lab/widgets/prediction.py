"""A question that is asked before the kernel answers it.

Source  ipywidgets documentation ("Widget List", "Widget Events").
"""

import html
import re
from collections.abc import Sequence
from typing import Any

from minidocker.lab.widgets.shown import ipywidgets, shown


class Prediction:
    """A question asked before the kernel answers it.

    Answer by the buttons, or in code: `prediction.say("no")`. The next cell measures and calls `check(measured)`.
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        self.question, self.options = question, tuple(options)
        self.answer: str | None = None

    def say(self, answer: str) -> "Prediction":
        """Answer without a widget. Raises ValueError: not one of the options."""
        if answer not in self.options:
            raise ValueError(f"{answer!r} is not among the options: {', '.join(self.options)}")
        self.answer = answer
        return self

    def check(self, measured: str) -> None:
        """Say whether the prediction was right; `measured` is what the kernel said, one of the options.

        Raises  ValueError: the lesson measured something that was not among the options.
        """
        if measured not in self.options:
            raise ValueError(f"measured {measured!r}, which is not among the options: {', '.join(self.options)}")
        if self.answer is None:
            print(f"The kernel says: {measured}. (You made no prediction; next time choose before you run.)")
        elif self.answer == measured:
            print(f"Right: {measured}.")
        else:
            print(f"You said {self.answer}; the kernel says: {measured}. Find out why before you go on.")

    def widget(self) -> Any:
        """Question, buttons and a line that repeats the choice in words; None without ipywidgets."""
        if ipywidgets is None:
            return None
        question = ipywidgets.HTML(f"<b>Predict.</b> {_with_code(self.question)}")
        buttons = ipywidgets.ToggleButtons(
            options=list(self.options), value=self.answer, tooltips=[f"predict: {option}" for option in self.options]
        )
        buttons.style.button_width = "auto"
        chosen = ipywidgets.HTML("Choose, then run the next cell.")

        def choose(change: dict[str, Any]) -> None:
            self.answer = change["new"]
            chosen.value = f"You predict: <b>{html.escape(change['new'])}</b>. Now run the next cell."

        buttons.observe(choose, names="value")
        return ipywidgets.VBox([question, buttons, chosen])

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        text = f"Predict. {self.question}\n  " + "  |  ".join(self.options)
        return shown(self.widget(), {"text/plain": text}, options)


def _with_code(text: str) -> str:
    """HTML of a text in which `backquotes` mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask before the kernel answers: shown as buttons at the end of a cell."""
    return Prediction(question, options)
