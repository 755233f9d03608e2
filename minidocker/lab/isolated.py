"""`%%isolated`: run a notebook cell in a process of its own, with namespaces and a cgroup that die with it.

Source  IPython's "Defining custom magics"; cell.py tells what happens on the other side.
Rules   - the notebook's kernel never forks nor unshares: it has a dozen threads, and unshare(2) changes one of them.
        - values go in and come out by name, as pickles; everything else that the cell does stays in its process.

    kernel (threads) --fork request--> warm helper --fork--> supervisor --fork--> pid 1: the cell's code
"""

import argparse
import atexit
import os
import pickle
import select
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidocker.lab.cell import CellFailed, receive
from minidocker.linux.forkserver import ForkServer, ForkServerDied

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

EXEC_ROOT = Path("/run/minidocker-lab")
STOP_TIMEOUT_SECONDS = 5

Handler = Callable[[str, Any], None]


class Isolation:
    """A warm helper from which cells are forked. One serves a whole notebook.

    plain   True: the code is not trusted, so what comes out of it is plain values only.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self._server: ForkServer | None = None
        self._plain = plain

    def _helper(self) -> ForkServer:
        if self._server is None:
            EXEC_ROOT.mkdir(parents=True, exist_ok=True)
            self._server = ForkServer.spawn(
                "minidocker-isolated", "minidocker.lab.cell:main", exec_root=EXEC_ROOT, python_path=sys.path
            )
        return self._server

    def run(
        self,
        code: str,
        *,
        values: dict[str, Any] | None = None,
        wanted: tuple[str, ...] = (),
        network: str = "own",
        timeout_seconds: float = 10.0,
        memory_bytes: int = 512 << 20,
        pids: int = 256,
        on_output: Handler | None = None,
    ) -> dict[str, Any]:
        """Run `code` and return the values of the names in `wanted`.

        values      names that the code finds set.
        network     "own": a new network namespace; "host": the machine's, for looking only.
        on_output   called with ("stdout"|"stderr", text) and ("display", mime bundle) while the code runs.
        Raises      CellFailed: the code raised, was killed, ran out of time or memory, or a wanted name is missing.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        limits = (timeout_seconds, memory_bytes, pids)
        request = pickle.dumps((code, values or {}, wanted, network, *limits, os.getcwd(), self._plain))
        with ours:
            with theirs:
                supervisor = self._fork(request, theirs.fileno())
            try:
                return self._collect(ours, on_output or _print_output)
            finally:
                # Closing our end is the order to stop; the supervisor has cleaned up when its pidfd becomes readable.
                ours.close()
                select.select([supervisor], [], [], STOP_TIMEOUT_SECONDS)
                os.close(supervisor)

    def _fork(self, request: bytes, fd: int) -> int:
        """Fork a supervisor; its pidfd. A helper that died (an out-of-memory kill, say) is started again once."""
        try:
            return self._helper().fork(request, [fd]).pidfd
        except ForkServerDied:
            self.close()
            return self._helper().fork(request, [fd]).pidfd

    @staticmethod
    def _collect(sock: socket.socket, on_output: Handler) -> dict[str, Any]:
        results: dict[str, Any] = {}
        while message := receive(sock):
            kind, content = message
            if kind == "values":
                results = content
            elif kind == "failed":
                raise CellFailed(*content)
            elif kind == "ended":
                return results
            else:
                on_output(kind, content)
        raise CellFailed("the supervisor of the cell ended without a word")

    def close(self) -> None:
        """End the helper."""
        if self._server is not None:
            self._server.close()
            self._server = None


def _print_output(kind: str, content: Any) -> None:
    stream = sys.stderr if kind == "stderr" else sys.stdout
    stream.write(content if kind != "display" else content.get("text/plain", "") + "\n")
    stream.flush()


# ---------------------------------------------------------------- the cell magic


def _arguments(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser("%%isolated", add_help=False, exit_on_error=False)
    parser.add_argument("--net", choices=("own", "host"), default="own")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB")
    parser.add_argument("--pids", type=int, default=256)
    parser.add_argument("--in", dest="values", default="", metavar="NAME,NAME")
    parser.add_argument("--out", dest="wanted", default="", metavar="NAME,NAME")
    try:
        return parser.parse_args(shlex.split(line))
    except (argparse.ArgumentError, SystemExit) as error:
        raise CellFailed(f"%%isolated: {error}; {parser.format_usage().strip()}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def register(shell: "InteractiveShell") -> None:
    """Add the cell magic `%%isolated` to a notebook's kernel; its helper ends with the kernel."""
    isolation = Isolation()

    def isolated(line: str, cell: str) -> None:
        """Run the cell in a process, namespaces and cgroup of its own; --in and --out name the values that pass."""
        options = _arguments(line)
        names = _names(options.values)
        unset = [name for name in names if name not in shell.user_ns]
        if unset:
            raise CellFailed(f"%%isolated: --in names {', '.join(unset)}, which this notebook has not set")
        results = isolation.run(
            cell,
            values={name: shell.user_ns[name] for name in names},
            wanted=_names(options.wanted),
            network=options.net,
            timeout_seconds=options.timeout,
            memory_bytes=options.memory << 20,
            pids=options.pids,
            on_output=_show,
        )
        shell.user_ns.update(results)

    shell.register_magic_function(  # type: ignore[call-arg]
        isolated,  # type: ignore[arg-type]
        magic_kind="cell",
        magic_name="isolated",
    )
    atexit.register(isolation.close)


def _show(kind: str, content: Any) -> None:
    if kind == "display":
        from IPython.display import display

        display(content, raw=True)  # type: ignore[no-untyped-call]
    else:
        _print_output(kind, content)
