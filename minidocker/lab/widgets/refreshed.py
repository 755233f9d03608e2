"""A picture that can be drawn again.

Source  ipywidgets documentation, "Widget Events".
"""

import html
from collections.abc import Callable
from typing import Any

from minidocker.lab.diagrams.picture import Picture
from minidocker.lab.widgets.shown import ipywidgets, shown


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
        return shown(ipywidgets.VBox([button, area]), first, options)

    def _html(self, bundle: dict[str, str]) -> str:
        content = bundle.get("text/html", f"<pre>{html.escape(bundle['text/plain'])}</pre>")
        return f"{content}<p>look number {self.looks}</p>"
