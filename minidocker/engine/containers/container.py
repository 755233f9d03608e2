"""One container: the record on disk and the object in memory.

Source  Docker Engine API 1.44, ContainerInspect; what must survive a crash, and no more.
Rules   - `container.json` in the container's directory is the record; it is complete after create, so a daemon that
          finds it can start, list and remove the container.
        - the pid and whether it lives are the runtime's knowledge (exec-root): the record only says what was last seen.
        - `lock` is held by whoever changes the container; nobody holds two, nobody waits for an exit while holding one.
        - only the loop's thread changes a record; threads get it to read while the lock is held.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from minidocker.engine import clock
from minidocker.engine.containers.attaching import AttachWaiter, deliver
from minidocker.engine.containers.config import ContainerConfig, EndpointRequest, HostConfig
from minidocker.errors import MinidockerError
from minidocker.network.endpoint import Endpoint
from minidocker.network.rules import Published
from minidocker.oci import codec
from minidocker.storage import records

if TYPE_CHECKING:
    from minidocker.engine.containers.execs import Exec
    from minidocker.engine.containers.health import Health

log = logging.getLogger(__name__)

CREATED, RUNNING, PAUSED, RESTARTING, EXITED, DEAD, REMOVING = (
    "created",
    "running",
    "paused",
    "restarting",
    "exited",
    "dead",
    "removing",
)
RECORD_NAME = "container.json"
FIRST_WORDS_SECONDS = 0.1


class State(msgspec.Struct):
    """Where a container is in its life. Times are RFC 3339; `status` is one of the words above."""

    status: str = CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = clock.NEVER
    finished_at: str = clock.NEVER

    @property
    def running(self) -> bool:
        """A process is there, paused or not."""
        return self.status in (RUNNING, PAUSED)


class MountPoint(msgspec.Struct):
    """One mount of a container, as inspect shows it, and how to prepare it.

    source          directory or file of the host; for a volume its `_data`; "" for tmpfs.
    name            the volume's, else "".
    copy_up         an empty volume is filled from the image's directory at its first use.
    create_source   a missing directory of the host is made (as Docker does for -v, not for --mount).
    non_recursive   the host's mounts below the source stay away.
    read_only_below if it is read-only, so are the mounts below it (from API 1.44, as Docker).
    options         tmpfs options, in mount words.
    owned           an anonymous volume that goes with the container by `rm -v`.
    driver          the volume's; before it is made: the driver that was asked for, or "".
    to_mount        the driver has to mount the volume before it is used, see volume_use.
    mount_id        what a plugin's mount is called, as long as it is held.
    subpath         the part of the volume that is seen, below `source`; never outside, whatever links are in it.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    copy_up: bool = False
    create_source: bool = False
    non_recursive: bool = False
    read_only_below: bool = False
    options: list[str] = []
    owned: bool = False
    driver: str = ""
    to_mount: bool = False
    mount_id: str = ""
    subpath: str = ""

    @property
    def path(self) -> str:
        """The very directory or file of the host that is seen."""
        return f"{self.source}/{self.subpath}" if self.subpath else self.source


class Record(msgspec.Struct):
    """All that is kept of a container.

    lowerdir         the image's layers, as overlay takes them, relative to data-root/layers.
    chain            top chain ID of these layers ("": none); keeps them from being deleted.
    path, args       the command that runs.
    networks         what it is connected to, by name, and how; running or not.
    links            legacy links on the default network: alias -> ID of the other container.
    attached         its places in the bridge networks while it runs, by name, in the order of the interfaces.
    ports            what was bound, on the network published_on.
    resolver         the embedded DNS server answers inside, while it runs.
    removing         a remove has begun: a daemon that finds it finishes it.
    stopped_by_user  the restart policies look at it after a restart of the daemon.
    """

    id: str
    name: str
    created: str
    image: str
    image_id: str
    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointRequest] = {}
    links: dict[str, str] = {}
    lowerdir: str = ""
    chain: str = ""
    path: str = ""
    args: list[str] = []
    mounts: list[MountPoint] = []
    state: State = msgspec.field(default_factory=State)
    attached: dict[str, Endpoint] = {}
    ports: list[Published] = []
    published_on: str = ""
    resolver: bool = False
    restart_count: int = 0
    removing: bool = False
    stopped_by_user: bool = False


