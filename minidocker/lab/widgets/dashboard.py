"""The course's desktop: containers with their buttons, logs, shell and curves; images, volumes, networks; any daemons.

Source  Docker Engine API: ContainerList, ContainerStats, ImageList, VolumeList, NetworkList.
Rules   - all it knows and does goes through the API, so it shows several daemons as easily as one.
        - a thread looks while "watch" is pressed. It ends with the button, the widget or the kernel, and after ten
          minutes of itself.
        - each thing that the buttons do is a method too, and each list is text too, for readers without ipywidgets.
"""

import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from minidocker.client.client import Client
from minidocker.client.containers import Container, member_of
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.curves import Curves, Panel, curves
from minidocker.lab.diagrams.picture import Picture
from minidocker.lab.widgets.shown import ipywidgets, shown

VERBS = ("start", "stop", "restart", "pause", "unpause", "remove")
PAUSE_SECONDS = 1.0
LONGEST_WATCH_SECONDS = 600.0
KEPT = 60
LOG_LINES = 20
_MIB = 1 << 20


class Sample(NamedTuple):
    """One reading of a container. cpu: percent of one processor since the reading before."""

    moment: float
    cpu_ns: int
    cpu: float
    memory_mib: float


class Dashboard:
    """What one or more daemons hold, and what can be done with it.

    daemons  name -> client; a container is then called "name/container".
    filters  for the list of containers, as `client.containers.list` takes them.
    """

    def __init__(
        self, daemons: Client | Mapping[str, Client], *, filters: Mapping[str, list[str]] | None = None
    ) -> None:
        self.daemons = dict(daemons) if isinstance(daemons, Mapping) else {"": daemons}
        self.filters = dict(filters or {})
        self.said = ""
        self.verbs, self.log_lines = VERBS, LOG_LINES
        self._samples: dict[str, deque[Sample]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ what there is

    def containers(self) -> dict[str, Container]:
        """All containers, by the name that the dashboard gives them; a daemon that does not answer has none."""
        found = {}
        for daemon, client in self.daemons.items():
            for container in self._asked(partial(client.containers.list, all=True, filters=self.filters)):
                names = container.attrs.get("Names")
                name = str(names[0]).lstrip("/") if isinstance(names, list) and names else container.id[:12]
                found[f"{daemon}/{name}" if daemon else name] = container
        return found

    def _asked(self, ask: Callable[[], list[Any]]) -> list[Any]:
        try:
            return ask()
        except (MinidockerError, OSError) as error:
            self.said = f"A daemon does not answer: {error}"
            return []

    def table(self, kind: str = "containers") -> Picture:
        """One list: "containers", "images", "volumes" or "networks"; as a picture without a drawing."""
        if kind == "containers":
            columns: tuple[str, ...] = ("name", "image", "state", "processor", "memory")
            rows = [self._container_row(name, container) for name, container in self.containers().items()]
        else:
            columns = {"images": ("name", "id", "size"), "volumes": ("name", "driver"), "networks": ("name", "driver")}[
                kind
            ]
            rows = [
                (f"{daemon}/{row[0]}" if daemon else row[0], *row[1:])
                for daemon, client in self.daemons.items()
                for row in self._asked(partial(_rows, kind, client))
            ]
        return Picture("", f"{len(rows)} {kind}", columns, tuple(rows))

    def _container_row(self, name: str, container: Container) -> tuple[str, ...]:
        attrs, samples = container.attrs, self._samples.get(name)
        last = samples[-1] if samples and attrs.get("State") == "running" else None
        used = (f"{last.cpu:.0f}%", f"{last.memory_mib:.1f} MiB") if last else ("", "")
        return (name, str(attrs.get("Image", "")), str(attrs.get("Status", "")), *used)

    # ------------------------------------------------------------ what the buttons do

    def act(self, verb: str, name: str) -> str:
        """Do one of VERBS to a container; what came of it, in words."""
        container = self.containers().get(name)
        if verb not in VERBS or container is None:
            return self._say(f"There is no container {name}." if verb in VERBS else f"There is no verb {verb}.")
        try:
            if verb == "remove":
                container.remove(force=True)
            elif verb in ("stop", "restart"):
                getattr(container, verb)(timeout_seconds=2)
            else:
                getattr(container, verb)()
        except MinidockerError as error:
            return self._say(f"Refused: {error}")
        return self._say(f"Done: {verb} {name}.")

    def logs(self, name: str) -> str:
        """The last lines that a container wrote."""
        container = self.containers().get(name)
        if container is None:
            return f"There is no container {name}."
        try:
            return container.logs(tail=LOG_LINES).decode(errors="replace") or "(it has written nothing)"
        except MinidockerError as error:
            return f"Refused: {error}"

    def execute(self, name: str, command: str) -> str:
        """Run a command in a running container; what it printed and how it ended."""
        container = self.containers().get(name)
        if container is None:
            return f"There is no container {name}."
        try:
            result = container.exec_run(shlex.split(command))
        except (MinidockerError, ValueError) as error:
            return f"Refused: {error}"
        return f"{result.output.decode(errors='replace')}(exit status {result.exit_code})"

    def _say(self, words: str) -> str:
        self.said = words
        return words

    # ------------------------------------------------------------ looking

    def look(self) -> None:
        """Read what each running container uses."""
        for name, container in self.containers().items():
            if container.attrs.get("State") != "running":
                continue
            try:
                reading = container.stats(one_shot=True)
            except MinidockerError:
                continue  # it has ended meanwhile
            total = member_of(member_of(reading, "cpu_stats"), "cpu_usage").get("total_usage")
            memory = member_of(reading, "memory_stats").get("usage")
            now, cpu_ns = time.monotonic(), total if isinstance(total, int) else 0
            kept = self._samples.setdefault(name, deque(maxlen=KEPT))
            before = kept[-1] if kept else None
            share = (cpu_ns - before.cpu_ns) / ((now - before.moment) * 1e7) if before else 0.0
            kept.append(Sample(now, cpu_ns, max(share, 0.0), (memory if isinstance(memory, int) else 0) / _MIB))

    def plot(self, name: str) -> Curves:
        """Processor and memory of one container, as far as the dashboard has looked."""
        kept = list(self._samples.get(name, ()))
        seconds = kept[-1].moment - kept[0].moment if kept else 0.0
        largest = [max([floor, *values]) for floor, values in (
            (100.0, [sample.cpu for sample in kept]), (16.0, [sample.memory_mib for sample in kept])
        )]  # fmt: skip
        none = [None] * len(kept)
        panels = [
            Panel(f"{name}: processor", "%", {"used": [sample.cpu for sample in kept]}, none, largest[0]),
            Panel(f"{name}: memory", "MiB", {"used": [sample.memory_mib for sample in kept]}, none, largest[1]),
        ]
        alt = f"{name} has not been looked at yet"
        if kept:
            alt = f"{name} uses {kept[-1].cpu:.0f}% of one processor and {kept[-1].memory_mib:.1f} MiB"
        return curves(panels, seconds, alt)

    def close(self) -> None:
        """End the thread that looks, if there is one."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def watch(self, draw: Callable[[], None], done: Callable[[], None]) -> None:
        """Look in a thread, and call `draw` after each look; `done` when it ends by itself."""
        self.close()
        self._stop = stop = threading.Event()

        def run() -> None:
            end = time.monotonic() + LONGEST_WATCH_SECONDS
            while time.monotonic() < end and not stop.wait(PAUSE_SECONDS):
                self.look()
                draw()
            if not stop.is_set():
                done()

        self._thread = threading.Thread(target=run, name="dashboard", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ the widget

    def widget(self) -> Any:
        """Tabs of containers, images, volumes and networks; None without ipywidgets."""
        if ipywidgets is None:
            return None
        from minidocker.lab.widgets.dashboard_page import Page

        return Page(self).box

    def text(self) -> str:
        """All lists as plain text."""
        tables = ((kind, self.table(kind)) for kind in ("containers", "images", "volumes", "networks"))
        return "\n\n".join(f"{kind}\n{table.table()}" for kind, table in tables)

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        self.look()
        return shown(self.widget(), {"text/plain": self.text()}, options)


def _rows(kind: str, client: Client) -> list[tuple[str, ...]]:
    if kind == "images":
        return [
            (
                ", ".join(image.tags) or "(no name)",
                image.id.removeprefix("sha256:")[:12],
                _size(image.attrs.get("Size")),
            )
            for image in client.images.list()
        ]
    if kind == "volumes":
        return [(volume.id, str(volume.attrs.get("Driver", ""))) for volume in client.volumes.list()]
    return [(str(network.attrs["Name"]), str(network.attrs.get("Driver", ""))) for network in client.networks.list()]


def _size(count: object) -> str:
    return f"{count / 1e6:.1f} MB" if isinstance(count, int) else ""
