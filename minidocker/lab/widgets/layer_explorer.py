"""An image's layers, to walk through: what each adds, changes and removes, and what became of a name.

Source  OCI image-spec, layer.md; ipywidgets documentation, "Widget List" (Select).
Rules   - JupyterLab takes the arrow keys of a list for itself (it moves to the next cell): so what a list does can be
          done by buttons as well: Tab moves to them, Enter presses them.
        - each thing that is shown is a method too, for readers without ipywidgets.
"""

import html
from collections.abc import Iterable
from typing import Any

from minidocker.lab.diagrams.picture import OWN, Picture, count, quoted
from minidocker.lab.props.image_layers import (
    ADDS,
    AGAIN,
    CHANGES,
    EMPTIES,
    REMOVES,
    Entry,
    ImageLayer,
    layers_of,
    story,
)
from minidocker.lab.widgets.shown import ipywidgets, shown

_MARKS = {ADDS: "+", CHANGES: "~", REMOVES: "-", EMPTIES: "x", AGAIN: "="}
_LONGEST_STEP = 60
_NAMES_SHOWN = 500


class LayerExplorer:
    """The layers of one image, from `client.images.save([name])`. `layers`: base first."""

    def __init__(self, pieces: Iterable[bytes], name: str) -> None:
        self.name = name
        self.layers = layers_of(pieces, name)

    def entries(self, number: int, contains: str = "") -> list[Entry]:
        """What layer `number` (the base is 1) does, to names that contain a text; directories named again come last."""
        found = [entry for entry in self.layers[number - 1].entries if contains in entry.path]
        return sorted(found, key=lambda entry: entry.act == AGAIN)

    def listing(self, number: int, contains: str = "") -> str:
        """The same as lines of text."""
        return "\n".join(_line(entry) for entry in self.entries(number, contains)) or "nothing"

    def story(self, path: str) -> list[str]:
        """What became of one name, layer by layer."""
        return story(self.layers, path)

    def picture(self) -> Picture:
        """The layers in the order in which they are stacked, with what each does."""
        lines, rows = [], []
        for layer in self.layers:
            words = (f"layer {layer.number}", f"{layer.size / 1e6:.1f} MB", *_counts(layer))
            lines.append(f'l{layer.number} [label={quoted(*words)} fillcolor="{OWN}"]')
            if layer.number > 1:
                lines.append(f"l{layer.number - 1} -> l{layer.number}")
            acts = (str(layer.count(act)) for act in (ADDS, CHANGES, REMOVES, EMPTIES))
            rows.append((str(layer.number), f"{layer.size}", *acts, _short(layer.step)))
        total = sum(layer.size for layer in self.layers)
        alt = f"the image {self.name}: {count(len(self.layers), 'layer')}, base first, {total / 1e6:.1f} MB in all"
        columns = ("layer", "bytes", ADDS, CHANGES, REMOVES, EMPTIES, "made by")
        return Picture("\n".join(lines), alt, columns, tuple(rows))

    # ------------------------------------------------------------ the widget

    def widget(self) -> Any:
        """Two lists, a filter and words; None without ipywidgets."""
        if ipywidgets is None:
            return None
        layers = ipywidgets.ToggleButtons(
            options=[(self._option(layer), layer.number) for layer in reversed(self.layers)], description="layer"
        )
        layers.style.button_width = "auto"
        contains = ipywidgets.Text(description="name has", placeholder="part of a name", continuous_update=False)
        names = ipywidgets.Select(options=[], rows=8, description="entry")
        names.layout.width = "46em"
        words = ipywidgets.HTML()
        steps = [ipywidgets.Button(description=f"{which} entry") for which in ("previous", "next")]

        def list_entries(_change: object = None) -> None:
            found = self.entries(layers.value, contains.value)
            names.options = [(_line(entry), entry.path) for entry in found[:_NAMES_SHOWN]]
            names.value = found[0].path if found else None
            tell()

        def tell(_change: object = None) -> None:
            layer = self.layers[layers.value - 1]
            made = f"<p>layer {layer.number}: {html.escape(', '.join(_counts(layer)))}"
            made += f"; made by <code>{html.escape(_short(layer.step))}</code></p>" if layer.step else "</p>"
            items = "".join(f"<li>{html.escape(line)}</li>" for line in self.story(names.value or ""))
            told = f"<p><code>{html.escape(names.value)}</code></p><ol>{items}</ol>" if names.value else ""
            words.value = f'<div role="status">{made}{told}</div>'

        def move(by: int) -> None:
            if names.index is not None:
                names.index = min(max(names.index + by, 0), len(names.options) - 1)

        for button, by in zip(steps, (-1, 1), strict=True):
            button.on_click(lambda _button, by=by: move(by))
        layers.observe(list_entries, names="value")
        contains.observe(list_entries, names="value")
        names.observe(tell, names="value")
        list_entries()
        picture = ipywidgets.HTML(self.picture()._repr_mimebundle_().get("text/html", ""))
        return ipywidgets.VBox([picture, layers, contains, names, ipywidgets.HBox(steps), words])

    def _option(self, layer: ImageLayer) -> str:
        place = " (base)" if layer.number == 1 else " (top)" if layer.number == len(self.layers) else ""
        return f"{layer.number}{place}"

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        bundle = self.picture()._repr_mimebundle_()
        top = len(self.layers)
        bundle["text/plain"] += f"\n\nlayer {top}:\n{self.listing(top)}"
        return shown(self.widget(), bundle, options)


def _line(entry: Entry) -> str:
    """One entry: a mark and a word for what is done, the name, the size."""
    size = f"  {entry.size} bytes" if entry.size else ""
    return f"{_MARKS[entry.act]} {entry.act} {entry.path}{size}"


def _counts(layer: ImageLayer) -> list[str]:
    told = [f"{act} {layer.count(act)}" for act in (ADDS, CHANGES, REMOVES, EMPTIES) if layer.count(act)]
    return told or ["changes nothing"]


def _short(step: str) -> str:
    return step if len(step) <= _LONGEST_STEP else step[: _LONGEST_STEP - 3] + "..."