class Volatile(msgspec.Struct):
    """What is known of a running container that need not outlive a boot; beside the runtime's files in the exec-root.

    Written before the command runs, so the next daemon finds the container's address even if this one dies at once.
    """

    started_at: str
    attached: dict[str, Endpoint] = {}
    ports: list[Published] = []
    published_on: str = ""
    resolver: bool = False


VOLATILE_NAME = "engine.json"


class Container:
    """A container in memory: its record, its lock, and those who wait for it."""

    def __init__(self, record: Record, directory: Path) -> None:
        self.record = record
        self.directory = directory
        self.lock = asyncio.Lock()
        self.execs: dict[str, Exec] = {}
        self.health: Health | None = None
        self.attach_waiters: list[AttachWaiter] = []
        self.restart_task: asyncio.Task[None] | None = None
        self.restart_delay = 0.0
        self.stopping = False
        self.watched = False
        self.removed = False
        self._saving = asyncio.Lock()
        self._exit_waiters: set[asyncio.Future[int]] = set()
        self._removal_waiters: set[asyncio.Future[int]] = set()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def log_path(self) -> Path | None:
        """The log that can be read: of the drivers json-file and local, a copy with syslog; None with any other."""
        log = self.record.host.log_config
        places = {"json-file": f"{self.id}-json.log", "local": "local-logs/container.log"}
        place = places.get(log.type, "container-cached.log" if log.keeps_copy else "")
        return self.directory / place if place else None

    async def save(self) -> None:
        """Write the record, durably; one write at a time, the newest state last. Nothing if it was removed."""
        async with self._saving:
            if self.removed or self.record.removing:
                return
            content = codec.encode(self.record)
            await asyncio.to_thread(records.write_bytes, self.directory / RECORD_NAME, content)

    async def note(self) -> None:
        """`save` for what has happened whether it can be written or not: a full disk is logged, memory has it right."""
        try:
            await self.save()
        except MinidockerError as error:
            log.error("state not written", extra={"container": self.id, "reason": str(error)})

    def exit_future(self) -> "asyncio.Future[int]":
        """A future of the next exit's code."""
        return _future_in(self._exit_waiters)

    async def say_first_words(self) -> None:
        """Give a command that has only just been started the time that Docker's start would have taken, or its end.

        Clients ask for what it has said right after a start, and with Docker it has said it by then.
        """
        if self.state.running:
            age_seconds = (time.time_ns() - clock.nanoseconds_of(self.state.started_at)) / 1e9
            if 0 <= age_seconds < FIRST_WORDS_SECONDS:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.exit_future(), FIRST_WORDS_SECONDS - age_seconds)

    def removal_future(self) -> "asyncio.Future[int]":
        """A future of the exit code, set when the container has been removed."""
        return _future_in(self._removal_waiters)

    def tell_exit(self) -> None:
        """Wake those who wait for an exit."""
        _tell(self._exit_waiters, self.state.exit_code)

    def tell_removal(self) -> None:
        """Wake those who wait for the removal."""
        self.removed = True
        for waiter in list(self.attach_waiters):
            deliver(self.attach_waiters, waiter, None)
        _tell(self._removal_waiters, self.state.exit_code)

    def attributes(self, **more: str) -> dict[str, str]:
        """What an event says about the container: its labels, image and name."""
        return {**(self.record.config.labels or {}), **more, "image": self.record.image, "name": self.name}


def _future_in(waiters: "set[asyncio.Future[int]]") -> "asyncio.Future[int]":
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiters.add(future)
    future.add_done_callback(waiters.discard)
    return future


def _tell(waiters: "set[asyncio.Future[int]]", code: int) -> None:
    for future in list(waiters):
        if not future.done():
            future.set_result(code)
