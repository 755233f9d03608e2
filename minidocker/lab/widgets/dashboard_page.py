"""The dashboard as widgets: tabs, a list to choose from, buttons, and curves.

Source  ipywidgets documentation, "Widget List"; WCAG 2.2, 2.1.1 (keyboard) and 4.1.3 (status messages).
"""

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidocker.lab.widgets.shown import ipywidgets

if TYPE_CHECKING:
    from minidocker.lab.widgets.dashboard import Dashboard


class Page:
    """The dashboard's widgets, joined to its methods."""

    def __init__(self, dashboard: "Dashboard") -> None:
        self.dashboard = dashboard
        # No list to scroll in: JupyterLab keeps the arrow keys of those for itself.
        self.choice = ipywidgets.ToggleButtons(options=[], description="container")
        self.choice.style.button_width = "auto"
        self.command = ipywidgets.Text(value="ps", description="command", continuous_update=False)
        self.words, self.table, self.output, self.plot = (ipywidgets.HTML() for _ in range(4))
        self.others = {kind: ipywidgets.HTML() for kind in ("images", "volumes", "networks")}
        self.look_again = self._button("look again", "read everything anew", self.draw_all)
        self.watching = ipywidgets.ToggleButton(value=False, description="watch", tooltip="read anew each second")
        self.watching.observe(self._toggle, names="value")
        self.choice.observe(lambda _change: self.draw(), names="value")
        first = ipywidgets.VBox([
            self._row([self.look_again, self.watching]), self.choice,
            self._row([self._verb(verb) for verb in dashboard.verbs]),
            self._row([
                self._button("logs", f"its last {dashboard.log_lines} lines", self._logs),
                self.command,
                self._button("run it inside", "run the command in the container", self._execute),
            ]),
            self.words, self.output, self.table, self.plot,
        ])  # fmt: skip
        self.box = ipywidgets.Tab(
            [first, *self.others.values()], titles=["Containers", "Images", "Volumes", "Networks"]
        )
        self.draw_all()

    @property
    def name(self) -> str:
        return str(self.choice.value or "")

    @staticmethod
    def _row(widgets: list[Any]) -> Any:
        return ipywidgets.HBox(widgets, layout=ipywidgets.Layout(flex_flow="row wrap"))

    @staticmethod
    def _button(name: str, tip: str, act: Callable[[], None]) -> Any:
        button = ipywidgets.Button(description=name, tooltip=tip)
        button.layout.width = "max-content"
        button.on_click(lambda _button: act())
        return button

    def _verb(self, verb: str) -> Any:
        def act() -> None:
            self.dashboard.act(verb, self.name)
            self.draw_all()

        return self._button(verb, f"{verb} the chosen container", act)

    def _logs(self) -> None:
        self._show(self.dashboard.logs(self.name))

    def _execute(self) -> None:
        self._show(self.dashboard.execute(self.name, self.command.value))

    def _show(self, text: str) -> None:
        self.output.value = f"<pre>{html.escape(text)}</pre>"

    def _toggle(self, change: dict[str, Any]) -> None:
        self.watching.description = "stop watching" if change["new"] else "watch"
        if change["new"]:
            self.dashboard.watch(self.draw, lambda: setattr(self.watching, "value", False))
        else:
            self.dashboard.close()

    def draw_all(self) -> None:
        """Everything anew; called by buttons, from the kernel's own thread."""
        self.dashboard.look()
        self.draw()
        for kind, area in self.others.items():
            area.value = self.dashboard.table(kind).html_table()

    def draw(self) -> None:
        """The list, the words and the curves of the chosen container."""
        if self.box_is_closed():
            self.dashboard.close()
            return
        names = list(self.dashboard.containers())
        if list(self.choice.options) != names:
            chosen = self.choice.value
            self.choice.options = names
            self.choice.value = chosen if chosen in names else names[0] if names else None
        self.words.value = f'<span role="status">{html.escape(self.dashboard.said)}</span>'
        self.table.value = self.dashboard.table().html_table()
        self.plot.value = self.dashboard.plot(self.name)._repr_mimebundle_()["text/html"] if self.name else ""

    def box_is_closed(self) -> bool:
        """Whether the widget was closed (before it is made it is not)."""
        box = getattr(self, "box", None)
        return box is not None and box.comm is None
