"""Which replica of which service runs on which daemon: what is wanted beside what there is.

Source  the labels of containers, as the daemons list them (Docker Engine API, ContainerList).
"""

from collections.abc import Mapping
from typing import NamedTuple

from minidocker.client.client import Client
from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted

SERVICE = "course.service"


class Replica(NamedTuple):
    """One container of a service, and the daemon that has it."""

    node: str
    service: str
    name: str


def replicas(nodes: Mapping[str, Client], label: str = SERVICE) -> list[Replica]:
    """The running containers that carry the label; its value is the name of their service."""
    found = []
    for node, client in nodes.items():
        for container in client.containers.list(filters={"label": [label]}):
            labels, names = container.attrs["Labels"], container.attrs["Names"]
            assert isinstance(labels, dict) and isinstance(names, list)
            found.append(Replica(node, str(labels[label]), str(names[0]).lstrip("/")))
    return sorted(found)


def cluster(nodes: Mapping[str, Client], desired: Mapping[str, int], label: str = SERVICE) -> Picture:
    """Each daemon as a box with the replicas in it; below, what is wanted of each service and what is found.

    desired  service -> how many replicas.
    """
    there = replicas(nodes, label)
    lines = ["rankdir=TB"]
    for number, node in enumerate(nodes):
        here = [replica for replica in there if replica.node == node]
        lines.append(f'subgraph cluster_{number} {{ label={quoted(f"daemon {node}")} fontname="Helvetica"')
        lines += [
            f'{quoted(replica.name)} [label={quoted(replica.name, replica.service)} fillcolor="{SHARED}"]'
            for replica in here
        ]
        lines += [] if here else [f'empty{number} [label="nothing runs here" style="dashed"]']
        lines.append("}")
    rows = []
    for service, wanted in desired.items():
        on = [replica.node for replica in there if replica.service == service]
        spread = ", ".join(f"{on.count(node)} on {node}" for node in nodes)
        what = "as wanted" if len(on) == wanted else "too few" if len(on) < wanted else "too many"
        rows.append((service, str(wanted), str(len(on)), spread, what))
        look = 'shape="note"' if what == "as wanted" else f'shape="note" fillcolor="{OWN}" style="filled,bold"'
        label_of = quoted(service, f"{len(on)} of {wanted}, {what}")
        lines.append(f"{quoted('service ' + service)} [label={label_of} {look}]")
    alt = f"{count(len(nodes), 'daemon')} with {count(len(there), 'replica')}: " + "; ".join(
        f"{service} has {found} of {wanted}, {what}" for service, wanted, found, _, what in rows
    )
    return Picture("\n".join(lines), alt, ("service", "wanted", "found", "where", ""), tuple(rows))
