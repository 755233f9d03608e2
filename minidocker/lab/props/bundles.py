"""A place to try an OCI runtime in: bundles, and the containers made of them. All of it goes with the notebook.

Source  OCI runtime-spec, bundle.md and runtime.md; pipe(7): a reader sees the end when the last writer is gone.
Rules   - neither `atexit` nor `finally` runs in a kernel that is killed. So a small process of its own waits for the
          end of a pipe whose only writer is the kernel, and then deletes the containers and removes the directory.
        - a container keeps the standard output that `create` had. That is a file here, so nobody waits at a pipe.

    <directory>/<name>/config.json, <name>/rootfs     a bundle
    <directory>/run/<runtime>/<id>/                   what a runtime notes of a container (its --root)
    <directory>/output/<n>                            what the n-th command wrote, and the containers that it made
"""

import contextlib
import functools
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from minidocker.lab.session import LABEL
from minidocker.oci import codec
from minidocker.runtime.default_spec import default_spec

PREFIX = Path("/var/lib/minidocker-bundles-")  # not below /run, from which some systems execute nothing
OURS = str(Path(sys.executable).parent / "minidocker-runtime")
COMMAND_TIMEOUT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command of the runtime came to: its exit status, and what it wrote."""

    status: int
    text: str

    def document(self) -> Any:
        """The JSON document that it wrote. Raises ValueError: it wrote something else."""
        return json.loads(self.text)


@dataclass
class Place:
    """A directory with bundles, and the runtimes' own notes beside them."""

    directory: Path
    _outputs: dict[str, Path] = field(default_factory=dict)
    _count: int = 0

    def make(self, name: str, command: list[str], rootfs: Iterable[bytes]) -> Path:
        """Make a bundle from what `minidocker-runtime spec` would write, without a terminal, and a tar archive.

        rootfs   the archive in pieces, as `container.export()` gives it.
        Raises   FileExistsError: there is a bundle of that name.
        """
        bundle = self.directory / name
        (bundle / "rootfs").mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(b"".join(rootfs))) as tar:
            tar.extraction_filter = lambda member, _path: member  # the daemon's own archive: owners and modes as there
            tar.extractall(bundle / "rootfs")
        spec = default_spec()
        assert spec.process is not None
        process = msgspec.structs.replace(spec.process, args=command, terminal=False)
        (bundle / "config.json").write_bytes(codec.encode_pretty(msgspec.structs.replace(spec, process=process)))
        return bundle

    def root(self, program: str = OURS) -> Path:
        """The runtime's --root here."""
        return self.directory / "run" / Path(program).name

    def runtime(self, *words: str | Path, program: str = OURS) -> Answer:
        """Run one command of the runtime: `place.runtime("create", "--bundle", bundle, "one")`.

        program  the runtime; any that has the OCI command line.
        Raises   subprocess.TimeoutExpired: it does not end.
        """
        self._count += 1
        path = self.directory / "output" / str(self._count)
        path.parent.mkdir(exist_ok=True)
        command = [program, "--root", str(self.root(program)), *map(str, words)]
        if words[0] in ("create", "run"):
            self._outputs[str(words[-1])] = path
            self._own_group(Path(words[words.index("--bundle") + 1]), str(words[-1]))
        with path.open("wb") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=COMMAND_TIMEOUT_SECONDS
            )
        return Answer(done.returncode, path.read_text(errors="replace").strip())

    def _own_group(self, bundle: Path, id: str) -> None:
        """Let config.json name a control group that no container of another place has, whatever its id."""
        edit(bundle, linux={"cgroupsPath": f"/minidocker/{self.directory.name}-{id}"})

    def output(self, id: str) -> str:
        """What the container has written so far. Raises KeyError: it was not created here."""
        return self._outputs[id].read_text(errors="replace")


def edit(bundle: Path, **changes: Any) -> None:
    """Change fields of a bundle's config.json: `edit(bundle, hostname="x", process={"args": ["id"]})`.

    A mapping changes the fields that it names, and leaves the others as they are.
    """
    path = bundle / "config.json"
    path.write_text(json.dumps(_merged(json.loads(path.read_text()), changes), indent=2))


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, Mapping):
        return old | {key: _merged(old.get(key), value) for key, value in new.items()}
    return new


def begin(mine: Mapping[str, str]) -> Place:
    """A place for this notebook's bundles; what an earlier run in the same kernel left there is removed.

    mine  the label of the session: `session.begin(client)`.
    """
    directory = Path(f"{PREFIX}{mine[LABEL]}")
    remove(directory)
    directory.mkdir(mode=0o700)
    _guard(directory)
    return Place(directory)


@functools.cache
def _guard(directory: Path) -> "subprocess.Popen[bytes]":
    """One for each kernel, in a session of its own, so that what interrupts the kernel spares it."""
    return subprocess.Popen(
        [sys.executable, "-m", "minidocker.lab.props.bundles", str(directory)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
    )  # fmt: skip


def remove(directory: Path) -> None:
    """Delete the containers of the place, and then the place. What is not there is fine."""
    for container in directory.glob("run/*/*"):
        program = OURS if container.parent.name == Path(OURS).name else container.parent.name
        command = [program, "--root", str(container.parent), "delete", "--force", container.name]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # a runtime that is not installed any more
            subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_SECONDS, check=False
            )
    shutil.rmtree(directory, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """The guard: wait until the kernel has ended, however it ended, then remove the place."""
    sys.stdin.buffer.read()
    remove(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
