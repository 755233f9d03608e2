"""The engine: everything that a daemon does, without HTTP.

Rules   - it gets all it needs as arguments, so two engines live side by side in one process or on one machine.
        - `open` takes the locks of its roots, repairs what a crash left and finds living containers again; `close` lets
          them live on or stops them.
        - operations are async where they wait; what blocks runs in threads.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minidocker.engine.abilities import Abilities
from minidocker.engine.background import Background
from minidocker.engine.containers import starting
from minidocker.engine.containers.config import LogConfig
from minidocker.engine.containers.container import MountPoint, Record
from minidocker.engine.containers.containers import Containers
from minidocker.engine.containers.copying import Copying
from minidocker.engine.containers.creating import Creating
from minidocker.engine.containers.execs import Execs
from minidocker.engine.containers.health import HealthChecks
from minidocker.engine.containers.removal import Removal
from minidocker.engine.containers.running import Running
from minidocker.engine.containers.starting import Starter
from minidocker.engine.containers.statistics import Sampler
from minidocker.engine.containers.supervision import Supervision
from minidocker.engine.containers.updating import Updating
from minidocker.engine.events import Events
from minidocker.engine.images.commit import Committing
from minidocker.engine.images.images import Images
from minidocker.engine.networks.attachments import Attachments
from minidocker.engine.networks.connecting import Connecting
from minidocker.engine.networks.links import Links
from minidocker.engine.networks.networks import Networks
from minidocker.engine.networks.resolving import Resolving
from minidocker.engine.plugins import Directories, Plugins, no_transport
from minidocker.engine.volumes.volume_use import VolumeUse
from minidocker.engine.volumes.volumes import Volumes
from minidocker.errors import Conflict, MinidockerError
from minidocker.linux.cgroups import Cgroup
from minidocker.linux.forkserver import ForkedProcess, ForkServer, ForkServerDied
from minidocker.network.bridge import BridgeNetwork
from minidocker.oci.digest import Digest
from minidocker.runtime.lifecycle import LAUNCHER, Runtime
from minidocker.storage.blobs import BlobStore
from minidocker.storage.images import Image, ImageStore
from minidocker.storage.layers import LayerStore
from minidocker.storage.volumes import VolumeStore
from minidocker.storage.worker import Stopped, Worker

LAUNCHER_NAME = "minidocker-launcher"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a daemon is told by its flags.

    authorization_plugins  their names, for info.
    identity             shown as ID by info; made once and kept in the data root.
    python_path          where the launcher and the worker may import from.
    registry_certs_dirs  where registries' certificates are; None: the usual places.
    init_path            the static init for --init; "": there is none.
    log                  the logging driver of containers that name none.
    stop_seconds         how long containers may take to stop at the engine's end without live-restore.
    """

    data_root: Path
    exec_root: Path
    cgroup_parent: str = "/minidocker"
    live_restore: bool = True
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_certs_dirs: tuple[Path, ...] | None = None
    init_path: str = ""
    debug: bool = False
    authorization_plugins: tuple[str, ...] = ()
    identity: str = ""
    stop_seconds: float = 15.0
    log: LogConfig = field(default_factory=lambda: LogConfig("json-file", {}))
    python_path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))


class Launcher(ForkServer):
    """The fork server of containers, started again if it died (60 ms to the next container)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._current = self._spawn()

    def _spawn(self) -> ForkServer:
        settings = self._settings
        return ForkServer.spawn(
            LAUNCHER_NAME, LAUNCHER, exec_root=settings.exec_root, python_path=list(settings.python_path)
        )

    def fork(self, request: bytes, fds: Sequence[int] = ()) -> ForkedProcess:
        server = self._current
        try:
            return server.fork(request, fds)
        except ForkServerDied:
            with self._guard:
                if self._current is server:  # another thread may have replaced it already
                    with contextlib.suppress(MinidockerError, OSError):
                        server.close()
                    self._current = self._spawn()
            return self._current.fork(request, fds)

    def close(self) -> None:
        self._current.close()


def lock_root(directory: Path, what: str) -> int:
    """Make a root and hold its lock for as long as the returned descriptor is open.

    Raises  Conflict: another daemon uses it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(f"{what} {directory} is in use by another daemon; give this one its own by --{what}") from None
    return fd


