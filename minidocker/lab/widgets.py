"""Widgets of the lessons: predictions, and a process tree that lives.

Source  ipywidgets documentation ("Widget List", "Widget Events"); WCAG 2.2, 1.4.1 (use of colour) and 2.1.1 (keyboard).
Rules   - everything works by keyboard and says in words what it means; where ipywidgets is absent, plain text is shown.
        - a widget starts no thread and no process of its own: it looks again when it is asked to.
"""

import html
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
        self._buttons: Any = None

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

    def _chosen(self, change: dict[str, Any]) -> None:
        self.answer = change["new"]

    def widget(self) -> Any:
        """The buttons, made at first use; None without ipywidgets."""
        if self._buttons is None and ipywidgets is not None:
            self._buttons = ipywidgets.ToggleButtons(
                options=list(self.options), value=None, tooltips=[f"predict: {option}" for option in self.options]
            )
            self._buttons.style.button_width = "auto"
            self._buttons.observe(self._chosen, names="value")
            label = ipywidgets.HTML(f"<b>Predict.</b> {html.escape(self.question)}")
            return ipywidgets.VBox([label, self._buttons])
        return self._buttons

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        text = f"Predict. {self.question}\n  " + "  |  ".join(self.options)
        shown = self.widget()
        if shown is None:
            return {"text/plain": text}
        bundle: dict[str, Any] = dict(shown._repr_mimebundle_(**options))
        return bundle | {"text/plain": text}


class Refreshed:
    """A picture with a button that draws it again from the state of that moment.

    draw   makes the picture; what it raises is shown as text, and the button stays.
    label  what the button says.
    """

    def __init__(self, draw: Callable[[], Picture], label: str = "look again") -> None:
        self.draw, self.label = draw, label
        self.looks = 0
        self._area: Any = None

    def look(self) -> str:
        """Draw once more and return the text form."""
        self.looks += 1
        try:
            picture = self.draw()
        except (OSError, ValueError) as error:
            text = f"nothing to see: {error}"
            self._show(f"<p>{html.escape(text)}</p>")
            return text
        bundle = picture._repr_mimebundle_()
        self._show(bundle.get("text/html", f"<pre>{html.escape(bundle['text/plain'])}</pre>"))
        return f"{picture.alt}\n\n{picture.table()}"

    def _show(self, content: str) -> None:
        if self._area is not None:
            self._area.value = f"{content}<p>look number {self.looks}</p>"

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        if ipywidgets is None:
            return {"text/plain": self.look()}
        button = ipywidgets.Button(description=self.label, tooltip="draw the picture from the present state")
        self._area = ipywidgets.HTML()
        button.on_click(lambda _button: self.look())
        text = self.look()
        box = ipywidgets.VBox([button, self._area])
        bundle: dict[str, Any] = dict(box._repr_mimebundle_(**options))
        return bundle | {"text/plain": text}


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Ask before the kernel answers: shown as buttons at the end of a cell."""
    return Prediction(question, options)
