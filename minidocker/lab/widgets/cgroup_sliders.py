"""Sliders for a running container's limits, and what the kernel makes of them, live.

Source  Docker Engine API, ContainerUpdate; kernel Documentation/admin-guide/cgroup-v2.rst (cpu.stat, memory.current).
Rules   - a slider asks the engine for the new limit; the curves are the kernel's own counts of the container's group.
        - a thread looks while "watch" is pressed. It ends with the button, the widget, the container or the kernel, and
          after two minutes of itself.
        - each thing that the buttons do is a method too, for readers without ipywidgets.
"""

import html
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from minidocker.client.containers import Container
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.cgroups import cpu_limit, group_of
from minidocker.lab.diagrams.curves import Curves, Panel, curves
from minidocker.lab.widgets.shown import ipywidgets, shown

PAUSE_SECONDS = 0.5
LONGEST_WATCH_SECONDS = 120.0
SHORTEST_SECONDS = 0.05  # the kernel counts in ticks: a share of less time than this would be noise
KEPT = 60
CHUNK_MIB = 8
_MIB = 1 << 20


class Sample(NamedTuple):
    """One look. Shares in percent: of one processor; of the periods since the look before that were throttled."""

    moment: float
    cpu: float
    throttled: float
    cpu_limit: float | None
    memory_mib: float
    memory_limit_mib: float | None


