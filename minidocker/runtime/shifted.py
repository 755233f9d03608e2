"""The root and the bind mounts of a container in a user namespace: made by a process that still has its power.

Source  mount_setattr(2), MOUNT_ATTR_IDMAP (Linux 5.12; below an overlay 5.19); open_tree(2); user_namespaces(7); kernel
        Documentation/filesystems/idmappings.rst.
Rules   - root of a user namespace may neither mount layers whose files it does not own, nor walk to sources in
          directories that are shut to it. So a process of the host does both, in a mount namespace of a moment, and
          hands over detached trees; pid 1 only attaches them.
        - layers are seen through mounts that shift ids: on disk a file is root's, in the container its root's, for
          everybody else on the machine that of the id that this root really is. Layers stay shared and unchanged.
        - an overlay writes as who mounted it. So the mounter becomes the container's root first, and keeps its power.
        - a bind mount of the machine's is not shifted, unless it is the engine's own (option "idmap").
"""

import array
import os
import socket
from collections.abc import Iterable

import msgspec

from minidocker import typed
from minidocker.errors import KernelError, MinidockerError
from minidocker.linux import capabilities, mounts, namespaces, process, trees
from minidocker.linux.mounts import MountFlag
from minidocker.linux.namespaces import CloneFlag
from minidocker.runtime.binds import BindMount
from minidocker.runtime.rootfs import MountOverlay
from minidocker.runtime.step import Step

_PACKET_BYTES = 1 << 17
_MAX_FDS = 250  # SCM_MAX_FD is 253
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class _Answer(msgspec.Struct, frozen=True):
    """What the process of a moment says: the names of the trees that it sends, or which call failed."""

    names: list[str] = []
    call: str = ""
    path: str = ""
    errno: int = 0
    hint: str = ""


def prepare(steps: Iterable[Step], owner: int, root: tuple[int, int]) -> dict[str, int]:
    """The trees of the steps that need one: name of the step -> descriptor of a detached mount.

    owner   a process in the user namespace whose ids the trees show.
    root    who its root is outside: user and group.
    Raises  KernelError: a source is not there; EINVAL this kernel, or this filesystem, shifts no ids.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _make(steps, owner, root, theirs)
    theirs.close()
    try:
        packet, descriptors, _, _ = socket.recv_fds(ours, _PACKET_BYTES, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    answer = (
        typed.decode(packet, _Answer)
        if packet
        else _Answer(call="fork", path="mounts of a user namespace", hint="it was killed")
    )
    if answer.call:
        raise KernelError(answer.call, answer.path, answer.errno, answer.hint)
    return dict(zip(answer.names, descriptors, strict=True))


def _make(steps: Iterable[Step], owner: int, root: tuple[int, int], parent: socket.socket) -> None:
    try:
        user = os.open(f"/proc/{owner}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.unshare(CloneFlag.NEWNS)
        mounts.set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)
        made: dict[str, int] = {}
        for step in steps:
            if isinstance(step, MountOverlay):
                made[step.name] = _overlay(step, user, root)
            elif isinstance(step, BindMount) and (tree := step.tree(user)) is not None:
                made[step.name] = tree
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", made.values()))] if made else []
        parent.sendmsg([msgspec.json.encode(_Answer(list(made)))], rights)
    except KernelError as error:
        failure = _Answer(call=error.call, path=str(error.path), errno=error.errno or 0, hint=error.hint)
        parent.send(msgspec.json.encode(failure))
    except (MinidockerError, OSError) as error:
        parent.send(msgspec.json.encode(_Answer(call="mount", path="layers", hint=str(error))))
    finally:
        os._exit(0)


def _overlay(step: MountOverlay, user: int, root: tuple[int, int]) -> int:
    """The step's overlay, of layers whose ids are shifted. Its target serves as a place for the layers' mounts."""
    overlay = step.overlay
    layers = [os.path.join(overlay.directory, layer) for layer in overlay.lowerdir.split(":")]
    holder = os.path.dirname(overlay.upperdir)  # of upper and work, which must be on one mount
    mounts.mount("places", step.target, "tmpfs", MountFlag(0), "mode=700")
    os.chdir(step.target)
    for number, path in enumerate([*layers, holder]):
        os.mkdir(str(number))
        _attach(trees.shifted(path, user), str(number))
    upper, work = (f"{len(layers)}/{os.path.basename(path)}" for path in (overlay.upperdir, overlay.workdir))
    lower = ":".join(str(number) for number in range(len(layers)))
    os.mkdir("merged")
    options = f"lowerdir={lower},upperdir={upper},workdir={work},index=off,metacopy=off,redirect_dir=off"
    _become(*root)
    mounts.mount("overlay", "merged", "overlay", MountFlag(0), options)
    fd = os.open("merged", _DIRECTORY)
    tree = trees.clone(fd, path=step.target)
    os.close(fd)
    _become(0, 0)
    return tree


def _become(uid: int, gid: int) -> None:
    """Another user, with all that we may do now."""
    mine = capabilities.names(capabilities.read()["CapPrm"])
    process.set_keep_caps(True)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    capabilities.set_sets(mine, mine, ())


def _attach(tree: int, place: str) -> None:
    target = os.open(place, _DIRECTORY)
    trees.attach(tree, target, place)
    os.close(target)
    os.close(tree)
