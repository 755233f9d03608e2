"""The container in which one submission runs: nothing to reach, nothing to take, nothing to break.

Source  Docker Engine API, ContainerCreate; engine/containers/user_namespaces.py.
Rules   - its image is empty: programs and Python are the machine's own, bound read-only. Neither the course root, nor
          other submissions, nor the gradebook, nor the daemon's socket is in it.
        - root in it is nobody outside (userns auto); it has all power over its own namespaces and control group, so
          kernel exercises work; it has no network.
        - memory, processes, processor, disk (tmpfs) and time are limited; all is gone when it ends.
        - the socket of the grader takes one connection, made before anything of the submission runs.
"""

import contextlib
import io
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minidocker
from minidocker.client.client import Client
from minidocker.client.containers import Container
from minidocker.errors import MinidockerError, NotFound
from minidocker.lab.grading import wire
from minidocker.lab.grading.judge import Judge

IMAGE = "minidocker-grading"
DIRECTORIES = (
    "dev",
    "etc",
    "home",
    "judge",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "submission",
    "sys",
    "tmp",
    "var",
)
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
CONFIGURATION = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/protocols")
PASSWD = "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
OUTPUTS_BYTES = 8 << 20
START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one submission. The notebook's kernel has two thirds of memory and processes; the rest is the grader's own."""

    memory_bytes: int = 1536 << 20
    pids: int = 512
    cpus: float = 1.0
    disk_bytes: int = 256 << 20
    seconds: float = 300.0
    cell_seconds: float = 60.0


@dataclass(slots=True)
class Ran:
    """What came of it: outputs of each cell, by its place in the notebook; in a word, what went wrong."""

    outputs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    note: str = ""


def ensure_image(client: Client) -> None:
    """Make the empty image in the daemon, unless it is there."""
    with contextlib.suppress(NotFound):
        client.images.get(IMAGE)
        return
    client.images.import_archive(_root(), IMAGE, "latest", changes=['CMD ["/bin/false"]'])


def _root() -> bytes:
    """Directories to mount on, and the links that this machine's `/` has into /usr."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in (*DIRECTORIES, *SYSTEM):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            if name in SYSTEM and os.path.islink(f"/{name}"):
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}").lstrip("/")
            archive.addfile(entry)
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _sources() -> list[str]:
    """What of the machine is seen in the container: the system, Python, and this package; each read-only."""
    system = [f"/{name}" for name in SYSTEM if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    python = [sys.base_prefix, sys.prefix, str(Path(minidocker.__file__).parent)]
    outside = [path for path in python if not any(path == top or path.startswith(f"{top}/") for top in system)]
    return [*system, *outside, *(path for path in CONFIGURATION if os.path.exists(path))]


@contextlib.contextmanager
def _container(client: Client, files: Path, place: Path, limits: Limits, labels: dict[str, str]) -> Iterator[Container]:
    binds = [*(f"{path}:{path}:ro" for path in _sources()), f"{files}:/submission:ro", f"{place}:/judge:ro"]
    container = client.containers.create(
        IMAGE,
        [sys.executable, "-m", "minidocker.lab.grading.inside"],
        environment={
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "JUPYTER_RUNTIME_DIR": "/run/jupyter",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(Path(minidocker.__file__).parents[1]),
        },
        working_dir="/",
        hostname="grading",
        labels=labels,
        volumes=binds,
        tmpfs={"/tmp": f"size={limits.disk_bytes},mode=1777,exec", "/run": "size=64m,mode=755,exec"},
        network="none",
        read_only=True,
        userns_mode="auto",
        cap_add=["ALL"],
        security_opt=["seccomp=unconfined", "writable-cgroups=true"],
        masked_paths=[],
        readonly_paths=[],
        memory_bytes=limits.memory_bytes,
        memory_swap_bytes=limits.memory_bytes,
        pids_limit=limits.pids,
        nano_cpus=int(limits.cpus * 1e9),
        log_options={"max-size": "1m", "max-file": "1"},
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def run(
    client: Client, cells: list[dict[str, Any]], files: Path, judge: Judge, limits: Limits, labels: dict[str, str]
) -> Ran:
    """Run a notebook's code cells ({"index", "source", "test"}) in a container of their own.

    files   what lies beside the notebook; seen at /submission
    Raises  MinidockerError: the container could not be started (a failure of ours, not of the submission).
    """
    place = Path(tempfile.mkdtemp(prefix="minidocker-grading-"))
    ran = Ran()
    try:
        place.chmod(0o711)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(place / wire.GRADER.name))
            (place / wire.GRADER.name).chmod(0o666)
            listener.listen(1)
            with _container(client, files, place, limits, labels) as container:
                container.start()
                with _accept(listener, container) as sock:
                    listener.close()
                    _converse(sock, cells, judge, limits, ran)
    finally:
        shutil.rmtree(place)
    return ran


def _accept(listener: socket.socket, container: Container) -> socket.socket:
    deadline = time.monotonic() + START_SECONDS
    listener.settimeout(0.5)
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
        container.reload()
        if container.status != "running":
            break
    said = container.logs(tail=5).decode(errors="replace")
    raise MinidockerError(f"the container of a submission did not begin: {said[-500:]}")


def _converse(sock: socket.socket, cells: list[dict[str, Any]], judge: Judge, limits: Limits, ran: Ran) -> None:
    """Hand the notebook in, and take what comes until the end, of whatever kind."""
    deadline = time.monotonic() + limits.seconds
    plan = {"cells": cells, "cell_seconds": limits.cell_seconds}
    shares = {"memory_bytes": limits.memory_bytes * 2 // 3, "pids": limits.pids * 2 // 3}
    left = OUTPUTS_BYTES
    try:
        wire.send(sock, {"kind": "notebook", **plan, **shares})
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            message = wire.receive(sock)
            if message["kind"] == "end":
                ran.note = str(message.get("note"))[:300]
                return
            if message["kind"] == "hidden":
                judge.answer(sock, message)
            elif message["kind"] == "cell":
                outputs = [output for output in map(_cleaned, message.get("outputs", [])) if output]
                left -= len(str(outputs))
                if left < 0:
                    ran.note = f"output limit: the notebook wrote more than {OUTPUTS_BYTES >> 20} MiB"
                    return
                ran.outputs[int(message["index"])] = outputs
    except TimeoutError:
        ran.note = f"time limit: the notebook was still running after {limits.seconds:g} s"
    except (wire.Broken, TypeError, ValueError, KeyError, AttributeError) as error:
        ran.note = f"the container was lost: {error}"


def _cleaned(output: dict[str, Any]) -> dict[str, Any] | None:
    """An output that can do no harm to who reads it: text and PNG pictures, no HTML, no scripts."""
    kind = output.get("output_type")
    if kind == "stream" and output.get("name") in ("stdout", "stderr"):
        return {"output_type": kind, "name": output["name"], "text": str(output.get("text"))}
    if kind == "error":
        trace = [str(line) for line in output.get("traceback", [])]
        return {"output_type": kind, "ename": str(output["ename"]), "evalue": str(output["evalue"]), "traceback": trace}
    if kind == "display_data":
        kept = {mime: str(text) for mime, text in output["data"].items() if mime in ("text/plain", "image/png")}
        return {"output_type": kind, "data": kept, "metadata": {}}
    return None
