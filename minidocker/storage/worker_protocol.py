"""What is said between the worker's client and its children: requests, answers, errors.

Rules   - a request travels with its descriptors through the fork server; answers come as JSON lines by the channel, the
          first descriptor of every request: any number of progress lines, then one result or one error.
        - an error keeps its kind, so a Breakout in the child is a Breakout to the caller.
"""

import msgspec

from minidocker import errors
from minidocker.errors import KernelError, MinidockerError
from minidocker.oci import codec
from minidocker.oci.digest import Digest

# An empty directory beside the layers: overlayfs wants two lower directories where there is no upper one.
EMPTY = "empty"


class Bind(msgspec.Struct, frozen=True):
    """A volume or bind mount of a stopped container, to be seen by `cp`. `destination` from the container's root.

    beneath  the source must not lead out of this directory; "": anything.
    """

    source: str
    destination: str
    read_only: bool = False
    beneath: str = ""


class Running(msgspec.Struct, frozen=True, tag="running"):
    """The root of a running container: that of process `pid`, pinned by its pidfd (whose owner the caller stays)."""

    pid: int
    pidfd: int


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """The root of a container that does not run, to be mounted by the worker for itself.

    directory           where the relative lowerdirs start (data-root/layers).
    lowerdir            as LayerStore.lowerdir gives it.
    upperdir, workdir   None, both: the layers alone, read-only; a directory `empty` must be there too.
    read_only           the root refuses writes (`--read-only`); the binds have a word of their own.
    """

    directory: str
    lowerdir: str
    upperdir: str | None = None
    workdir: str | None = None
    binds: tuple[Bind, ...] = ()
    read_only: bool = False


Place = Running | Stopped


class Unpack(msgspec.Struct, frozen=True, tag="unpack"):
    """fds: blob, target directory. diff_id None: whatever it is."""

    name: str
    media_type: str | None
    diff_id: Digest | None


class Extract(msgspec.Struct, frozen=True, tag="extract"):
    """An archive, compressed or not, into `path` of a place (ADD, cp). fds: archive, pidfd if running."""

    place: Place
    path: str
    owner: tuple[int, int] | None = None
    keep_kind: bool = False
    create: bool = False


class ExtractHere(msgspec.Struct, frozen=True, tag="extract_here"):
    """An archive, compressed or not, into a directory of ours. fds: archive, target directory."""

    owner: tuple[int, int] | None = None


class Diff(msgspec.Struct, frozen=True, tag="diff"):
    """An upper directory as a layer. fds: upper directory, output. hidden: see diff.write_layer."""

    compress: bool
    hidden: tuple[str, ...] = ()


class Changes(msgspec.Struct, frozen=True, tag="changes"):
    """fds: upper directory. `lowers`: paths, top first."""

    lowers: tuple[str, ...]


class Export(msgspec.Struct, frozen=True, tag="export"):
    """A place without its mounts, as tar. fds: output, pidfd if running."""

    place: Place


class Get(msgspec.Struct, frozen=True, tag="get"):
    """A path of a place as tar. fds: output, pidfd if running."""

    place: Place
    path: str


class Stat(msgspec.Struct, frozen=True, tag="stat"):
    """fds: pidfd if running."""

    place: Place
    path: str


class Read(msgspec.Struct, frozen=True, tag="read"):
    """The text of a small regular file of a place, no link; "" if there is none. fds: pidfd if running."""

    place: Place
    path: str
    limit_bytes: int


class CopyUp(msgspec.Struct, frozen=True, tag="copy_up"):
    """What the image has at `path` into a new volume. fds: the volume's directory, pidfd if running."""

    place: Place
    path: str


class Assemble(msgspec.Struct, frozen=True, tag="assemble"):
    """A plan (storage.assembly) carried out in `place`, and what it changed as a layer. fds: plan, output, archives.

    source, mount_at  another image's layers, and the directory where the worker may mount them for itself.
    """

    place: Stopped
    compress: bool
    source: Stopped | None = None
    mount_at: str = ""


class Look(msgspec.Struct, frozen=True, tag="look"):
    """What the sources of a COPY --from are in another image's layers. fds: none."""

    place: Stopped
    sources: tuple[str, ...]


Request = Unpack | Extract | ExtractHere | Diff | Changes | Export | Get | Stat | Read | CopyUp | Assemble | Look


class Unpacked(msgspec.Struct, frozen=True):
    """diff_id of the plain tar; `size` in bytes of the files in it."""

    diff_id: Digest
    size: int


class Failure(msgspec.Struct, frozen=True):
    """An exception on its way through a socket."""

    kind: str
    text: str
    call: str = ""
    path: str | None = None
    errno: int = 0
    hint: str = ""


NO_RESULT = msgspec.Raw(b"")


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the channel."""

    progress: int | None = None
    result: msgspec.Raw = NO_RESULT
    failure: Failure | None = None


def line(answer: Answer) -> bytes:
    """`answer` as it travels."""
    return codec.encode(answer) + b"\n"


def describe(error: BaseException) -> Failure:
    """`error` in a form that can travel; its kind is the nearest one that errors.py knows."""
    text = str(error).encode("utf-8", "backslashreplace").decode()
    if isinstance(error, KernelError):
        return Failure("KernelError", text, error.call, _clean(error.path), error.errno or 0, error.hint)
    if isinstance(error, OSError):
        return Failure("KernelError", text, "worker", _clean(error.filename), error.errno or 0)
    known = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return Failure(next(known, ""), text or repr(error))


def revive(failure: Failure) -> Exception:
    """The exception again; a bug of the worker (no kind) is a RuntimeError."""
    if failure.kind == "KernelError":
        return KernelError(failure.call, failure.path, failure.errno, failure.hint)
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, MinidockerError):
        return kind(failure.text)
    return RuntimeError(f"storage worker: {failure.text}")


def _clean(path: object) -> str | None:
    return None if path is None else str(path).encode("utf-8", "backslashreplace").decode()
