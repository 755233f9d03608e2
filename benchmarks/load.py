"""The daemon under load: 200 containers, 50 clients at once, a gigabyte of output, readers that stop reading.

Rules   - ours alone, in absolute figures: the goal stands beside them as a contestant called `goal`.
        - memory is PSS, its peak is looked for five times a second while bytes flow.
        - a figure that is lost data is no figure: `ValueError` ends the run.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contestants import Engine, parent_of, pss_mib, quietly
from benchmarks.rows import IMAGE
from benchmarks.table import Row
from minidocker.client import connect
from minidocker.client.client import Client
from minidocker.client.containers import Container
from minidocker.client.resource import member

CONTAINERS, CLIENTS, ROUNDS = 200, 50, 4
GIGABYTE = 10**9
LINE_BYTES = 1000
ENDS = 10  # how many starts count as the first ones, and as the last ones
SAMPLE_SECONDS = 0.2


def row(what: str, samples: list[float], unit: str = "ms", goal: float | None = None) -> Row:
    """A figure of ours against an absolute goal."""
    if goal is None:
        return Row(what, {"minidocker": samples}, unit)
    return Row(what, {"minidocker": samples, "goal": [goal]}, unit, "goal", 1.0)


def timed(work: object) -> float:
    """Milliseconds that calling `work` takes."""
    begin = time.perf_counter()
    work()  # type: ignore[operator]
    return (time.perf_counter() - begin) * 1000


def measure(engine: Engine) -> list[Row]:
    """All rows. The engine runs and has the image."""
    client = connect(engine.command[-1])
    many, containers = crowd(engine, client)
    together = clients_at_once(engine, containers)
    begin = time.perf_counter()
    quietly([*engine.command, "rm", "-f", *(container.id for container in containers)])
    removed = (time.perf_counter() - begin) * 1000 / CONTAINERS
    return [
        *many,
        *together,
        row(f"rm -f of the {CONTAINERS}, each", [removed]),
        *output(engine, client),
        *stalled(engine, client),
    ]


def crowd(engine: Engine, client: Client) -> tuple[list[Row], list[Container]]:
    """200 containers one after the other; then `ps` and memory."""
    idle = pss_mib({engine_pid(engine)})
    containers = [client.containers.create(IMAGE, ["sleep", "3600"]) for _ in range(CONTAINERS)]
    starts = [timed(container.start) for container in containers]
    monitors = {parent_of(pid_1(client, container)) for container in containers}
    first, last = starts[:ENDS], starts[-ENDS:]
    return [
        Row(f"start of the {CONTAINERS}th", {"minidocker": last, "the first": first}, "ms", "the first", 1.5),
        row(f"ps with {CONTAINERS} running", [timed(engine.cli("ps")) for _ in range(ENDS)], goal=50),
        row("  asked by a warm client", [timed(client.containers.list) for _ in range(ENDS)]),
        row("daemon, idle (PSS)", [idle], "MiB"),
        row(f"daemon with {CONTAINERS} (PSS)", [pss_mib({engine_pid(engine)})], "MiB"),
        row("each monitor (PSS)", [pss_mib(monitors) / CONTAINERS], "MiB"),
    ], containers


def pid_1(client: Client, container: Container) -> int:
    """The container's first process, as the host counts."""
    pid = member(client.containers.get(container.id).attrs, "State", "Pid")
    if not isinstance(pid, int) or not pid:
        raise ValueError(f"container {container.id} does not run")
    return pid


def clients_at_once(engine: Engine, containers: list[Container]) -> list[Row]:
    """50 clients call list, logs and start, all at the same time."""
    spent: dict[str, list[float]] = {"list": [], "logs": [], "start": []}
    failures: list[BaseException] = []
    numbers = itertools.count()

    def one() -> None:
        try:
            with connect(engine.command[-1]) as client:
                for _ in range(ROUNDS):
                    spent["list"].append(timed(client.containers.list))
                    spent["logs"].append(timed(containers[next(numbers) % len(containers)].logs))
                    made = client.containers.create(IMAGE, ["true"])
                    spent["start"].append(timed(made.start))
                    if made.wait() != 0:
                        raise ValueError("true did not end with 0")
                    made.remove()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise ValueError(f"{len(failures)} of {CLIENTS} clients failed: {failures[0]}")
    return [row(f"{CLIENTS} clients: {what}", samples) for what, samples in spent.items()]


