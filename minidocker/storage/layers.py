"""Layers: unpacked once, shared by all images and containers that stand on them.

Source  OCI image-spec, config.md#layer-chainid and layer.md; overlayfs.rst.
Rules   - a layer is filed under its chain ID (itself and all below it): `layers/<chain>/diff`, with `layer.json`, which
          also holds the short name that overlay mounts use, `layers/l/<short> -> ../<chain>/diff`.
        - it is made aside in `layers/staged/`, synced once as a whole, and renamed: that rename is the one moment at
          which it begins to exist. What lies in `staged` at start is the leftover of a crash.
        - whoever deletes a layer has asked the image store and the containers that nobody stands on it.
        - chains are base first; only `lowerdir` turns them round.
"""

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from minidocker.errors import InvalidArgument, KernelError, NotFound, VerificationError
from minidocker.linux.syscall import syscall
from minidocker.oci import codec
from minidocker.oci.digest import Digest
from minidocker.oci.manifest import LAYER_COUNT_LIMIT
from minidocker.storage import records, trees
from minidocker.storage.directories import OPAQUE_XATTR
from minidocker.storage.worker import Worker
from minidocker.storage.worker_protocol import EMPTY

_SHORT_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SHORT_LENGTH = 12  # "l/" + 12 + ":" for each of 127 layers leaves half of a page for the other options

Progress = Callable[[int], object]


class Layer(msgspec.Struct, frozen=True):
    """One layer that is here.

    parent  the chain ID of the layer below, or None for a base.
    size    bytes of its files.
    short   its name in layers/l.
    opaque  it hides everything below it: its root directory was marked so.
    """

    chain_id: Digest
    diff_id: Digest
    parent: Digest | None
    size: int
    short: str
    opaque: bool = False


class Staged(msgspec.Struct, frozen=True):
    """A layer that is unpacked but not filed yet: its parent may still be on its way. `commit` or `discard` it."""

    directory: Path
    diff_id: Digest
    size: int


def chain_of(parent: Layer | None, diff_id: Digest) -> Digest:
    """The chain ID of a layer upon `parent`."""
    return Digest.of(f"{parent.chain_id} {diff_id}".encode()) if parent else diff_id


