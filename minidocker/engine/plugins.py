"""Plugins: programs beside the daemon that it asks over HTTP; where they are found, what they say they can do, calls.

Source  Docker's "Plugin API" (docs.docker.com/engine/extend/plugin_api): discovery, handshake, retries; the calls of
        each kind are in volume_drivers.py and the daemon's authorization.py.
Rules   - a plugin is found by its name, when it is needed: `NAME.sock` in the directory of sockets, else `NAME.spec`
          (an address) or `NAME.json` in one of the others. It is asked once what it implements.
        - every call has a time limit and a bounded answer, and none holds anything that other calls need.
        - only a call that has not reached the plugin is tried again: nothing is done twice.
        - one that let a call run out of time is not asked for lists and searches for a while.
"""

import asyncio
import itertools
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from minidocker import typed
from minidocker.errors import InvalidArgument, MinidockerError, NotFound, Unavailable

T = TypeVar("T")
SOCKETS = Path("/run/docker/plugins")
SPECS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
VOLUME_DRIVER, AUTHORIZATION = "VolumeDriver", "authz"
_SCHEMES = ("unix", "tcp", "http", "https")
SEARCH_SECONDS = 5.0
_FILE_LIMIT_BYTES = 64 << 10
_LONGEST_PAUSE_SECONDS = 15.0
_SILENCE_SECONDS = 30.0


class Unreachable(Unavailable):
    """Nobody listens: the call has not reached the plugin."""


class TimedOut(Unavailable):
    """The plugin has not answered in time."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """How a plugin's https is checked. authority ""): the machine's own list; insecure: not at all."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """Where a plugin answers.

    url    unix:///path, tcp://host:port, http://... or https://...
    stamp  changes when another program listens there: it is asked anew what it implements.
    """

    name: str
    url: str
    tls: TlsFiles | None = None
    stamp: tuple[int, int] = (0, 0)


class Transport(Protocol):
    """Sends a POST with a JSON body to a plugin; HTTP belongs to the daemon, which hands this in."""

    async def __call__(self, address: Address, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        """Status and body. Raises Unreachable, TimedOut; Unavailable: it ended in the middle, or said too much."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: of a call, of one that may have to fetch or format something, of trying again, of lists and searches."""

    short: float = 60.0
    long: float = 120.0
    retry: float = 30.0
    search: float = SEARCH_SECONDS

    @classmethod
    def within(cls, seconds: float) -> "Limits":
        """Limits for which an ordinary call may take `seconds`, the others in Docker's proportions."""
        return cls(seconds, 2 * seconds, seconds / 2, min(SEARCH_SECONDS, seconds))


@dataclass(frozen=True, slots=True)
class Directories:
    """Where plugins are looked for."""

    sockets: Path = SOCKETS
    specs: tuple[Path, ...] = SPECS

    def candidates(self, name: str) -> Iterator[Path]:
        """The files that may tell of a plugin, in the order in which they count."""
        yield from _places(self.sockets, name, ".sock")
        for directory in self.specs:
            yield from _places(directory, name, ".spec")
            yield from _places(directory, name, ".json")


class _SpecTls(msgspec.Struct, rename="pascal"):
    insecure_skip_verify: bool = False
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""


class _Spec(msgspec.Struct, rename="pascal"):
    addr: str
    tls_config: _SpecTls | None = msgspec.field(default=None, name="TLSConfig")


class _Activated(msgspec.Struct, rename="pascal"):
    implements: list[str] | None = None


class _Failure(msgspec.Struct, rename="pascal"):
    err: str = ""


def _places(directory: Path, name: str, suffix: str) -> tuple[Path, Path]:
    return directory / f"{name}{suffix}", directory / name / f"{name}{suffix}"


def find(directories: Directories, name: str) -> Address:
    """Where the plugin of that name answers.

    Raises  NotFound. InvalidArgument: the file that tells of it cannot be understood.
    """
    if name and name not in (".", "..") and "/" not in name and "\0" not in name and len(name) < 200:
        for path in directories.candidates(name):
            try:
                status = path.stat()
            except OSError:
                continue
            stamp = (status.st_ino, status.st_mtime_ns)
            if path.suffix == ".sock":
                if stat.S_ISSOCK(status.st_mode):
                    return Address(name, f"unix://{path}", stamp=stamp)
            elif stat.S_ISREG(status.st_mode):
                return _described(name, path, stamp)
    raise NotFound(f'plugin "{name[:200]}" not found')


def _described(name: str, path: Path, stamp: tuple[int, int]) -> Address:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_LIMIT_BYTES)
        spec = _Spec(content.decode().strip()) if path.suffix == ".spec" else typed.decode(content, _Spec)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f'plugin "{name}": cannot read {path}: {error}') from error
    if urlsplit(spec.addr).scheme not in _SCHEMES:
        raise InvalidArgument(
            f'plugin "{name}": {path}: unknown protocol in "{spec.addr}"; known: {", ".join(_SCHEMES)}'
        )
    tls = spec.tls_config
    files = None if tls is None else TlsFiles(tls.ca_file, tls.cert_file, tls.key_file, tls.insecure_skip_verify)
    return Address(name, spec.addr, files, stamp)