class Engine:
    """One engine on its two roots. Make it, `await open()`, use it, `await close()`."""

    def __init__(
        self, settings: Settings, network: BridgeNetwork | None, plugins: Plugins | None = None
    ) -> None:
        self._locks = [lock_root(settings.data_root, "data-root"), lock_root(settings.exec_root, "exec-root")]
        self.settings = settings
        self.network = network
        self.plugins = plugins or Plugins(no_transport, Directories(Path("/nonexistent"), ()))
        self.abilities = Abilities.detect()
        self.events = Events()
        self.background = Background()
        self.worker = Worker(settings.exec_root, settings.python_path)
        self.blobs = BlobStore(settings.data_root)
        self.layers = LayerStore(settings.data_root, self.worker)
        self.image_store = ImageStore(settings.data_root, self.blobs)
        self.volume_store = VolumeStore(settings.data_root)
        self.launcher = Launcher(settings)
        self.runtime = Runtime(settings.exec_root, self.launcher)
        self.networks = Networks(self, settings.data_root / "networks")
        self.attachments = Attachments(self.networks)
        self.links = Links(lambda text: self.containers.get(text), lambda: self.containers.all())
        self.starter = self._starter()
        self.containers = Containers(self, settings.data_root / "containers")
        self.creating = Creating(self)
        self.removal = Removal(self)
        self.execs = Execs(self)
        self.running = Running(self)
        self.supervision = Supervision(self)
        self.resolving = Resolving(self)
        self.connecting = Connecting(self)
        self.volumes = Volumes(self)
        self.volume_use = VolumeUse(self)
        self.health = HealthChecks(self)
        self.sampler = Sampler(self)
        self.updating = Updating(self)
        self.images = Images(self)
        self.copying = Copying(self)
        self.committing = Committing(self)

    def _starter(self) -> Starter:
        return Starter(
            runtime=self.runtime,
            attachments=self.attachments,
            links=self.links,
            host_gateway=lambda: str(self.network.gateway) if self.network is not None else None,
            layers_directory=self.layers_directory,
            cgroup_parent=self.settings.cgroup_parent,
            init_path=self.settings.init_path,
            available=starting.engine_capabilities(),
            joined=lambda name: self.containers.get(name),
            swap_limit=self.abilities.swap,
            sysctls=starting.network_sysctls(),
        )

    @property
    def layers_directory(self) -> Path:
        """Where a record's lowerdir starts."""
        return self.settings.data_root / "layers"

    async def open(self) -> None:
        """Repair, load, find living containers again. Then requests may be served."""
        await asyncio.to_thread(self._repair)
        self.containers.load()
        await asyncio.to_thread(self.removal.repair, self.containers.directory)
        await self.supervision.adopt()
        await self.images.open()
        self.background.spawn(self._finish())

    async def _finish(self) -> None:
        """What plugins are asked to do after a crash: in the background, since they may not answer."""
        await self.volume_use.finish()
        await self.volumes.finish()

    def _repair(self) -> None:
        self.blobs.repair()
        self.layers.repair()
        self.image_store.leave_out_without(lambda chain: self.layers.get(chain) is not None)
        self.volume_store.repair()

    async def close(self, *, stop: bool | None = None) -> None:
        """Let go of everything. `stop`: end the containers first; None: unless live-restore is on."""
        stop = not self.settings.live_restore if stop is None else stop
        await self.supervision.close(stop=stop, timeout_seconds=self.settings.stop_seconds)
        self.resolving.close()
        await self.images.close()
        await asyncio.to_thread(self._close, any(c.state.running for c in self.containers.all()))

    def _close(self, containers_live: bool) -> None:
        if not containers_live:
            self.networks.close()
            Cgroup.open(self.settings.cgroup_parent).prune()
        self.launcher.close()
        self.worker.close()
        for fd in self._locks:
            os.close(fd)

    # -- what the parts ask of the whole --

    def lowerdir(self, image: Image) -> str:
        """The image's layers as overlay takes them: short names, top layer first.

        An image without files stands on an empty directory, since overlay wants one lower layer.
        """
        if not image.chain_ids:
            empty = self.layers_directory / "empty"
            empty.mkdir(parents=True, exist_ok=True, mode=0o755)
            return "empty"
        return self.layers.lowerdir(self.layers.chain(image.chain_ids[-1]))

    def layers_bytes(self, image_id: str) -> int:
        """The bytes of an image's unpacked layers; 0 if the image is gone."""
        try:
            image = self.image_store.get(Digest(image_id))
            return sum(layer.size for layer in self.layers.chain(image.chain_ids[-1])) if image.chain_ids else 0
        except MinidockerError:
            return 0

    def descendants(self, name: str) -> list[str]:
        """The IDs of an image and of all that stand on its layers (the `ancestor` filter)."""
        ancestor = self.image_store.find(name)
        count = len(ancestor.chain_ids)
        return [
            str(image.id) for image in self.image_store.list()
            if image.id == ancestor.id or (count and image.chain_ids[:count] == ancestor.chain_ids)
        ]  # fmt: skip

    def copy_up(self, record: Record, point: MountPoint) -> None:
        """Fill an empty volume from the image's directory, in a worker."""
        directory = self.settings.data_root / "containers" / record.id
        place = Stopped(str(self.layers_directory), record.lowerdir, str(directory / "upper"), str(directory / "work"))
        self.worker.copy_up(place, point.destination, Path(point.source), point.subpath)


def identity_of(data_root: Path) -> str:
    """The daemon's ID, kept in the data root; made at the first start."""
    path = data_root / "engine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        data_root.mkdir(parents=True, exist_ok=True, mode=0o711)
        text = secrets.token_hex(16)
        path.write_text(text + "\n")
        return text


__all__ = ["Engine", "Launcher", "Settings", "identity_of", "lock_root"]
