"""A container's life by buttons: each is one command of the OCI runtime, and after each one looks at what is there.

Source  OCI runtime-spec, runtime.md; ipywidgets documentation, "Widget Events".
Rules   - every button can be pressed at any time: what the specification forbids, the runtime refuses, and says why.
        - what is shown is read after the command: state.json, /proc, and the runtime's own `state`.
"""

import html
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidocker.lab.diagrams.processes import status_of
from minidocker.lab.diagrams.runtime import NOTHING, state_machine, state_of
from minidocker.lab.props.bundles import OURS, Place, edit
from minidocker.lab.widgets.shown import ipywidgets, shown

END_TIMEOUT_SECONDS = 2
BUTTONS = (
    ("create", "make the container's namespaces and root, and let its process wait"),
    ("start", "let the command run"),
    ("pause", "freeze all its processes"),
    ("resume", "let them go on"),
    ("kill", "send SIGKILL to its first process"),
    ("delete", "forget the container"),
    ("look again", "run nothing, and look at what is there now"),
)


class Lifecycle:
    """One container of a bundle. In code: `life.press("create")`, then `print(life.text())`.

    command  what `create` writes into the bundle's config.json before, in case another cell has changed it meanwhile.
    """

    def __init__(self, place: Place, bundle: Path, id: str, command: Sequence[str]) -> None:
        self.place, self.bundle, self.id, self.command = place, bundle, id, list(command)
        self.said = "Nothing was run yet."

    def press(self, button: str) -> str:
        """Do what the button does; what the runtime said. Raises ValueError: there is no such button."""
        if button not in [name for name, _ in BUTTONS]:
            raise ValueError(f"there is no button {button!r}; there are: {', '.join(name for name, _ in BUTTONS)}")
        if button == "look again":
            self.said = "Nothing was run."
            return self.said
        words: list[str | Path] = [button, self.id, *(["KILL"] if button == "kill" else [])]
        words[1:1] = ["--bundle", self.bundle] if button == "create" else []
        try:
            if button == "create":
                edit(self.bundle, process={"args": self.command})
            answer = self.place.runtime(*words)
        except OSError as error:
            self.said = f"the place of the bundles is gone, run the notebook from its first cell: {error}"
            return self.said
        if button == "kill" and not answer.status:
            self._await_end()
        refused = f"REFUSED (exit status {answer.status}): {answer.text}"
        line = f"$ {Path(OURS).name} {' '.join(word.name if isinstance(word, Path) else word for word in words)}"
        self.said = f"{line}\n{refused if answer.status else answer.text or 'done (exit status 0)'}"
        return self.said

    def _await_end(self) -> None:
        """`kill` sends a signal, and does not wait for what comes of it. We do, for a moment."""
        deadline = time.monotonic() + END_TIMEOUT_SECONDS
        while self.state not in ("stopped", NOTHING) and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def state(self) -> str:
        """The state that the runtime finds at this moment."""
        return state_of(self.place.root(), self.id)[0]

    def note(self) -> str:
        """The runtime's own note of the container, state.json; or that there is none."""
        try:
            document = json.loads((self.place.root() / self.id / "state.json").read_text())
        except FileNotFoundError:
            return "there is no state.json"
        return json.dumps({key: value for key, value in document.items() if value}, indent=1)

    def process(self) -> str:
        """What /proc tells of the container's first process; or that there is none."""
        pid = state_of(self.place.root(), self.id)[1]
        try:
            fields = status_of(pid) if pid else {}
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended at this moment
            fields = {}
        if not fields:
            return "no process"
        return f"process {pid}, child of {fields['PPid']}, {fields['State']}\nruns: {command[:100]}"

    def text(self) -> str:
        """All that is shown, as plain text."""
        return f"{self.said}\n\nstate: {self.state}\n{self.process()}\n\nstate.json: {self.note()}"

    def widget(self) -> Any:
        """A row of buttons, the runtime's words, the picture of the states, state.json and the process; or None."""
        if ipywidgets is None:
            return None
        area = ipywidgets.HTML(self._html())
        row = [self._button(name, tip, area) for name, tip in BUTTONS]
        return ipywidgets.VBox([ipywidgets.HBox(row, layout=ipywidgets.Layout(flex_flow="row wrap")), area])

    def _button(self, name: str, tip: str, area: Any) -> Any:
        button = ipywidgets.Button(description=name, tooltip=tip)
        button.layout.width = "max-content"

        def pressed(_button: object) -> None:
            self.press(name)
            area.value = self._html()

        button.on_click(pressed)
        return button

    def _html(self) -> str:
        picture = state_machine(self.place.root(), self.id)._repr_mimebundle_()
        drawn = picture.get("text/html", f"<pre>{html.escape(picture['text/plain'])}</pre>")
        parts = [
            f"<pre style='margin:0'>{html.escape(part)}</pre>" for part in (self.said, self.process(), self.note())
        ]
        return f"{parts[0]}{drawn}<b>the process, by /proc</b>{parts[1]}<b>state.json, the runtime's note</b>{parts[2]}"

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        return shown(self.widget(), {"text/plain": self.text()}, options)
