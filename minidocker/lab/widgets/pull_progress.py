"""A pull as it goes: a bar and words for each layer, from the daemon's progress stream.

Source  Docker Engine API, ImageCreate (progress objects); ipywidgets documentation, "Widget List" (IntProgress).
Rules   - each bar has words that say the same: what is done, and how many bytes of how many.
        - the pull runs in the kernel as long as its button is pressed; nothing goes on by itself.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minidocker.client.client import Client
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.picture import Picture
from minidocker.lab.widgets.shown import ipywidgets, shown

_MEGABYTE = 1e6
_DONE = ("Pull complete", "Already exists", "Pushed", "Layer already exists")
_WHOLE = ("Pulling from", "The push refers to")


@dataclass
class Bar:
    """One layer: the daemon's last word on it, and the bytes of what is under way (None: nothing to count)."""

    status: str
    current: int | None = None
    total: int | None = None

    @property
    def percent(self) -> int:
        """Of the step that is under way; 100 when the layer is done."""
        if self.status.startswith(_DONE):
            return 100
        return 100 * self.current // self.total if self.current and self.total else 0

    @property
    def words(self) -> str:
        """What the bar shows."""
        if self.current is None or not self.total:
            return self.status
        return f"{self.status} {self.current / _MEGABYTE:.1f} of {self.total / _MEGABYTE:.1f} MB"


class PullProgress:
    """Pulls an image when its button is pressed (or `run` is called) and shows each layer's progress.

    client       the daemon that pulls.
    reference    of the image.
    credentials  for its registry, as `images.pull` takes them.
    """

    def __init__(self, client: Client, reference: str, credentials: Mapping[str, str] | None = None) -> None:
        self.client, self.reference, self.credentials = client, reference, credentials
        self.layers: dict[str, Bar] = {}
        self.history: list[tuple[str, str]] = []  # each layer's statuses, without repetitions, as they came
        self.summary = "not pulled yet"
        self._rows: Any = None
        self._line: Any = None
        self._shown: dict[str, tuple[Any, Any]] = {}

    def run(self) -> None:
        """Pull, and show it as it goes. What goes wrong is shown in words."""
        self.layers, self.history, self._shown = {}, [], {}
        self.summary = f"pulling {self.reference}"
        if self._rows is not None:
            self._rows.children = ()
        self._say()
        try:
            self.client.images.pull(self.reference, credentials=self.credentials, progress=self.tell)
        except MinidockerError as error:
            self.summary = f"Error: {error}"
        self._say()

    def tell(self, step: Mapping[str, object]) -> None:
        """One object of a progress stream, of a pull or of a push."""
        status, id = str(step.get("status", "")), str(step.get("id", ""))
        if not status:
            return
        if not id or status.startswith(_WHOLE):
            self.summary = status
            self._say()
            return
        detail = step.get("progressDetail")
        counted = detail if isinstance(detail, Mapping) else {}
        self.layers[id] = Bar(status, counted.get("current"), counted.get("total"))
        if not self.history or (id, status) not in self.history:
            self.history.append((id, status))
        self._draw(id)

    def table(self) -> str:
        """The layers as plain text."""
        rows = tuple((id, f"{bar.percent:3} %", bar.words) for id, bar in self.layers.items())
        return Picture("", "", ("layer", "done", "what"), rows).table()

    # -- as a widget --

    def widget(self) -> Any:
        """A button, a line for the whole, and a bar with words for each layer; None without ipywidgets."""
        if ipywidgets is None:
            return None
        button = ipywidgets.Button(description="pull", tooltip=f"pull {self.reference}")
        self._line = ipywidgets.HTML()
        self._rows = ipywidgets.VBox()
        self._shown = {}
        button.on_click(lambda _button: self.run())
        self._say()
        for id in self.layers:
            self._draw(id)
        return ipywidgets.VBox([button, self._line, self._rows])

    def _say(self) -> None:
        if self._line is not None:
            self._line.value = f'<span role="status">{html.escape(self.summary)}</span>'

    def _draw(self, id: str) -> None:
        if self._rows is None:
            return
        if id not in self._shown:
            bar = ipywidgets.IntProgress(min=0, max=100, description=id, layout={"width": "60%"})
            bar.style.description_width = "8em"
            words = ipywidgets.HTML()
            self._shown[id] = (bar, words)
            self._rows.children = (*self._rows.children, ipywidgets.HBox([bar, words]))
        bar, words = self._shown[id]
        layer = self.layers[id]
        bar.value, bar.bar_style = layer.percent, "success" if layer.status.startswith(_DONE) else ""
        words.value = html.escape(layer.words)

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        text = f"{self.reference}: {self.summary}\n\n{self.table()}" if self.layers else f"pull {self.reference}"
        return shown(self.widget(), {"text/plain": text}, options)
