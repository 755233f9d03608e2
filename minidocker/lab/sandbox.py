"""A notebook kernel that leaves nothing behind: `python -m minidocker.lab.sandbox -f CONNECTION_FILE`.

Source  namespaces(7), pid_namespaces(7), pidfd_open(2), prctl(2) PR_SET_PDEATHSIG, cgroups(7); jupyter_client, "Making
        kernels for Jupyter" (kernel specs, connection files).
Rules   - ipykernel is pid 1 of its own namespaces, made by the steps that the engine makes containers with: when it
          ends, however it ends, its processes, mounts and links end too.
        - the guard stays outside, in a session of its own, where no signal for the kernel reaches it. It waits for the
          end of the kernel, of Jupyter's child (the front) and of Jupyter itself; then it takes the control group away.
        - a kernel of which any step of isolation fails does not start.
        - this guards against accidents, not against malice: the kernel is root, and the machine's files are its own.

    Jupyter --> front --fork--> guard --fork--> pid 1: ipykernel
                  ^ signals       | wires (sandbox_wires.py), control group, the last clean-up
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from minidocker.errors import MinidockerError
from minidocker.lab import room, session
from minidocker.lab import sandbox_wires as wires
from minidocker.lab.isolated import EXEC_ROOT
from minidocker.linux import namespaces, process
from minidocker.linux.cgroups import Cgroup, Limits
from minidocker.linux.mounts import MountFlag
from minidocker.runtime import controls, init, rootfs
from minidocker.runtime.step import Host, Inside, Step, StepFailed, run
from minidocker.runtime.sync import Channel, Message

NAME = "minidocker-sandbox"
KINDS = ("mount", "uts", "ipc", "cgroup", "network")  # pid is the guard's to make: it acts on children only
KERNEL_VIEW = int(MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC)
PREFIX = "sandbox-"
REGISTRY_PORT = 5050
FAILED = 1


class KeepRoot(Step, frozen=True):
    """The machine's own tree stays the root, as the new mount namespace has it."""

    @property
    def name(self) -> str:
        return "keep root"

    def apply(self, inside: Inside) -> None:
        inside.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class SettleInLeaf(Step, frozen=True):
    """Move into a group below the sandbox's own: on version 2 a group whose children are limited holds no process."""

    name_of_leaf: str = "kernel"

    @property
    def name(self) -> str:
        return f"join cgroup {self.name_of_leaf}"

    def apply(self, inside: Inside) -> None:
        Cgroup.create(f"/{self.name_of_leaf}").join()


def steps(cgroup: str) -> tuple[Step, ...]:
    """What turns a fresh process into the sandbox's pid 1, in order; the same steps as a container's."""
    return (
        init.JoinCgroup(cgroup),
        init.MakeNamespaces(KINDS),
        rootfs.PrivateMounts(int(MountFlag.SLAVE)),  # what the machine unmounts goes away in here, too
        KeepRoot(),
        rootfs.MountFilesystem("/proc", "proc", "proc", KERNEL_VIEW, ""),
        rootfs.MountFilesystem("/sys", "sysfs", "sysfs", KERNEL_VIEW, ""),
        controls.MountCgroups("/sys/fs/cgroup", KERNEL_VIEW, namespace=True),
        init.ConfigureNetwork(),
        SettleInLeaf(),
    )


# ---------------------------------------------------------------- the front: what Jupyter knows as the kernel


def main(arguments: list[str]) -> int:
    """Start the guard, pass interrupts on to it, and end as the kernel ended."""
    options = _parse(arguments)
    starter = process.pidfd_open(os.getppid())
    ours, theirs = Channel.pair()
    front = process.pidfd_open(os.getpid())
    signal.signal(signal.SIGINT, lambda _number, _frame: ours.send(Message("interrupt")))
    if os.fork() == 0:
        ours.close()
        _guard(options, theirs, starter, front)
    theirs.close()
    message, _ = ours.receive()
    if message is None:
        return FAILED  # the guard was killed: the kernel has died with it
    if message.text:
        print(f"{NAME}: {message.text}", file=sys.stderr)
    return message.exit_code


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(NAME, description="an IPython kernel in namespaces of its own", allow_abbrev=False)
    parser.add_argument("-f", dest="connection", type=Path, required=True, help="Jupyter's connection file")
    parser.add_argument("--memory", type=int, default=2 << 30, metavar="BYTES", help="limit of all its processes")
    parser.add_argument("--pids", type=int, default=1024, metavar="N", help="how many processes it may have")
    options, further = parser.parse_known_args(arguments)
    options.further = further  # for ipykernel
    return options


# ---------------------------------------------------------------- the guard, outside of the namespaces


def _guard(options: argparse.Namespace, front: Channel, starter: int, front_process: int) -> NoReturn:
    code, text = FAILED, ""
    try:
        os.setsid()  # signals for Jupyter's child and its process group are not for us
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        cwd = os.getcwd()
        sweep()
        with _place() as place:
            code = _run_kernel(options, place, cwd, front, (starter, front_process))
    except BaseException as error:
        text = f"the kernel could not be isolated, so it was not started: {error}"
    finally:
        front.send(Message("exit", exit_code=code, text=text))
        os._exit(0)


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """The sandbox's directory, locked as long as its guard lives: an unlocked one is a leftover."""
    EXEC_ROOT.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=EXEC_ROOT))
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield place
    finally:
        _remove(place)
        os.close(lock)


