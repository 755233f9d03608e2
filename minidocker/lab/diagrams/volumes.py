"""What a container sees mounted, by source: its image, volumes, directories of the host, memory, plugins.

Source  proc_pid_mountinfo(5); Docker Engine API, ContainerInspect (Mounts, HostConfig.Tmpfs).
Rules   - filesystem and mode are the kernel's word, by /proc/PID/mountinfo; names and drivers are the daemon's.
        - a source that several containers have is drawn once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from minidocker.client.containers import Container
from minidocker.client.resource import document
from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted
from minidocker.linux.mounts import Mount, mountinfo

IMAGE, VOLUME, PLUGIN, BIND, TMPFS = "image", "volume", "plugin's volume", "host directory", "memory (tmpfs)"
LIFE = {
    IMAGE: "removed with the container",
    VOLUME: "stays until it is removed itself",
    PLUGIN: "the plugin's affair",
    BIND: "stays: it is the host's",
    TMPFS: "gone when the container stops",
}


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount of a container.

    source  what the daemon calls it: the image's name, the volume's, the path on the host, or "" for memory.
    place   where it is on the host, if it is anywhere.
    driver  of a volume.
    mode    "rw" or "ro", by the kernel.
    """

    container: str
    target: str
    kind: str
    source: str
    place: str
    driver: str
    mode: str
    fstype: str

    @property
    def name(self) -> str:
        """How its source is called in the picture; the same for two containers that share it."""
        if self.kind == IMAGE:
            return f"{self.container}'s layer on image {self.source}"
        if self.kind == TMPFS:
            return f"memory of {self.container} at {self.target}"
        return f"{self.kind} {self.source}"


def mounts_of(container: Container) -> list[Mounted]:
    """The mounts that were asked for, and the root. Raises ValueError: the container does not run."""
    container.reload()
    attrs = container.attrs
    name, pid = str(attrs["Name"]).lstrip("/"), document(attrs["State"]).get("Pid")
    if not isinstance(pid, int) or not pid:
        raise ValueError(f"container {name} does not run, so nothing is mounted for it")
    seen = {mount.mount_point: mount for mount in mountinfo(pid)}
    image = str(document(attrs["Config"])["Image"])
    found = [_made(name, seen["/"], IMAGE, image, "", "")]
    listed = attrs["Mounts"]
    assert isinstance(listed, list)
    for one in listed:
        kind = {"volume": VOLUME, "bind": BIND}.get(one["Type"], TMPFS)
        driver = str(one.get("Driver") or "")
        kind = PLUGIN if kind == VOLUME and driver not in ("", "local") else kind
        source = str(one.get("Name") or one.get("Source") or "")
        if mount := seen.get(one["Destination"]):
            found.append(_made(name, mount, kind, source, str(one.get("Source") or ""), driver))
    memory = document(document(attrs["HostConfig"]).get("Tmpfs") or {})
    targets = {one.target for one in found}
    found += [_made(name, seen[path], TMPFS, "", "", "") for path in memory if path in seen and path not in targets]
    return found


def _made(container: str, mount: Mount, kind: str, source: str, place: str, driver: str) -> Mounted:
    mode = "ro" if "ro" in mount.options else "rw"
    return Mounted(container, mount.mount_point, kind, source, place, driver, mode, mount.fstype)


def volume_map(containers: Iterable[Container], title: str = "mounts") -> Picture:
    """Sources on the left, containers on the right, and where in them each is mounted.

    Raises  ValueError: none is given, or one does not run.
    """
    found = [mounted for container in containers for mounted in mounts_of(container)]
    if not found:
        raise ValueError("no container is given: there is nothing to draw")
    names = dict.fromkeys(one.container for one in found)
    lines = ['ranksep="1.2"']
    lines += [f"{quoted('container ' + name)} [label={quoted('container', name)}]" for name in names]
    for one in {one.name: one for one in found}.values():
        words = [one.name, *([one.place] if one.place and one.kind != BIND else []), f"({LIFE[one.kind]})"]
        lines.append(f"{quoted(one.name)} [label={quoted(*words)} {_look(one.kind)}]")
    for one in found:
        label = quoted(one.target, _words(one.mode))
        lines.append(f"{quoted(one.name)} -> {quoted('container ' + one.container)} [label={label}]")
    rows = tuple(
        (
            one.container,
            one.target,
            one.kind,
            one.source or "-",
            one.driver or "-",
            one.mode,
            one.fstype,
            LIFE[one.kind],
        )
        for one in found
    )
    sources = [one.name for one in found]
    shared = len({name for name in sources if sources.count(name) > 1})
    asked = [
        " ".join(f"{one.container} has {one.kind} {one.source} at {one.target}".split())
        for one in found
        if one.kind != IMAGE
    ]
    alt = f"{title}: {count(len(names), 'container')}, {len(set(sources))} sources, {shared} of them shared; "
    alt += "; ".join(asked) or "nothing but images"
    columns = ("container", "inside at", "kind", "source", "driver", "mode", "filesystem", "its life")
    return Picture("\n".join(lines), alt, columns, rows)


def _words(mode: str) -> str:
    return {"ro": "read only", "rw": "read and write"}[mode]


def _look(kind: str) -> str:
    if kind == IMAGE:
        return 'style="filled,dashed"'
    if kind == TMPFS:
        return 'style="filled,dotted"'
    return (
        f'fillcolor="{SHARED if kind in (VOLUME, PLUGIN) else OWN}" shape="{"folder" if kind == BIND else "cylinder"}"'
    )