@contextlib.contextmanager
def peaks(**processes: set[int]) -> Iterator[dict[str, float]]:
    """The highest memory of each set of processes while the block runs, in MiB."""
    found = dict.fromkeys(processes, 0.0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            for name, members in processes.items():
                found[name] = max(found[name], pss_mib(members))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def output(engine: Engine, client: Client) -> list[Row]:
    """A gigabyte through an attach, then through logs; the end of its log."""
    script = f"read go; yes {'x' * (LINE_BYTES - 1)} | head -c {GIGABYTE}"
    container = client.containers.run(IMAGE, ["sh", "-c", script], detach=True, stdin_open=True)
    monitor = {parent_of(pid_1(client, container))}
    daemon = {engine_pid(engine)}
    before = pss_mib(daemon)
    with peaks(daemon=daemon, monitor=monitor) as attached, container.attach(stdin=True) as stream:
        begin = time.perf_counter()
        stream.send(b"go\n")
        check_size("attach", sum(map(len, stream)))
        attach_seconds = time.perf_counter() - begin
    with peaks(daemon=daemon) as logged:
        begin = time.perf_counter()
        check_size("logs", sum(map(len, container.follow_logs(follow=False))))
        logs_seconds = time.perf_counter() - begin
    tail = [timed(lambda: container.logs(tail=10)) for _ in range(ENDS)]
    container.remove()
    return [
        row("1 GB through attach", [attach_seconds], "s"),
        row("  monitor's memory, peak", [attached["monitor"]], "MiB", 16),
        row("  daemon's memory, gained", [max(0.0, attached["daemon"] - before)], "MiB", 16),
        row("1 GB through logs", [logs_seconds], "s"),
        row("  daemon's memory, gained", [max(0.0, logged["daemon"] - before)], "MiB", 16),
        row("logs --tail 10 of 1 GB", tail, goal=50),
    ]


def check_size(what: str, size_bytes: int) -> None:
    if size_bytes != GIGABYTE:
        raise ValueError(f"{what} gave {size_bytes} of {GIGABYTE} bytes")


def engine_pid(engine: Engine) -> int:
    """The daemon itself, without its launcher and worker."""
    return min(pid for pid in engine.daemon_pids() if b"minidockerd" in Path(f"/proc/{pid}/cmdline").read_bytes())


def stalled(engine: Engine, client: Client) -> list[Row]:
    """Clients that attach to floods of output and never read: what others notice of it."""
    log = {"max-size": "1m", "max-file": "2"}
    floods = [
        client.containers.run(IMAGE, ["yes", "y" * 200], detach=True, log_driver="json-file", log_options=log)
        for _ in range(5)
    ]
    daemon = {engine_pid(engine)}
    before = pss_mib(daemon)
    with contextlib.ExitStack() as scope:
        for flood in floods:
            scope.enter_context(flood.attach())
        time.sleep(2)  # as long as it takes until everything on the way is full
        lists = [timed(client.containers.list) for _ in range(ENDS)]
        runs = [timed(lambda: client.containers.run(IMAGE, ["true"], remove=True)) for _ in range(ENDS)]
        gained = pss_mib(daemon) - before
        kills = [timed(lambda flood=flood: flood.remove(force=True)) for flood in floods]
    return [
        row("5 stalled readers: list", lists),
        row("  run --rm of another", runs),
        row("  rm -f of theirs", kills),
        row("  daemon's memory, gained", [max(0.0, gained)], "MiB", 16),
    ]