class CgroupSliders:
    """Limits of one running container, to be moved while it works.

    cpu_percent, memory_mib  the largest values of the sliders; 100 % is one processor.
    Raises                   OSError, NotFound: the container does not run.
    """

    def __init__(self, container: Container, *, cpu_percent: int = 100, memory_mib: int = 128) -> None:
        container.reload()
        state = container.attrs["State"]
        assert isinstance(state, dict)
        self.container = container
        self.group = group_of(int(state["Pid"]))
        self.largest = cpu_percent, memory_mib
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self.said = ""
        self._chunks = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._before = (time.monotonic(), self.group.statistics().cpu)

    # ------------------------------------------------------------ what the buttons do

    def limit_cpu(self, percent: int) -> str:
        """Ask the engine for a quota, in percent of one processor; what came of it, in words."""
        return self._update(f"at most {percent}% of one processor", nano_cpus=percent * 10_000_000)

    def limit_memory(self, mib: int) -> str:
        """Ask the engine for a limit of memory, with no swap beyond it."""
        return self._update(f"at most {mib} MiB", memory_bytes=mib * _MIB, memory_swap_bytes=mib * _MIB)

    def _update(self, what: str, **limits: int) -> str:
        try:
            self.container.update(**limits)
            return self._say(f"The engine wrote it: {what}.")
        except MinidockerError as error:
            return self._say(f"Refused: {error}")

    def use_more_memory(self) -> str:
        """Let the container fill eight more MiB (a file in its /dev/shm, which is memory); what came of it."""
        self._chunks += 1
        before = self.group.oom_kills()
        command = ["dd", "if=/dev/zero", f"of=/dev/shm/chunk{self._chunks}", "bs=1M", f"count={CHUNK_MIB}"]
        try:
            code = self.container.exec_run(command).exit_code
        except MinidockerError as error:
            return self._say(f"Refused: {error}")
        if killed := self.group.oom_kills() - before:
            return self._say(f"Over the limit: the kernel killed {killed} process (not the container).")
        return self._say(f"It uses {CHUNK_MIB} MiB more." if code == 0 else f"dd ended with {code}.")

    def _say(self, words: str) -> str:
        self.said = words
        return words

    # ------------------------------------------------------------ looking

    def look(self) -> bool:
        """Take one sample; False: the group has gone, as the container has ended."""
        with self._lock:
            now, used = time.monotonic(), self.group.statistics()
            if not self.group.exists():
                self._say("The container has ended.")
                return False
            then, cpu = self._before
            self._before = now, used.cpu
            quota, limit = cpu_limit(self.group), used.memory.limit_bytes
            periods = used.cpu.periods - cpu.periods
            sample = Sample(
                now,
                (used.cpu.total_ns - cpu.total_ns) / ((now - then) * 1e7) if now > then + SHORTEST_SECONDS else 0.0,
                100 * (used.cpu.throttled_periods - cpu.throttled_periods) / periods if periods else 0.0,
                None if quota is None else 100 * quota[0] / quota[1],
                used.memory.usage_bytes / _MIB,
                None if limit is None else limit / _MIB,
            )
            self.samples.append(sample)
            return True

    def measure(self, seconds: float, pause_seconds: float = PAUSE_SECONDS) -> "CgroupSliders":
        """Look for a while, then go on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(pause_seconds)  # first: a share is a difference of two counts, and needs time between them
            if not self.look():
                break
        return self

    def plot(self) -> Curves:
        """All samples so far, in two panels."""
        kept = list(self.samples)
        last = kept[-1] if kept else None
        seconds = kept[-1].moment - kept[0].moment if kept else 0.0
        most = max([float(self.largest[0]), *(sample.cpu for sample in kept)])
        processor = Panel(
            "processor",
            "%",
            {"used": [s.cpu for s in kept], "periods throttled": [s.throttled for s in kept]},
            [s.cpu_limit for s in kept],
            most,
        )
        memory = Panel(
            "memory",
            "MiB",
            {"used": [s.memory_mib for s in kept]},
            [s.memory_limit_mib for s in kept],
            float(self.largest[1]),
        )
        alt = "no look at the container yet"
        if last is not None:
            alt = (
                f"in the last {seconds:.0f} s the container used at most {max(s.cpu for s in kept):.0f}% of one "
                f"processor and {max(s.memory_mib for s in kept):.0f} MiB; now {last.throttled:.0f}% of its periods "
                "are throttled"
            )
        return curves([processor, memory], seconds, alt)

    # ------------------------------------------------------------ the widget

    def close(self) -> None:
        """End the thread that looks, if there is one."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def watch(self, draw: Any, done: Any) -> None:
        """Look in a thread and call `draw` after each look; `done` when it ends by itself."""
        self.close()
        self._stop = stop = threading.Event()

        def run() -> None:
            end = time.monotonic() + LONGEST_WATCH_SECONDS
            while time.monotonic() < end and not stop.wait(PAUSE_SECONDS):
                looked = self.look()
                draw()
                if not looked:
                    break
            if not stop.is_set():
                done()

        self._thread = threading.Thread(target=run, name="cgroup sliders", daemon=True)
        self._thread.start()

    def widget(self) -> Any:
        """Sliders, buttons, words and curves; None without ipywidgets."""
        if ipywidgets is None:
            return None
        if not self.samples:
            self.look()
        last = self.samples[-1] if self.samples else None
        cpu = self._slider("processor, %", last.cpu_limit if last else None, self.largest[0], 5)
        memory = self._slider("memory, MiB", last.memory_limit_mib if last else None, self.largest[1], 8)
        watch = ipywidgets.ToggleButton(value=False, description="watch", tooltip="draw the curves anew twice a second")
        more = ipywidgets.Button(
            description=f"use {CHUNK_MIB} MiB more", tooltip="fill a file in the container's memory"
        )
        words, area = ipywidgets.HTML(), ipywidgets.HTML()
        box = ipywidgets.VBox([cpu, memory, ipywidgets.HBox([watch, more]), words, area])

        def draw(*_: object) -> None:
            if box.comm is None:  # the widget was closed
                self._stop.set()
                return
            words.value = f'<span role="status">{html.escape(self.said)}</span>'
            area.value = self.plot()._repr_mimebundle_()["text/html"]

        def act(words_of: Any) -> None:
            words_of()
            self.look()
            draw()

        def toggle(change: dict[str, Any]) -> None:
            watch.description = "stop watching" if change["new"] else "watch"
            self.watch(draw, lambda: setattr(watch, "value", False)) if change["new"] else self.close()

        cpu.observe(lambda change: act(lambda: self.limit_cpu(change["new"])), names="value")
        memory.observe(lambda change: act(lambda: self.limit_memory(change["new"])), names="value")
        more.on_click(lambda _button: act(self.use_more_memory))
        watch.observe(toggle, names="value")
        draw()
        return box

    @staticmethod
    def _slider(what: str, value: float | None, most: int, step: int) -> Any:
        slider = ipywidgets.IntSlider(
            value=most if value is None else min(round(value), most),
            min=step,
            max=most,
            step=step,
            description=what,
            continuous_update=False,
            style={"description_width": "9em"},
        )
        slider.layout.width = "34em"
        return slider

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        widget = self.widget()
        return shown(widget, self.plot()._repr_mimebundle_(), options)
