"""Legacy links: on the default network a container may know another one by an alias of its own.

Source  Docker's documentation of legacy container links; moby daemon/links, container_operations_unix.go.
Rules   - an alias is a line in /etc/hosts and some words in the environment, both made when the container starts.
        - the other container must run then; when it starts again with another address, the line is changed. If it is
          gone, so is the link.
        - a link is a second name of the other container, "me/alias": requests may use it, and remove it.
        - on user-defined networks a link is one more DNS name (resolving.py); there is no environment.
"""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from minidocker.engine.containers.container import Container, Record
from minidocker.engine.containers.etc_files import LiveFiles
from minidocker.engine.networks.attachments import DEFAULT
from minidocker.engine.values import parse_port
from minidocker.errors import Conflict, InvalidArgument, MinidockerError, NotFound


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a container that starts: a line for /etc/hosts, and words for the environment."""

    hosts_line: str
    environment: tuple[str, ...]


def parse(text: str) -> tuple[str, str]:
    """("container", "alias") of "container:alias" or "container". Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("empty string specified for links")
    name, colon, alias = text.partition(":")
    if not name or (colon and not alias) or ":" in alias or any(character.isspace() for character in text):
        raise InvalidArgument(f"bad format for links: {text}")
    name = name.removeprefix("/")
    return name, (alias or name).rpartition("/")[2]


def line_of(other: Record, alias: str) -> str:
    """The line of /etc/hosts, without its end."""
    endpoint = other.attached[DEFAULT]
    own = [other.config.hostname, other.name] if other.config.hostname != other.name else [other.name]
    return f"{endpoint.address}\t{' '.join(dict.fromkeys([alias, *own]))}"


class Links:
    """Links, on an engine's containers.

    find  a container by name or ID; raises NotFound
    """

    def __init__(self, find: Callable[[str], Container], everyone: Callable[[], Collection[Container]]) -> None:
        self._find, self._everyone = find, everyone

    def resolve(self, texts: list[str]) -> dict[str, str]:
        """Alias -> ID of what `HostConfig.Links` asks for. Raises InvalidArgument: no such container."""
        found = {}
        for text in texts:
            name, alias = parse(text)
            try:
                found[alias] = self._find(name).id
            except NotFound as error:
                raise InvalidArgument(f"could not get container for {name}: {error}") from None
        return found

    def of(self, record: Record) -> list[Link]:
        """What the links of a container mean now. Raises MinidockerError: another one does not run."""
        found = []
        for alias, id in record.links.items():
            with contextlib.suppress(NotFound):
                self._find(id)
                found.append(self._link(record, alias, id))
        return found

    def target(self, path: str) -> str | None:
        """The ID of the container that "container/alias" means; None: no such link."""
        name, _, alias = path.removeprefix("/").partition("/")
        with contextlib.suppress(NotFound, InvalidArgument):
            return self._find(name).record.links.get(alias) if alias else None
        return None

    async def remove(self, path: str) -> None:
        """Forget the link "container/alias". Raises NotFound: no such link. Conflict: the path is of a container."""
        name, slash, alias = path.removeprefix("/").partition("/")
        if not slash:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        if self.target(path) is None:
            raise NotFound(f"No such container: {path}")
        container = self._find(name)
        async with container.lock:
            container.record.links.pop(alias, None)
            await container.save()
            if container.state.running:
                LiveFiles(container.record, container.directory).remove_link(alias)

    def names(self) -> dict[str, list[str]]:
        """The names that containers have by links, by their IDs: "/me/alias"."""
        found: dict[str, list[str]] = {}
        for one in self._everyone():
            for alias, target in one.record.links.items():
                found.setdefault(target, []).append(f"/{one.record.name}/{alias}")
        return {id: sorted(names) for id, names in found.items()}

    def _link(self, record: Record, alias: str, id: str) -> Link:
        other = self._find(id)
        if not other.state.running:
            raise MinidockerError(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")
        if DEFAULT not in other.record.attached:
            raise MinidockerError(f"Cannot link to /{other.name}, as it does not belong to the default network")
        return Link(line_of(other.record, alias), tuple(_environment(record.name, alias, other.record)))

    def environment(self, record: Record) -> tuple[str, ...]:
        """The words of all links, as far as their containers run."""
        words: list[str] = []
        for alias, id in record.links.items():
            with contextlib.suppress(MinidockerError):
                words += self._link(record, alias, id).environment
        return tuple(words)

    def shown(self, record: Record) -> list[str]:
        """HostConfig.Links of an inspect: "/other:/me/alias"."""
        shown = []
        for alias, id in record.links.items():
            try:
                shown.append(f"/{self._find(id).name}:/{record.name}/{alias}")
            except MinidockerError:
                continue  # it was removed meanwhile
        return sorted(shown)

    def came(self, container: Container) -> None:
        """A container has started, perhaps at another address: running ones with a link to it learn of it."""
        if DEFAULT not in container.record.attached:
            return
        for other in self._everyone():
            for alias, id in other.record.links.items():
                if id == container.id and other.state.running:
                    LiveFiles(other.record, other.directory).replace_link(alias, line_of(container.record, alias))


def _environment(name: str, alias: str, other: Record) -> list[str]:
    """Docker's words: where the other's exposed ports are, what it is called, what its environment says."""
    prefix, address = alias.replace("-", "_").upper(), other.attached[DEFAULT].address
    exposed = sorted({parse_port(port) for port in other.config.exposed_ports or {}}, key=lambda p: p[0])
    words = []
    for number, (low, high, protocol) in enumerate(exposed):
        if number == 0:
            words.append(f"{prefix}_PORT={protocol}://{address}:{low}")
        for port in range(low, high + 1):
            key = f"{prefix}_PORT_{port}_{protocol.upper()}"
            words += [f"{key}={protocol}://{address}:{port}", f"{key}_ADDR={address}", f"{key}_PORT={port}",
                      f"{key}_PROTO={protocol}"]  # fmt: skip
    words.append(f"{prefix}_NAME=/{name}/{alias}")
    words += [f"{prefix}_ENV_{entry}" for entry in other.config.env or [] if not entry.startswith(("PATH=", "HOME="))]
    return words
