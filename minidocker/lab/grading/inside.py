"""The program in a submission's container: runs the notebook, and single functions for the judge.

Source  jupyter_client documentation; nbformat, "The Notebook file format" (outputs).
Rules   - the notebook's kernel is sandboxed once more (lab/sandbox.py): it has a process table, a network and a control
          group of its own, so it can neither see nor end nor starve this program.
        - a cell that ends the kernel, or cannot be interrupted, is left out when the notebook is run again from the
          top: it costs its own points, not those of the cells after it.
        - what a cell prints is cut at a limit; then the kernel is killed.
        - each cell's outputs are sent as soon as it has ended: should we be killed, they are not lost.

    grader (outside) --wire--> here --Jupyter's messages--> kernel --JUDGE socket--> here --wire--> judge (outside)
                               here --> a fresh process for each function that the judge wants to see run
"""

import contextlib
import os
import queue
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from minidocker.lab import sandbox
from minidocker.lab.cell import CellFailed
from minidocker.lab.grading import wire
from minidocker.lab.isolated import Isolation
from minidocker.linux.cgroups import Cgroup

FILES, WORK = Path("/submission"), Path("/tmp/work")
INTERRUPT_SECONDS = 3.0
START_SECONDS = 60.0
STARTS = 6
CELL_BYTES = 200_000
MESSAGE_BYTES = 4 << 20
PRINTED_BYTES = 1 << 20


class KernelLost(Exception):
    """The kernel has ended, or is past helping. The text is for the feedback."""


