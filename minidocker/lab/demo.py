"""`./lab demo`: twenty minutes on a stage. Each step is told, shown as a command, and run when Enter is pressed.

Source  what goes wrong on stages: networks, leftovers of the rehearsal, a command that hangs.
Rules   - it runs on an engine of its own, made when it begins and gone when it ends: nothing to tidy up, no network.
        - a command that fails or takes too long is replaced by what it printed when the demonstration was recorded, and
          the screen says so: the talk goes on.
        - `r` begins an act again on a fresh engine, whatever the state of the old one.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minidocker.lab import swap

CHECKOUT = Path(__file__).resolve().parents[2]
RECORD = CHECKOUT / "docs" / "demo.json"
TIMEOUT_SECONDS = 20
SHOWN_LINES = 24
BOLD, DIM, PLAIN = "\033[1m", "\033[2m", "\033[0m"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the shell, and what the speaker says before it runs."""

    say: str
    command: str


@dataclass(frozen=True, slots=True)
class Act:
    """A part of the talk that stands alone: begun anew, it finds what it needs."""

    title: str
    minutes: int
    lesson: str
    steps: tuple[Step, ...]


ACTS = (
    Act("A container is a process", 4, "01", (
        Step("One command, as everybody knows it.", "minidocker run -d --name talk busybox sleep 600"),
        Step("Where is it? Not in a virtual machine. It is in the process list of this machine.",
             "ps -o pid,ppid,args -C sleep"),
        Step("Inside it is number 1, and it sees nobody else.", "minidocker exec talk ps"),
        Step("What is different: its namespaces. These are the host's ...", "readlink /proc/self/ns/*"),
        Step("... and these are the container's. One number differs for each kind that it has for itself.",
             "readlink /proc/$(minidocker inspect -f '{{.State.Pid}}' talk)/ns/*"),
    )),
    Act("A filesystem in layers", 4, "05", (
        Step("The container writes a file and deletes one that its image brought.",
             "minidocker run --name layers busybox sh -c 'echo hello > /greeting; rm /bin/vi'"),
        Step("The image is as before. What is the container's own is a short list.", "minidocker diff layers"),
        Step("A commit makes a new image of that list: one more layer.",
             "minidocker commit layers greeting && minidocker history greeting"),
        Step("Another container of it, and the file is there.", "minidocker run --rm greeting cat /greeting"),
    )),
    Act("Limits", 3, "04", (
        Step("A container may have 32 MiB. It asks for more: the kernel kills it, and says why.",
             "minidocker run --name greedy -m 32m busybox sh -c 'tail /dev/zero'; "
             "minidocker inspect -f 'exit {{.State.ExitCode}}, killed for memory: {{.State.OOMKilled}}' greedy"),
        Step("A fork bomb, with a limit of 20 processes. The machine does not notice.",
             "minidocker run --rm --pids-limit 20 busybox sh -c "
             "'for i in $(seq 40); do sleep 1 & done 2>&1 | tail -n 2; true'"),
    )),
    Act("Images are built, and only what changed", 4, "09", (
        Step("A recipe of three steps.",
             "mkdir -p $STAGE && cd $STAGE && printf 'FROM busybox\\nRUN echo tools > /tools\\n"
             "COPY app /app\\nCMD [\"cat\", \"/app\"]\\n' > Dockerfile && echo one > app && cat Dockerfile"),
        Step("Built once: each step is a layer.", "minidocker build -t app $STAGE"),
        Step("Built again: nothing to do.", "minidocker build -t app $STAGE"),
        Step("Now the program changes. Which steps run? The cache says why.",
             "echo two > $STAGE/app; minidocker build --explain -t app $STAGE; minidocker run --rm app"),
    )),
    Act("Networks and names", 3, "10", (
        Step("A network of our own, and a server in it.",
             "minidocker network create stage && "
             "minidocker run -d --network stage --name web busybox sh -c 'mkdir /w; echo it works > /w/index.html; "
             "httpd -f -p 80 -h /w'"),
        Step("Another container finds it by its name.", "minidocker run --rm --network stage busybox wget -qO- http://web"),
        Step("From another network there is no way, even by the address.",
             "minidocker run --rm busybox ping -c 1 -W 1 "
             "$(minidocker inspect -f '{{.NetworkSettings.Networks.stage.IPAddress}}' web); echo exit $?"),
    )),
    Act("The engine may die", 2, "13", (
        Step("A container that counts.",
             "minidocker run -d --name counter busybox sh -c 'while :; do date +%T; sleep 1; done'"),
        Step("The daemon is killed, without mercy. The container goes on: it is only a process.",
             "kill -9 $(cat $ROOT/exec/minidocker.pid); sleep 1; ps -o pid,args -C sh | grep date"),
        Step("A new daemon finds it again, and no line of its log is missing.",
             "(minidockerd --data-root $ROOT/data --exec-root $ROOT/exec -H $DOCKER_HOST >/dev/null 2>&1 &); "
             "for i in $(seq 50); do minidocker ps >/dev/null 2>&1 && break; sleep 0.1; done; "
             "minidocker ps; minidocker logs --tail 4 counter"),
    )),
)  # fmt: skip


