"""What becomes of a file: choose where and as whom it is written, and see by experiment how long it lives.

Source  Docker's manual, "Manage data in Docker"; ipywidgets documentation, "Widget List" (Dropdown, Checkbox).
Rules   - nothing is foretold: containers are really run, restarted, removed and committed, and looked into.
        - all that an experiment makes is removed at its end, also after an error.
        - each thing that is shown is a method too, for readers without ipywidgets.
"""

import contextlib
import html
import itertools
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidocker.client.client import Client
from minidocker.client.container_body import ContainerOptions
from minidocker.client.containers import Container
from minidocker.errors import MinidockerError, NotFound
from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, quoted
from minidocker.lab.widgets.shown import ipywidgets, shown

LAYER, VOLUME, BIND, TMPFS = "its own layer", "a volume", "a directory of the host", "memory (tmpfs)"
KINDS = (LAYER, VOLUME, BIND, TMPFS)
USERS = {"root": "0:0", "user 1000": "1000:1000"}


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the file: (question, answer, how it was seen), in the order of its life."""

    kind: str
    user: str
    read_only: bool
    told: tuple[tuple[str, str, str], ...]

    def answer(self, question: str) -> str:
        """The answer to a question that contains this text. Raises KeyError: it was not asked."""
        for asked, answer, _ in self.told:
            if question in asked:
                return answer
        raise KeyError(question)


class FileFate:
    """Experiments with one file. In code: `fate.run("a volume")`, `print(fate.text())`.

    folder  a directory of the host that experiments may use.
    labels  for all that is made.
    """

    def __init__(self, client: Client, folder: Path, labels: dict[str, str] | None = None) -> None:
        self.client, self.folder, self.labels = client, folder, dict(labels or {})
        self.last: Fate | None = None
        self._numbers = itertools.count(1)

    def run(self, kind: str, user: str = "root", *, read_only: bool = False) -> Fate:
        """Write a file and follow its life. Raises ValueError: no such kind or user; MinidockerError."""
        if kind not in KINDS or user not in USERS:
            raise ValueError(f"kinds: {', '.join(KINDS)}; users: {', '.join(USERS)}")
        with self._place(kind, read_only) as (options, where):
            self.last = Fate(kind, user, read_only, tuple(self._life(kind, user, options, where)))
        return self.last

    @contextlib.contextmanager
    def _place(self, kind: str, read_only: bool) -> Iterator[tuple[ContainerOptions, Path | None]]:
        """The options that mount it at /data, and where it is on the host."""
        mode, where = ":ro" if read_only else "", None
        options: ContainerOptions = {"labels": self.labels, "stop_signal": "KILL"}
        if kind == LAYER:
            options["read_only"] = read_only
        elif kind == TMPFS:
            options["tmpfs"] = {"/data": "mode=1777" + (",ro" if read_only else "")}
        elif kind == BIND:
            where = self.folder / f"fate-{next(self._numbers)}"
            where.mkdir(parents=True)
            options["volumes"] = [f"{where}:/data{mode}"]
        else:
            volume = self.client.volumes.create(f"fate-{secrets.token_hex(6)}", labels=self.labels)
            where = Path(str(volume.attrs["Mountpoint"]))
            options["volumes"] = [f"{volume.id}:/data{mode}"]
        try:
            yield options, where
        finally:
            if kind == VOLUME:
                volume.remove()
            elif where is not None:
                (where / "note").unlink(missing_ok=True)
                where.rmdir()

    def _life(
        self, kind: str, user: str, options: ContainerOptions, where: Path | None
    ) -> Iterator[tuple[str, str, str]]:
        first = self.client.containers.run("busybox", ["sleep", "600"], detach=True, **options)
        image = ""
        try:
            note = "/tmp/note" if kind == LAYER else "/data/note"
            script = f"echo hello > {note}"
            wrote = first.exec_run(["sh", "-c", script], user=USERS[user])
            reason = wrote.output.decode().strip() if isinstance(wrote.output, bytes) else ""
            yield f"can {user} write it", _word(wrote.exit_code == 0), reason or f"{script}: exit status 0"
            if wrote.exit_code:
                return
            yield from _on_host(where)
            first.restart()
            yield "is it there after a restart", *_look(first, note)
            image = first.commit().id
            first.remove(force=True)
            yield "is it there in a new container", *self._again("busybox", options, note)
            yield "is it in an image made by commit", *self._again(image, {"labels": self.labels}, note)
        finally:
            with contextlib.suppress(NotFound):
                first.remove(force=True)
            if image:
                self.client.images.remove(image, force=True)

    def _again(self, image: str, options: ContainerOptions, note: str) -> tuple[str, str]:
        other = self.client.containers.run(image, ["sleep", "600"], detach=True, **options)
        try:
            return _look(other, note)
        finally:
            other.remove(force=True)

    # ------------------------------------------------------------ what is shown

    def picture(self) -> Picture:
        """The file's life as a row of stations. Raises ValueError: nothing was tried yet."""
        if self.last is None:
            raise ValueError("no file was written yet")
        lines = []
        for number, (question, answer, seen) in enumerate(self.last.told, 1):
            look = f'fillcolor="{SHARED}"' if answer != "no" else f'fillcolor="{OWN}" style="filled,bold,dashed"'
            shown_words = seen if len(seen) <= 60 else f"{seen[:57]}..."
            lines.append(f"s{number} [label={quoted(f'{question}?', answer.upper(), shown_words)} {look}]")
            lines += [f"s{number - 1} -> s{number}"] if number > 1 else []
        mode = ", read only" if self.last.read_only else ""
        alt = f"a file in {self.last.kind}{mode}, written by {self.last.user}: "
        alt += "; ".join(f"{question}: {answer}" for question, answer, _ in self.last.told)
        return Picture(
            'rankdir="TB" ranksep="0.2"\n' + "\n".join(lines), alt, ("question", "answer", "seen by"), self.last.told
        )

    def text(self) -> str:
        """All that is shown, as plain text."""
        return "no file was written yet" if self.last is None else f"{self.picture().alt}\n\n{self.picture().table()}"

    def widget(self) -> Any:
        """Where, as whom, read only or not, a button, and the file's life; None without ipywidgets."""
        if ipywidgets is None:
            return None
        kind = ipywidgets.Dropdown(options=KINDS, description="into")
        user = ipywidgets.Dropdown(options=list(USERS), description="as")
        read_only = ipywidgets.Checkbox(description="read only", indent=False)
        button = ipywidgets.Button(description="write a file", tooltip="and follow its life: about two seconds")
        for box in (kind, user, read_only, button):
            box.layout.width = "max-content"
        area = ipywidgets.HTML(self._html())

        def pressed(_button: object) -> None:
            button.disabled = True
            try:
                self.run(kind.value, user.value, read_only=read_only.value)
                area.value = self._html()
            except (MinidockerError, OSError) as error:
                area.value = f'<p role="status">the experiment failed: {html.escape(str(error))}</p>'
            finally:
                button.disabled = False

        button.on_click(pressed)
        row = ipywidgets.HBox([kind, user, read_only, button], layout=ipywidgets.Layout(flex_flow="row wrap"))
        return ipywidgets.VBox([row, area])

    def _html(self) -> str:
        if self.last is None:
            return "<p>no file was written yet</p>"
        bundle = self.picture()._repr_mimebundle_()
        return str(bundle.get("text/html", f"<pre>{html.escape(bundle['text/plain'])}</pre>"))

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        bundle = {"text/plain": self.text()}
        if self.last is not None:
            bundle = self.picture()._repr_mimebundle_()
        return shown(self.widget(), bundle, options)


def _word(condition: bool) -> str:
    return "yes" if condition else "no"


def _on_host(where: Path | None) -> Iterator[tuple[str, str, str]]:
    if where is None:
        yield "is it in a plain directory of the host", "no", "none is mounted"
        return
    path = where / "note"
    yield "is it in a plain directory of the host", _word(path.exists()), str(path)
    yield "who owns it on the host", f"user {os.stat(path).st_uid}", "stat on the host"


def _look(container: Container, note: str) -> tuple[str, str]:
    """Whether the file is there, and how it was seen."""
    found = container.exec_run(["cat", note])
    text = found.output.decode().strip() if isinstance(found.output, bytes) else ""
    return _word(found.exit_code == 0 and text == "hello"), f"cat {note}: {text}"
