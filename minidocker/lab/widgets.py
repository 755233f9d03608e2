"""Widgets of the lessons: predictions, and a process tree that lives.

Source  ipywidgets documentation ("Widget List", "Widget Events"); WCAG 2.2, 1.4.1 (use of colour) and 2.1.1 (keyboard).
Rules   - everything works by keyboard and says in words what it means; where ipywidgets is absent, plain text is shown.
        - a widget starts no thread and no process of its own: it looks again when it is asked to.
"""

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

from minidocker.lab.diagrams import Picture

try:
    import ipywidgets
except ImportError:  # the lessons then work with `prediction.say("...")`
    ipywidgets = None


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
        return _shown(self.widget(), {"text/plain": text}, options)


class Refreshed:
    """A picture with a button that draws it again from the state of that moment.

    draw   makes the picture; what it raises is shown as text, and the button stays.
    label  what the button says.
    """

    def __init__(self, draw: Callable[[], Picture], label: str = "look again") -> None:
        self.draw, self.label = draw, label
        self.looks = 0

    def look(self) -> dict[str, str]:
        """Draw once more; the picture as a mime bundle ("text/plain" always, "text/html" where it can be drawn)."""
        self.looks += 1
        try:
            bundle = self.draw()._repr_mimebundle_()
        except (OSError, ValueError) as error:
            bundle = {"text/plain": f"nothing to see: {error}"}
        return bundle

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        first = self.look()
        if ipywidgets is None:
            return first
        button = ipywidgets.Button(description=self.label, tooltip="draw the picture from the present state")
        button.layout.width = "max-content"
        area = ipywidgets.HTML(self._html(first))

        def look_again(_button: object) -> None:
            area.value = self._html(self.look())

        button.on_click(look_again)
        return _shown(ipywidgets.VBox([button, area]), first, options)

    def _html(self, bundle: dict[str, str]) -> str:
        content = bundle.get("text/html", f"<pre>{html.escape(bundle['text/plain'])}</pre>")
        return f"{content}<p>look number {self.looks}</p>"


def _with_code(text: str) -> str:
    """HTML of a text in which `backquotes` mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _shown(widget: Any, otherwise: dict[str, str], options: dict[str, object]) -> dict[str, Any]:
    """The widget's mime bundle; `otherwise` is what a reader without a kernel sees instead of it."""
    return otherwise if widget is None else dict(widget._repr_mimebundle_(**options)) | otherwise


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask before the kernel answers: shown as buttons at the end of a cell."""
    return Prediction(question, options)