class Stage:
    """An engine for one act, and a shell that knows it."""

    def __init__(self, root: Path, url: str) -> None:
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "DOCKER_HOST": url,
            "ROOT": str(root),
            "STAGE": str(root / "stage"),
        }

    def run(self, command: str) -> tuple[int | None, str]:
        """The exit status (None: it took too long) and what was printed."""
        shell = subprocess.Popen(
            ["bash", "-c", command], env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
        try:
            output, _ = shell.communicate(timeout=TIMEOUT_SECONDS)
            return shell.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            return None, shell.communicate()[0]


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A fresh engine with `busybox`; all of it is gone at the end."""
    with swap.engine({}) as engine:
        yield Stage(engine.root, engine.url)


def perform(act: Act, recorded: dict[str, str], *, auto: bool, spoil: bool = False) -> dict[str, str] | None:
    """Play one act; the output of each command, or None if the speaker wants to begin it again.

    recorded  what each command printed when the demonstration was recorded.
    auto      nobody presses Enter.
    spoil     each command fails: for a rehearsal of the worst case.
    """
    print(f"\n{BOLD}{act.title}{PLAIN}  {DIM}({act.minutes} minutes; lesson {act.lesson}){PLAIN}")
    printed: dict[str, str] = {}
    with stage() as on:
        for step in act.steps:
            print(f"\n{textwrap.fill(step.say, 100)}\n{BOLD}$ {step.command}{PLAIN}", flush=True)
            key = "" if auto else _key()
            if key == "r":
                return None
            if key == "s":
                continue
            status, output = on.run("exit 99" if spoil else step.command)
            if status != 0 and step.command in recorded:
                why = "it took too long" if status is None else f"exit status {status}"
                print(f"{DIM}({why}; this is what it printed when it was recorded){PLAIN}")
                output = recorded[step.command]
            printed[step.command] = output
            lines = output.splitlines()
            print("\n".join(lines[:SHOWN_LINES] + (["..."] if len(lines) > SHOWN_LINES else [])), flush=True)
    return printed


def _key() -> str:
    """Enter goes on; "s" skips the command, "r" begins the act again, "q" ends the talk."""
    try:
        answer = input(f"{DIM}[Enter: run, s: skip, r: this act again, q: quit] {PLAIN}").strip().lower()
    except EOFError:
        answer = "q"
    if answer == "q":
        raise KeyboardInterrupt
    return answer


def main(arguments: list[str]) -> int:
    """Play all acts, or those whose numbers are given."""
    parser = argparse.ArgumentParser("./lab demo", description="Twenty minutes on a stage, on an engine of its own.")
    parser.add_argument("acts", nargs="*", type=int, help="numbers of acts (all)")
    parser.add_argument("--list", action="store_true", help="only list the acts")
    parser.add_argument("--auto", action="store_true", help="nobody presses Enter: a rehearsal")
    parser.add_argument("--spoil", action="store_true", help="let each command fail: a rehearsal of the worst case")
    parser.add_argument("--record", action="store_true", help="keep what is printed, for commands that fail on stage")
    given = parser.parse_args(arguments)
    chosen = [act for number, act in enumerate(ACTS, 1) if not given.acts or number in given.acts]
    if given.list:
        for number, act in enumerate(ACTS, 1):
            print(f"{number}  {act.title} ({act.minutes} minutes, lesson {act.lesson})")
        return 0
    recorded: dict[str, str] = json.loads(RECORD.read_text()) if RECORD.exists() and not given.record else {}
    kept: dict[str, str] = {}
    try:
        for act in chosen:
            while (printed := perform(act, recorded, auto=given.auto or given.record, spoil=given.spoil)) is None:
                pass
            kept |= printed
    except KeyboardInterrupt:
        print("\nthe engine of the demonstration is gone; nothing is left")
        return 0
    if given.record:
        RECORD.write_text(json.dumps(kept, indent=1) + "\n")
    print("\nNow the same in a notebook, with pictures: ./lab opens the course; ./lab slides makes slides of it.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