def _remove(place: Path) -> None:
    """Take away what a sandbox has outside of its namespaces: its control group, and its directory."""
    Cgroup.open(f"/minidocker-{place.name}").remove()
    shutil.rmtree(place, ignore_errors=True)


def sweep() -> None:
    """Remove what guards left that were themselves killed; their kernels died with them."""
    for place in EXEC_ROOT.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(place)
            finally:
                os.close(lock)


def _run_kernel(options: argparse.Namespace, place: Path, cwd: str, front: Channel, watched: tuple[int, ...]) -> int:
    """Fork pid 1, serve its wires until it or one of those that we watch has ended; its exit status, as a shell's."""
    cgroup = Cgroup.create(f"/minidocker-{place.name}")
    cgroup.apply(Limits(memory_bytes=options.memory, pids=options.pids))
    connection = json.loads(options.connection.read_text())
    listeners = wires.listen(connection)
    connection = wires.through_files(connection, place)
    (place / "connection.json").write_text(json.dumps(connection))
    ours, theirs = Channel.pair()
    namespaces.unshare(namespaces.CloneFlag.NEWPID)
    guard = process.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        ours.close()
        for listener in listeners.values():
            listener.close()
        command = ["-m", "ipykernel_launcher", "-f", str(place / "connection.json"), *options.further]
        _become_kernel(theirs, cgroup.path, command, guard, cwd)
    theirs.close()
    kernel = process.pidfd_open(pid)
    identity = f"{namespaces.inode('pid', pid)}-1-{process.start_time(pid)}"
    try:
        inner = _isolated(ours)
        os.chdir("/")
        served = {listener: f"{connection['ip']}-{port}" for port, listener in listeners.items()}
        asyncio.run(wires.serve(served, inner, ("127.0.0.1", REGISTRY_PORT), front, kernel, watched))
    finally:
        with contextlib.suppress(OSError):
            process.pidfd_send(kernel, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _end_session(identity)
    return status if status >= 0 else 128 - status


def _isolated(channel: Channel) -> socket.socket | None:
    """Wait until the kernel's steps are done; its end of the wire to the registry. Raises StepFailed."""
    message, descriptors = channel.receive()
    if message is None or message.kind == "error":
        raise StepFailed("", message.text if message else "the process was killed")
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _end_session(identity: str) -> None:
    """What the kernel has started in the daemon ends with it: its session's own guard has died with the namespaces."""
    with contextlib.suppress(OSError, MinidockerError):  # there is no daemon, then there is nothing to end
        session.main([identity])
    with contextlib.suppress(OSError, MinidockerError):  # so has the keeper of its room
        room.sweep()


# ---------------------------------------------------------------- pid 1


def _become_kernel(channel: Channel, cgroup: str, command: list[str], guard: int, cwd: str) -> NoReturn:
    """Take the steps, then execute ipykernel. Ends the process if any step fails: no kernel runs half isolated."""
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        if select.select([guard], [], [], 0)[0]:
            os._exit(FAILED)  # the guard died before the line above took effect
        inside = Inside(channel, Host.detect())
        inside.proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        run(steps(cgroup), inside)
        os.chdir(cwd)
        _tell(channel)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        environment = os.environ | {"JPY_PARENT_PID": "1"}  # its parent is nobody it knows: the guard watches instead
        process.close_from(3, keep=(channel.fileno(),))
        os.execve(sys.executable, [sys.executable, *command], environment)
    except BaseException as error:
        channel.send(Message("error", text=str(error) or repr(error)))
    finally:
        os._exit(FAILED)


def _tell(channel: Channel) -> None:
    """Say that we are isolated, and hand over a socket that listens in here where the registry listens out there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", REGISTRY_PORT))
        listener.listen()
        channel.send(Message("isolated"), (listener.fileno(),))


# ---------------------------------------------------------------- the kernel spec


def spec() -> dict[str, Any]:
    """kernel.json of this kernel.

    An interrupt is a signal to the front, which passes it on: a message would be answered by a kernel that sends the
    signal to itself, and a kernel that is busy in C code does not answer.
    """
    argv = [sys.executable, "-m", "minidocker.lab.sandbox", "-f", "{connection_file}"]
    return {"argv": argv, "display_name": "minidocker sandbox", "language": "python", "interrupt_mode": "signal"}


def directory() -> Path:
    """Where Jupyter finds it: in the virtual environment."""
    return Path(sys.prefix) / "share" / "jupyter" / "kernels" / NAME


def install() -> bool:
    """Write the kernel spec into the virtual environment. False: it was there."""
    target, text = directory() / "kernel.json", json.dumps(spec(), indent=1) + "\n"
    if target.exists() and target.read_text() == text:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return True


def uninstall() -> None:
    """Take it out again, and what killed guards left."""
    shutil.rmtree(directory(), ignore_errors=True)
    sweep()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