class Kernel:
    """A sandboxed kernel, for one run through the notebook."""

    def __init__(self, memory_bytes: int, pids: int) -> None:
        spec = sandbox.spec()
        spec["argv"] += ["--memory", str(memory_bytes), "--pids", str(pids), "--log-level=ERROR"]
        context = zmq.Context[zmq.Socket[bytes]]()
        context.maxmsgsize = MESSAGE_BYTES  # of every socket that it makes: a longer message is not even read
        self._manager = KernelManager(context=context)
        self._manager._kernel_spec = KernelSpec(**spec)
        self._manager.start_kernel(cwd=str(WORK))
        self._client = self._manager.client()
        self._client.start_channels()
        try:
            self._client.wait_for_ready(timeout=START_SECONDS)
        except RuntimeError as error:
            self.close()
            raise KernelLost(f"the kernel does not start: {error}") from None

    def run(self, code: str, timeout_seconds: float) -> list[dict[str, Any]]:
        """The outputs of a cell, of nbformat's kind.

        Raises  KernelLost: it ended the kernel, printed without end, or cannot be interrupted.
        """
        request = self._client.execute(code, allow_stdin=False)
        outputs: list[dict[str, Any]] = []
        deadline, size, interrupted = time.monotonic() + timeout_seconds, 0, False
        while True:
            message = self._next(deadline)
            if message is None:
                if interrupted:
                    raise KernelLost(f"time limit: the cell could not be interrupted after {timeout_seconds:g} s")
                self._manager.interrupt_kernel()
                outputs.append(_error("TimeLimit", f"the cell was still running after {timeout_seconds:g} s"))
                deadline, interrupted = time.monotonic() + INTERRUPT_SECONDS, True
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return outputs
            output = _output(message)
            size += len(str(output))
            if size > CELL_BYTES:
                raise KernelLost(f"output limit: the cell wrote more than {CELL_BYTES} characters")
            _add(outputs, output)

    def _next(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None: it is time. Raises KernelLost."""
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                return dict(self._client.get_iopub_msg(timeout=0.5))
            if not self._manager.is_alive():
                raise KernelLost("the cell ended the kernel")
        return None

    def close(self) -> None:
        """Kill it."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


def _error(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}


def _output(message: dict[str, Any]) -> dict[str, Any] | None:
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        return {"output_type": kind, "name": content["name"], "text": content["text"]}
    if kind == "error":
        return {"output_type": kind, **{key: content[key] for key in ("ename", "evalue", "traceback")}}
    if kind in ("display_data", "execute_result"):
        return {"output_type": "display_data", "data": content["data"], "metadata": {}}
    return None


def _add(outputs: list[dict[str, Any]], output: dict[str, Any] | None) -> None:
    if output is None:
        return
    last = outputs[-1] if outputs else {}
    if output["output_type"] == "stream" and (last.get("output_type"), last.get("name")) == ("stream", output["name"]):
        last["text"] += output["text"]
    else:
        outputs.append(output)


# ---------------------------------------------------------------- for the judge


class Relay:
    """Between the notebook's kernel, which asks whether hidden cases hold, and the grader, whose judge knows."""

    def __init__(self, grader: socket.socket) -> None:
        self._grader = grader
        self._turn = threading.Lock()  # one conversation at a time
        self._isolation = Isolation(plain=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(wire.JUDGE))
        self._listener.listen(4)
        threading.Thread(target=self._serve, daemon=True).start()

    def tell(self, message: wire.Message) -> None:
        """Tell the grader something."""
        with self._turn:
            wire.send(self._grader, message)

    def _serve(self) -> None:
        while True:
            kernel, _ = self._listener.accept()
            with kernel, contextlib.suppress(wire.Broken, TimeoutError):
                kernel.settimeout(INTERRUPT_SECONDS)
                question = wire.receive(kernel)
                wire.send(kernel, self._ask(question))

    def _ask(self, question: wire.Message) -> wire.Message:
        with self._turn:
            wire.send(self._grader, wire.as_message(*wire.as_question(question)))
            while (answer := wire.receive(self._grader))["kind"] == "run":
                wire.send(self._grader, self._run(answer))
            return answer

    def _run(self, request: wire.Message) -> wire.Message:
        printed: list[str] = []
        try:
            found = self._isolation.run(
                request["code"],
                values=request["values"],
                wanted=tuple(request["wanted"]),
                timeout_seconds=request["timeout_seconds"],
                on_output=lambda kind, content: printed.append(content) if kind == "stdout" else None,
            )
        except CellFailed as error:
            return {"kind": "failed", "reason": str(error), "traceback": error.remote_traceback}
        texts = {name: str(value) for name, value in found.items()}
        return {"kind": "ran", "found": texts, "printed": "".join(printed)[:PRINTED_BYTES]}


# ---------------------------------------------------------------- the whole notebook


def run_notebook(plan: wire.Message, relay: Relay) -> str:
    """Run all cells, again from the top without a cell that lost the kernel. Returns what went wrong, "" if nothing."""
    left_out: set[int] = set()
    told: set[int] = set()
    notes: list[str] = []
    for _ in range(STARTS):
        kernel = Kernel(plan["memory_bytes"], plan["pids"])
        try:
            lost = _pass(plan, kernel, relay, left_out, told)
        finally:
            kernel.close()
        if lost is None:
            return "; ".join(notes)
        number, reason = lost
        notes.append(f"cell {number + 1}: {reason}")
        left_out.add(number)
    return "; ".join(notes)


def _pass(
    plan: wire.Message, kernel: Kernel, relay: Relay, left_out: set[int], told: set[int]
) -> tuple[int, str] | None:
    """One run from the top. A test that has had its result is not run again. Returns the cell that lost the kernel."""
    for cell in plan["cells"]:
        number = cell["index"]
        if number in left_out or (cell["test"] and number in told):
            continue
        try:
            outputs = kernel.run(cell["source"], plan["cell_seconds"])
        except KernelLost as lost:
            relay.tell({"kind": "cell", "index": number, "outputs": [_error("KernelLost", str(lost))]})
            told.add(number)
            return number, str(lost)
        if number not in told:
            relay.tell({"kind": "cell", "index": number, "outputs": outputs})
            told.add(number)
    return None


def main() -> int:
    """What the container runs."""
    Cgroup.create("/grader").join()  # on version 2 a group with children that have limits may hold no process
    shutil.copytree(FILES, WORK)
    os.chdir(WORK)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as grader:
        grader.connect(str(wire.GRADER))
        plan = wire.receive(grader)
        relay = Relay(grader)
        try:
            note = run_notebook(plan, relay)
        except KernelLost as lost:
            note = str(lost)
        relay.tell({"kind": "end", "note": note})
    return 0


if __name__ == "__main__":
    sys.exit(main())
