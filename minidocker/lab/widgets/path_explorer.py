"""Choose two containers and a way of naming: see hop by hop whether and why a packet gets through, and a ping's word.

Source  ipywidgets documentation, "Widget List" (Dropdown), "Widget Events".
Rules   - all is read anew at each look: interfaces, routes, peers and bridges, then a real ping from the container.
        - each thing that is shown is a method too, for readers without ipywidgets.
"""

import html
from collections.abc import Sequence
from typing import Any

from minidocker.client.containers import Container
from minidocker.errors import MinidockerError
from minidocker.lab.diagrams.networks import ANYWHERE, Place, bridge_addresses, look, routes_of
from minidocker.lab.diagrams.picture import OWN, Picture, quoted
from minidocker.lab.props.paths import ARRIVES, GOES_ON, STOPS, Hop, World, follow, shared
from minidocker.lab.widgets.shown import ipywidgets, shown

GATEWAY, OUTSIDE = "the host (the sender's gateway)", "an address outside, 203.0.113.1"
_OUTSIDE_ADDRESS = "203.0.113.1"


class PathExplorer:
    """The ways between these containers. In code: `paths.hops("web", "db")`, `paths.text("web", "db")`."""

    def __init__(self, containers: Sequence[Container]) -> None:
        self._containers = {look(container).name: container for container in containers}

    @property
    def names(self) -> list[str]:
        """The containers, by name."""
        return list(self._containers)

    def _places(self) -> dict[str, Place]:
        return {name: look(container) for name, container in self._containers.items()}

    def address(self, source: str, target: str) -> str:
        """The target's address, on a network of the source if there is one; "" if it has none."""
        places = self._places()
        here = places[source]
        if target == OUTSIDE:
            return _OUTSIDE_ADDRESS
        if target == GATEWAY:
            gateway = next((route.gateway for route in here.routes if route.destination == ANYWHERE), None)
            own = [] if here.is_host else [str(gateway)] if gateway else []
            return next(iter(own or [str(each.ip) for each in bridge_addresses().values()]), "")
        plugs = places[target].plugs
        bridges = [plug.bridge for plug in here.plugs]
        near = [str(plug.address.ip) for plug in plugs if plug.bridge in bridges]
        return next(iter(near + [str(plug.address.ip) for plug in plugs]), "")

    def hops(self, source: str, target: str) -> list[Hop]:
        """The way to the target's address, from what is there at this moment."""
        places = self._places()
        address = self.address(source, target)
        if not address:
            return [Hop(source, f"{target} has no address to send to", STOPS)]
        default = next((route for route in routes_of("self") if route.destination == ANYWHERE), None)
        return follow(places[source], address, World(list(places.values()), bridge_addresses(), default))

    def naming(self, source: str, target: str) -> str:
        """Whether the source can call the target by its name, and why."""
        if target in (GATEWAY, OUTSIDE):
            return "by its address: no container has a name for it"
        places = self._places()
        common = shared(places[source], places[target])
        if common:
            return f"by name: both are on the network {common[0]}, whose containers know each other by name"
        return "by its address only: they share no network that has names"

    def ping(self, source: str, target: str) -> str:
        """What a real ping from the container says."""
        address = self.address(source, target)
        if target == OUTSIDE or not address:
            return "not tried"
        done = self._containers[source].exec_run(["ping", "-c", "1", "-W", "1", address])
        assert isinstance(done.output, bytes)
        if done.exit_code == 0:
            return "answered"
        return "unreachable" if b"unreachable" in done.output else "no answer"

    def verdict(self, source: str, target: str) -> str:
        """The way's end beside the ping's word."""
        end = self.hops(source, target)[-1].outcome
        said = self.ping(source, target)
        told = {ARRIVES: "it gets through", STOPS: "it does not get through", GOES_ON: "nothing is known of its end"}[
            end
        ]
        agree = (
            ""
            if said == "not tried"
            else " They agree."
            if (end == ARRIVES) == (said == "answered")
            else " They DISAGREE."
        )
        return f"by routes and rules {told}; a real ping: {said}.{agree}"

    def picture(self, source: str, target: str) -> Picture:
        """The hops from left to right."""
        hops = self.hops(source, target)
        rows = tuple((str(number), hop.where, hop.what, hop.outcome) for number, hop in enumerate(hops, 1))
        lines = ['rankdir="TB" ranksep="0.25"']
        for number, hop in enumerate(hops, 1):
            look = f'fillcolor="{OWN}" style="filled,bold"' if hop.outcome != GOES_ON else ""
            end = [] if hop.outcome == GOES_ON else [hop.outcome]
            lines.append(f"h{number} [label={quoted(f'{number}  {hop.where}', hop.what, *end)} {look}]")
            if number > 1:
                lines.append(f"h{number - 1} -> h{number}")
        alt = f"from {source} to {target}: {len(hops)} hops, the last at {hops[-1].where}: {hops[-1].outcome}"
        return Picture("\n".join(lines), alt, ("hop", "where", "what happens", ""), rows)

    def text(self, source: str, target: str) -> str:
        """All that is shown, as plain text."""
        return f"{self.naming(source, target)}\n{self.picture(source, target).table()}\n{self.verdict(source, target)}"

    # ------------------------------------------------------------ the widget

    def widget(self) -> Any:
        """Two lists, a button and the way; None without ipywidgets."""
        if ipywidgets is None:
            return None
        targets = [*self.names, GATEWAY, OUTSIDE]
        source = ipywidgets.Dropdown(options=self.names, value=self.names[0], description="from")
        target = ipywidgets.Dropdown(options=targets, value=targets[1 % len(targets)], description="to")
        button = ipywidgets.Button(description="send a packet", tooltip="follow its way, and ping")
        for box in (source, target, button):
            box.layout.width = "max-content"
        area = ipywidgets.HTML()

        def go(_change: object = None) -> None:
            area.value = self._html(source.value, target.value)

        button.on_click(go)
        source.observe(go, names="value")
        target.observe(go, names="value")
        go()
        row = ipywidgets.HBox([source, target, button], layout=ipywidgets.Layout(flex_flow="row wrap"))
        return ipywidgets.VBox([row, area])

    def _html(self, source: str, target: str) -> str:
        try:
            bundle = self.picture(source, target)._repr_mimebundle_()
            drawn = bundle.get("text/html", f"<pre>{html.escape(bundle['text/plain'])}</pre>")
            naming, verdict = self.naming(source, target), self.verdict(source, target)
        except (MinidockerError, ValueError, OSError) as error:
            return f'<p role="status">nothing to see: {html.escape(str(error))}</p>'
        return f"<p>{html.escape(naming)}</p>{drawn}<p role='status'><b>{html.escape(verdict)}</b></p>"

    def _repr_mimebundle_(self, **options: object) -> dict[str, Any]:
        names = self.names
        source, target = names[0], names[1 % len(names)]
        bundle = self.picture(source, target)._repr_mimebundle_()
        bundle["text/plain"] = self.text(source, target)
        return shown(self.widget(), bundle, options)
