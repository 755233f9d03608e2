"""Edit a Dockerfile, see what the cache will say to each step and why, then build and compare.

Source  ipywidgets documentation, "Widget List"; lab.foresight (the prediction), lab.diagrams.builds (what happened).
Rules   - the text is written to the folder before it is predicted or built: what is shown is about what is there.
        - verdicts are words; a build runs in the kernel only as long as its button is pressed, and leaves no process.
"""

import contextlib
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidocker.client.client import Client
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.builds import BuildStep, build_graph, read_build
from minidocker.lab.diagrams.picture import CELL, Picture
from minidocker.lab.props.foresight import Foreseen, foresee
from minidocker.lab.widgets.shown import ipywidgets, shown

NAME = "Dockerfile"
_LONGEST_FILE_BYTES = 64 << 10
_WORDS = {"start": "", "hit": "HIT", "miss": "MISS", "unknown": "cannot be known", "failed": "MISS, then failed"}
_COLUMNS = ("step", "instruction", "predicted", "why", "happened", "agree")
Row = tuple[str, ...]


class DockerfileEditor:
    """An editor for the text files of a build's folder.

    client  the daemon that builds.
    folder  the context, with a Dockerfile in it.
    tag     what the result is called; "": nothing.
    """

    def __init__(self, client: Client, folder: Path, tag: str = "") -> None:
        self.client, self.folder, self.tag = client, folder, tag
        self.predicted: list[Foreseen] = []
        self.happened: tuple[BuildStep, ...] = ()
        self.picture: Picture | None = None
        self.message = ""
        self._views: list[Callable[[], None]] = []

    def read(self, name: str = NAME) -> str:
        """A file's text."""
        return (self.folder / name).read_text()

    def write(self, text: str, name: str = NAME) -> None:
        """Change a file of the folder."""
        (self.folder / name).write_text(text)
        self._show()

    def files(self) -> list[str]:
        """The small files of the folder that can be edited, the Dockerfile first."""
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        names = [str(path.relative_to(self.folder)) for path in paths if path.stat().st_size <= _LONGEST_FILE_BYTES]
        return sorted(names, key=lambda name: name != NAME)

    def predict(self) -> list[Foreseen]:
        """What the cache will say to each step; with a mistake in the Dockerfile none, and `message` says what."""
        self.message = ""
        self.happened, self.picture = (), None  # of another build than the one that is foretold now
        try:
            self.predicted = foresee(self.client, self.folder)
        except (MinidockerError, OSError) as error:  # OSError: the folder is gone
            self.predicted, self.message = [], str(error)
        self._show()
        return self.predicted

    def build(self) -> tuple[BuildStep, ...]:
        """Predict, build, and compare: the steps as they were. A failed build's reason is in `message`."""
        self.predict()
        told: list[Any] = []
        try:
            self.client.images.build(str(self.folder), tag=self.tag, explain=True, progress=told.append)
        except (MinidockerError, OSError) as error:
            self.message = str(error)
        self.happened = read_build(told)
        self.picture = build_graph(told) if self.happened else None
        self._show()
        return self.happened

    def _show(self) -> None:
        """Bring what is on the screen up to date."""
        for view in self._views:
            view()

    def rows(self) -> list[Row]:
        """The comparison, a row for each step (see `verdict` for the last two cells)."""
        happened = {step.number: step for step in self.happened}
        rows: list[Row] = []
        for step in self.predicted:
            found = happened.get(step.number)
            seen = _WORDS[found.verdict] if found else ""
            rows.append((str(step.number), step.text, _WORDS[step.verdict], step.reason, seen, _agree(step, found)))
        return rows

    def verdict(self) -> str:
        """One sentence about the prediction, or about what is to be done next."""
        if self.message:
            return f"Error: {self.message}"
        if not self.happened:
            misses = sum(step.verdict == "miss" for step in self.predicted)
            return f"Predicted: {misses} of {len(self.predicted)} steps will be made anew. Now build and compare."
        answers = [row[5] for row in self.rows()]
        return f"Built. The prediction was right for {answers.count('yes')} steps and wrong for {answers.count('NO')}."

    def table(self) -> str:
        """The comparison as plain text."""
        return Picture("", "", _COLUMNS, tuple(self.rows())).table() if self.predicted else ""

    # -- as a widget --

    def widget(self) -> Any:
        """File chooser, text, two buttons, the comparison and the build's picture; None without ipywidgets."""
        if ipywidgets is None:
            return None
        files = ipywidgets.Dropdown(options=self.files(), description="file:")
        text = ipywidgets.Textarea(value=self.read(), rows=12, layout={"width": "100%"}, continuous_update=False)
        text.style.font_family = "monospace"
        predict = ipywidgets.Button(description="predict", tooltip="ask the cache, build nothing")
        build = ipywidgets.Button(description="build and compare", tooltip="build, and compare with the prediction")
        area = ipywidgets.HTML()
        shown_text = [text.value]  # what is put in by us is no edit

        def show() -> None:
            with contextlib.suppress(FileNotFoundError):
                shown_text[0] = self.read(files.value)
                text.value = shown_text[0]
            area.value = self._html()

        def edited(change: dict[str, Any]) -> None:
            if change["new"] != shown_text[0]:
                self.write(change["new"], files.value)
                self.predict()

        files.observe(lambda _change: show(), names="value")
        text.observe(edited, names="value")
        predict.on_click(lambda _button: self.predict())
        build.on_click(lambda _button: self.build())
        self._views.append(show)
        self._show() if self.happened else self.predict()
        return ipywidgets.VBox([files, text, ipywidgets.HBox([predict, build]), area])

    def _html(self) -> str:
        head = "".join(f'<th scope="col" {CELL}>{html.escape(cell)}</th>' for cell in _COLUMNS)
        rows = ("".join(f"<td {CELL}>{html.escape(cell)}</td>" for cell in row) for row in self.rows())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else ""
        picture = self.picture._repr_mimebundle_().get("text/html", "") if self.picture else ""
        return f'<p role="status"><b>{html.escape(self.verdict())}</b></p>{table}{picture}'

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        made = self.widget()
        if made is None:
            self.predict()
        text = f"{self.read()}\n{self.table()}\n\n{self.verdict()}"
        return shown(made, {"text/plain": text}, options)


def _agree(step: Foreseen, found: BuildStep | None) -> str:
    if found is None or step.verdict in ("start", "unknown"):
        return ""
    return "yes" if step.verdict == found.verdict.replace("failed", "miss") else "NO"