class LayerStore:
    """The layers below `root` (the data root); safe to use from several threads."""

    def __init__(self, root: Path, worker: Worker) -> None:
        self.directory = root / "layers"
        self._staged = self.directory / "staged"
        self._links = self.directory / "l"
        self._worker = worker
        self._lock = threading.Lock()
        self._busy: dict[Digest, threading.Lock] = {}
        for directory in (self._staged, self._links, self.directory / EMPTY):
            directory.mkdir(parents=True, exist_ok=True)
        trees.unrelated_below(self._staged)
        self._layers = {layer.chain_id: layer for layer in self._read_all()}

    def _read_all(self) -> Iterator[Layer]:
        for entry in os.scandir(self.directory):
            if len(entry.name) == 64:
                try:
                    yield records.read(Path(entry.path) / "layer.json", Layer)
                except (NotFound, InvalidArgument):
                    continue  # repair() removes it

    def path(self, chain_id: Digest) -> Path:
        """The directory with the layer's files."""
        return self.directory / chain_id.hex / "diff"

    def get(self, chain_id: Digest) -> Layer | None:
        """The layer, or None if it is not here."""
        return self._layers.get(chain_id)

    def all(self) -> tuple[Layer, ...]:
        """Every layer."""
        return tuple(self._layers.values())

    def chain(self, chain_id: Digest) -> tuple[Layer, ...]:
        """The layer and all below it, base first. Raises NotFound: one is missing."""
        layers: list[Layer] = []
        wanted: Digest | None = chain_id
        while wanted is not None:
            layer = self.get(wanted)
            if layer is None:
                raise NotFound(f"no layer {wanted}; the image is damaged, pull it again")
            layers.append(layer)
            wanted = layer.parent
        return tuple(reversed(layers))

    def apply(
        self,
        blob: Path,
        media_type: str | None,
        diff_id: Digest,
        parent: Layer | None,
        on_progress: Progress | None = None,
    ) -> Layer:
        """Unpack a layer upon `parent`, or return it if it is here; concurrent calls for the same one share the work.

        on_progress  called with the bytes of the blob that are done; may raise, which cancels.
        Raises       VerificationError: the blob is not `diff_id`. Breakout, InvalidArgument, KernelError (ENOSPC):
                     nothing is left behind.
        """
        chain = chain_of(parent, diff_id)
        with self._alone(chain):
            there = self.get(chain)
            if there is not None:
                return there
            staged = self.stage(blob, media_type, diff_id, on_progress)
            return self._commit(staged, parent)

    def stage(
        self, blob: Path, media_type: str | None, diff_id: Digest | None, on_progress: Progress | None = None
    ) -> Staged:
        """Unpack a layer aside, whatever is to lie below it: so an image's layers unpack in any order, in parallel.

        diff_id  None: nobody promised anything (an import); the result tells what it is.
        Raises   as `apply`.
        """
        directory = self._make_staged()
        try:
            (directory / "diff").mkdir()
            (directory / "diff").chmod(0o755)  # a container's "/", whatever the umask of the daemon
            unpacked = self._worker.unpack(
                blob,
                directory / "diff",
                name=f"layer {diff_id.short}" if diff_id else "archive",
                media_type=media_type,
                diff_id=diff_id,
                on_progress=on_progress,
            )
        except BaseException:
            trees.remove(directory)
            raise
        return Staged(directory, unpacked.diff_id, unpacked.size)

    def apply_all(
        self,
        wanted: Sequence[tuple[Path, str | None, Digest]],
        on_progress: Callable[[str, int], object] | None = None,
    ) -> tuple[Layer, ...]:
        """All layers of an image, base first, given as (blob, media type, diff ID); missing ones unpack in parallel.

        on_progress  called with a layer's diff ID and the bytes of its blob that are done; may raise, which cancels.
        Raises       as `apply`. Layers below the bad one stay (they are whole), nothing of it or above it does.
        """
        layers: list[Layer] = []
        for _, _, diff_id in wanted:
            there = self.get(chain_of(layers[-1] if layers else None, diff_id))
            if there is None:
                break
            layers.append(there)
        missing = wanted[len(layers) :]
        report = on_progress or (lambda name, done: None)
        with ThreadPoolExecutor(2, "unpack") as pool:
            waiting = [
                pool.submit(self.stage, blob, media_type, diff_id, partial(report, str(diff_id)))
                for blob, media_type, diff_id in missing
            ]
            try:
                for future in waiting:
                    layers.append(self.commit(future.result(), layers[-1] if layers else None))
            except BaseException:
                for future in waiting[len(layers) - (len(wanted) - len(missing)) :]:
                    if not future.cancel() and future.exception() is None:
                        self.discard(future.result())
                raise
        return tuple(layers)

    def commit(self, staged: Staged, parent: Layer | None) -> Layer:
        """File a staged layer upon `parent`; if it is here already the staged one is discarded."""
        with self._alone(chain_of(parent, staged.diff_id)):
            return self._commit(staged, parent)

    def discard(self, staged: Staged) -> None:
        """Remove a staged layer that is not wanted any more."""
        trees.remove(staged.directory)

    def adopt(self, upper: Path, diff_id: Digest, parent: Layer | None) -> Layer:
        """Make an upper directory, which no mount uses any more, a layer: it is moved, not copied (build steps).

        diff_id  what Worker.diff said of it.
        Raises   KernelError: EXDEV it lies on another filesystem.
        """
        chain = chain_of(parent, diff_id)
        with self._alone(chain):
            there = self.get(chain)
            if there is not None:
                trees.remove(upper)
                return there
            directory = self._make_staged()
            try:
                os.rename(upper, directory / "diff")
            except OSError as error:
                trees.remove(directory)
                raise KernelError("rename", upper, error.errno or 0) from error
            return self._commit(Staged(directory, diff_id, trees.size_bytes(directory / "diff")), parent)

    def _make_staged(self) -> Path:
        directory = self._staged / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        return directory

    def _commit(self, staged: Staged, parent: Layer | None) -> Layer:
        chain = chain_of(parent, staged.diff_id)
        there = self.get(chain)
        if there is not None:
            trees.remove(staged.directory)
            return there
        try:
            if parent is not None and len(self.chain(parent.chain_id)) >= LAYER_COUNT_LIMIT:
                raise InvalidArgument(f"more than {LAYER_COUNT_LIMIT} layers cannot be mounted")
            return self._file(staged, chain, parent)
        except OSError as error:
            if isinstance(error, KernelError):
                raise
            raise KernelError("file layer", chain, error.errno or 0) from error
        finally:
            trees.remove(staged.directory)  # is gone already if all went well

    def _file(self, staged: Staged, chain: Digest, parent: Layer | None) -> Layer:
        """The staged directory's record and link, all of it to disk, and the rename."""
        short = "".join(secrets.choice(_SHORT_ALPHABET) for _ in range(_SHORT_LENGTH))
        parent_id = parent.chain_id if parent else None
        layer = Layer(chain, staged.diff_id, parent_id, staged.size, short, _is_opaque(staged.directory / "diff"))
        (staged.directory / "layer.json").write_bytes(codec.encode(layer))
        staged.directory.chmod(0o755)
        with ExitStack() as undo:
            os.symlink(f"../{chain.hex}/diff", self._links / short)
            undo.callback(records.remove_if_there, self._links / short)
            _sync_filesystem(staged.directory)
            os.rename(staged.directory, self.directory / chain.hex)  # the true point at which the layer exists
            undo.pop_all()
        with self._lock:
            self._layers[chain] = layer
        records.sync_directory(self.directory)
        return layer

    @contextmanager
    def _alone(self, chain: Digest) -> Iterator[None]:
        """One thread at a time for each layer; the second finds what the first made."""
        with self._lock:
            lock = self._busy.setdefault(chain, threading.Lock())
        with lock:
            yield
        with self._lock:
            if not lock.locked():
                self._busy.pop(chain, None)

    def delete(self, chain_id: Digest) -> int:
        """Remove a layer that nobody stands on, and say how many bytes it had; missing is fine (0)."""
        with self._alone(chain_id):
            with self._lock:
                layer = self._layers.pop(chain_id, None)
            if layer is None:
                return 0
            aside = self._staged / f"gone-{secrets.token_hex(8)}"
            os.rename(self.directory / chain_id.hex, aside)  # from here on it does not exist
            records.remove_if_there(self._links / layer.short)
            trees.remove(aside)
            return layer.size

    def lowerdir(self, layers: Sequence[Layer]) -> str:
        """The lowerdir option for these layers (base first), relative to `directory`: TOP layer first.

        What lies below a layer with an opaque root is left out, since overlayfs ignores that mark on a root.
        """
        names: list[str] = []
        for layer in reversed(layers):
            names.append(f"l/{layer.short}")
            if layer.opaque:
                break
        if not names:
            raise VerificationError("an image without layers has nothing to mount")
        return ":".join(names)

    def repair(self) -> list[str]:
        """At start, before anyone else: remove half layers and deletions, mend the short links; says what it did."""
        done = []
        for entry in list(os.scandir(self._staged)):
            trees.remove(Path(entry.path))
            done.append(f"removed unfinished layer {entry.name}")
        for entry in list(os.scandir(self.directory)):
            if entry.name not in ("l", "staged", EMPTY) and not self._is_whole(entry.name):
                trees.remove(Path(entry.path))
                done.append(f"removed damaged layer {entry.name}")
        wanted = {layer.short: f"../{layer.chain_id.hex}/diff" for layer in self.all()}
        for name in os.listdir(self._links):
            if name not in wanted or os.readlink(self._links / name) != wanted[name]:
                os.unlink(self._links / name)
        for name in wanted.keys() - set(os.listdir(self._links)):
            os.symlink(wanted[name], self._links / name)
            done.append(f"mended link {name}")
        return done

    def _is_whole(self, name: str) -> bool:
        layer = self._layers.get(Digest(f"sha256:{name}")) if len(name) == 64 else None
        return layer is not None and layer.chain_id.hex == name and (self.directory / name / "diff").is_dir()


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def _sync_filesystem(path: Path) -> None:
    """All of the filesystem that `path` is on, to disk: once for a layer, instead of fsync for each of its files."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscall("syncfs", fd, path=path)
    finally:
        os.close(fd)