def names(directories: Directories) -> list[str]:
    """The names of all plugins that there are files of; whether they answer is not known."""
    found = set()
    places = [(directories.sockets, (".sock",)), *((directory, (".spec", ".json")) for directory in directories.specs)]
    for directory, suffixes in places:
        try:
            entries = list(directory.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.suffix in suffixes:
                found.add(entry.stem)
            elif any((entry / f"{entry.name}{suffix}").exists() for suffix in suffixes):
                found.add(entry.name)
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that there is a file of. implements: None while it has not answered."""

    address: Address
    implements: tuple[str, ...] | None = None


@dataclass(slots=True)
class Plugins:
    """The plugins of one daemon. Used from the loop's thread."""

    transport: Transport
    directories: Directories = field(default_factory=Directories)
    limits: Limits = field(default_factory=Limits)
    _known: dict[Address, tuple[str, ...]] = field(default_factory=dict)
    _silent_until: dict[Address, float] = field(default_factory=dict)

    def active(self, kind: str) -> list[str]:
        """The names of those that are known to implement `kind`: what has been used so far, as Docker's info shows."""
        known = {address.name for address, kinds in self._known.items() if kind in kinds}
        return sorted(known.intersection(names(self.directories)))

    async def get(self, name: str, kind: str) -> Address:
        """The plugin of that name, once it has said that it implements `kind`.

        Raises  NotFound. InvalidArgument: it implements something else. Unavailable: it does not answer.
        """
        address = find(self.directories, name)
        if kind not in await self._implements(address, self.limits.short, patient=True):
            raise InvalidArgument(f'plugin "{name}" does not implement the requested driver: {kind}')
        return address

    async def call(self, name: str, kind: str, method: str, arguments: object, reply: type[T], *,
                   seconds: float = 0.0, patient: bool = True) -> T:  # fmt: skip
        """POST /KIND.METHOD with JSON.

        seconds  how long; 0: the short limit.
        patient  try again for a while if nobody listens.
        Raises   as `get`; MinidockerError: what the plugin says went wrong.
        """
        address = await self.get(name, kind)
        return await self.ask(address, method, arguments, reply, seconds=seconds or self.limits.short, patient=patient)

    async def _implements(self, address: Address, seconds: float, *, patient: bool) -> tuple[str, ...]:
        if address not in self._known:
            reply = await self.ask(address, "Plugin.Activate", None, _Activated, seconds=seconds, patient=patient)
            for other in [known for known in self._known if known.name == address.name]:
                del self._known[other]
            self._known[address] = tuple(reply.implements or ())
        return self._known[address]

    async def ask(self, address: Address, method: str, arguments: object, reply: type[T], *, seconds: float,
                  patient: bool) -> T:  # fmt: skip
        """`call` of a plugin that was found already."""
        body = b"" if arguments is None else msgspec.json.encode(arguments)
        try:
            status, answer = await self._sent(address, f"/{method}", body, seconds, patient=patient)
        except TimedOut:
            self._silent_until[address] = time.monotonic() + _SILENCE_SECONDS
            raise
        self._silent_until.pop(address, None)
        try:
            error = typed.decode(answer, _Failure).err
        except (msgspec.MsgspecError, RecursionError):
            error = answer[:1000].decode(errors="replace").strip() if status != 200 else ""
        if status != 200:
            raise MinidockerError(f"{method}: {error or f'status {status}'}")
        if error:
            raise MinidockerError(error)
        try:
            return typed.decode(answer.strip() or b"{}", reply)
        except (msgspec.MsgspecError, RecursionError) as problem:
            raise MinidockerError(f'plugin "{address.name}" answered {method} with no JSON of it: {problem}') from None

    async def _sent(
        self, address: Address, path: str, body: bytes, seconds: float, *, patient: bool
    ) -> tuple[int, bytes]:
        """Docker's pauses between tries: 1, 2, 4, ... seconds."""
        began = time.monotonic()
        for attempt in itertools.count():
            try:
                return await self.transport(address, path, body, seconds)
            except Unreachable:
                pause = min(2.0**attempt, _LONGEST_PAUSE_SECONDS)
                if not patient or time.monotonic() - began + pause >= self.limits.retry:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def all(self) -> list[Plugin]:
        """All that there are files of; those that have not said yet what they implement are asked, for a short time."""
        return list(await asyncio.gather(*(self._look(name) for name in names(self.directories))))

    async def _look(self, name: str) -> Plugin:
        try:
            address = find(self.directories, name)
        except MinidockerError:
            return Plugin(Address(name, ""))
        if time.monotonic() < self._silent_until.get(address, 0.0):
            return Plugin(address)
        try:
            return Plugin(address, await self._implements(address, self.limits.search, patient=False))
        except MinidockerError:
            return Plugin(address)

    async def implementing(self, kind: str) -> list[str]:
        """The names of all that answer and implement `kind`."""
        return [one.address.name for one in await self.all() if kind in (one.implements or ())]

    def silent(self, name: str) -> bool:
        """Whether the plugin has let a call run out of time a moment ago."""
        return any(address.name == name and until > time.monotonic() for address, until in self._silent_until.items())


async def no_transport(address: Address, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """For an engine that was given no way to reach plugins."""
    raise Unreachable(f'plugin "{address.name}": this engine speaks to no plugins')
