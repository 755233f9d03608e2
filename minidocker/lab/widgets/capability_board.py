"""Tick capabilities, and see which of twelve probes succeed in a container that has those and no others.

Source  capabilities(7); Docker run reference, "Runtime privilege and Linux capabilities"; ipywidgets documentation.
Rules   - each probe is really tried, as root, all twelve in one container that is gone afterwards.
        - no probe changes anything outside of that container; what it says is the program's own last line.
        - a probe names the capabilities that it needs; whether that is true is what the container shows.
"""

import html
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minidocker.client.client import Client
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.picture import CELL, Picture
from minidocker.lab.widgets.shown import ipywidgets, shown
from minidocker.linux.capabilities import DEFAULT

IMAGE = "busybox"
COLUMNS = ("root tries to", "needs", "and")


@dataclass(frozen=True, slots=True)
class Probe:
    """Something that root does. needs: capabilities, without CAP_. command: of the shell; it succeeds or fails."""

    name: str
    needs: tuple[str, ...]
    command: str


PROBES = (
    Probe("give a file away", ("CHOWN",), "chown 1000 own"),
    Probe("read a file that its mode locks", ("DAC_OVERRIDE",), "cat locked"),
    Probe("change the mode of another user's directory", ("FOWNER",), "chmod 777 /probe"),
    Probe("become another user", ("SETGID", "SETUID"), "su -s /bin/true nobody"),
    Probe("listen at port 80", ("NET_BIND_SERVICE",), "httpd -p 80 -h /tmp"),
    Probe("send a raw packet (ping)", ("NET_RAW",), "ping -c 1 -W 1 127.0.0.1"),
    Probe("call chroot", ("SYS_CHROOT",), "chroot / true"),
    Probe("make a device file", ("MKNOD",), "mknod null c 1 3"),
    Probe("reconfigure a network interface", ("NET_ADMIN",), "ip link set lo mtu 60000"),
    Probe("mount a file system", ("SYS_ADMIN",), "mount -t tmpfs none /probe"),
    Probe("run before others (a negative nice)", ("SYS_NICE",), "renice -n -5 1"),
    Probe("read the kernel's log", ("SYSLOG",), "dmesg -s 100"),
)
NAMES = tuple(dict.fromkeys(name for probe in PROBES for name in probe.needs))
PRESETS = {
    "none": (),
    "the default": tuple(name for name in NAMES if f"CAP_{name}" in DEFAULT),
    "all of these": NAMES,
}
_BEFORE = """
mkdir -p /tmp && cd /tmp && touch own locked && chmod 0 locked
try() { out=$("$@" 2>&1); code=$?; [ $code = 0 ] && out=; echo "$code|$(echo "$out" | tail -n 1)"; }
"""
_AFTER = "grep CapEff /proc/self/status"
# As on a machine without Docker's two openings: there any user may ping, and bind low ports.
_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "1024", "net.ipv4.ping_group_range": "1 0"}


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one probe. said: the program's last line, if it failed."""

    probe: Probe
    succeeded: bool
    said: str

    @property
    def words(self) -> str:
        """ "succeeds", or "refused" and why."""
        return "succeeds" if self.succeeded else f"refused: {self.said}"


class CapabilityBoard:
    """Twelve probes and the capabilities that they need. `try_with` runs them; `results` is what came out last.

    client  the daemon that makes the container; labels: what the container carries (a lesson's label).
    """

    def __init__(self, client: Client, labels: Mapping[str, str] | None = None) -> None:
        self.client, self.labels = client, dict(labels or {})
        self.ticked: tuple[str, ...] = ()
        self.results: list[Tried] = []
        self.effective = 0
        self.said = "tick capabilities, then try"

    def try_with(self, capabilities: Collection[str]) -> list[Tried]:
        """Run all probes in a container with these capabilities ("NET_RAW") alone; also in `results`.

        Raises  MinidockerError: the container could not be run.
        """
        script = "\n".join([_BEFORE, *(f"try {probe.command}" for probe in PROBES), _AFTER])
        output = self.client.containers.run(
            IMAGE, ["sh", "-c", script], cap_drop=["ALL"], cap_add=list(capabilities), network="none", remove=True,
            labels=self.labels, tmpfs={"/probe": "uid=1000,mode=777"}, sysctls=_SYSCTLS,
        )  # fmt: skip
        *lines, last = output.decode(errors="replace").splitlines()
        self.effective = int(last.split()[1], 16)
        self.results = [
            Tried(probe, code == "0", said)
            for probe, (code, _, said) in zip(PROBES, (line.partition("|") for line in lines), strict=True)
        ]
        self.ticked = tuple(capabilities)
        done = sum(one.succeeded for one in self.results)
        self.said = f"{done} of {len(PROBES)} succeed; the kernel says CapEff {self.effective:016x}"
        return self.results

    def table(self) -> str:
        """The results as plain text."""
        return self._picture().table()

    def _picture(self) -> Picture:
        rows = tuple((one.probe.name, " and ".join(one.probe.needs), one.words) for one in self.results)
        return Picture("", "", COLUMNS, rows)

    # -- as a widget --

    def widget(self) -> Any:
        """A box to tick for each capability, sets to begin with, a button, and the results; None without ipywidgets."""
        if ipywidgets is None:
            return None
        boxes = {
            name: ipywidgets.Checkbox(
                value=name in self.ticked, description=name, indent=False, layout={"width": "13em"}
            )
            for name in NAMES
        }
        presets = [ipywidgets.Button(description=name, tooltip=f"tick {name}") for name in PRESETS]
        button = ipywidgets.Button(description="try", tooltip="run the twelve probes in a container with these")
        words, table = ipywidgets.HTML(), ipywidgets.HTML()

        def draw() -> None:
            words.value = f'<span role="status">{html.escape(self.said)}</span>'
            table.value = _html(self.results) if self.results else ""

        def press(_button: object) -> None:
            try:
                self.try_with([name for name, box in boxes.items() if box.value])
            except MinidockerError as error:
                self.said = f"not tried: {error}"
            draw()

        def tick(names: Iterable[str]) -> None:
            for name, box in boxes.items():
                box.value = name in names

        for preset in presets:
            preset.on_click(lambda pressed: tick(PRESETS[pressed.description]))
        button.on_click(press)
        draw()
        grid = ipywidgets.Box(list(boxes.values()), layout={"flex_flow": "row wrap"})
        return ipywidgets.VBox([ipywidgets.HBox([*presets, button]), grid, words, table])

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        known = f"\n\n{self.table()}" if self.results else ""
        return shown(self.widget(), {"text/plain": f"{self.said}{known}"}, options)


def _html(results: list[Tried]) -> str:
    cells = (
        f"<tr><td {CELL}>{html.escape(one.probe.name)}</td><td {CELL}>{' and '.join(one.probe.needs)}</td>"
        f"<td {CELL}>{'<b>succeeds</b>' if one.succeeded else html.escape(one.words)}</td></tr>"
        for one in results
    )
    heads = "".join(f'<th scope="col" {CELL}>{head}</th>' for head in COLUMNS)
    return f"<table><tr>{heads}</tr>{''.join(cells)}</table>"
