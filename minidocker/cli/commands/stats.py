"""`stats`.

Source  docker stats' reference; the CPU share is that of the time between two readings.
Rules   - each container is read in a thread of its own: a reading takes the daemon a second or two.
"""

import threading
import time

from minidocker.cli.listing import FORMAT_OPTION, Field, Item, show
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, describe
from minidocker.cli.values import binary_size, human_size
from minidocker.client.resource import document, documents, member
from minidocker.client.transport import quote

STATS_OPTIONS = """
-a, --all         Show all containers, not only running ones
    --no-stream   Show one reading and end
    --no-trunc    Do not shorten the output
""" + FORMAT_OPTION
_DEFAULT = ("Container", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


def _whole(item: Item, *path: str) -> int:
    value = member(item, *path)
    return value if isinstance(value, int) else 0


def cpu_percent(item: Item) -> float:
    """The share of one CPU that was used between the two readings."""
    used = _whole(item, "cpu_stats", "cpu_usage", "total_usage") - _whole(item, "precpu_stats", "cpu_usage",
                                                                          "total_usage")
    passed = _whole(item, "cpu_stats", "system_cpu_usage") - _whole(item, "precpu_stats", "system_cpu_usage")
    count = _whole(item, "cpu_stats", "online_cpus") or 1
    return used / passed * count * 100 if used > 0 and passed > 0 else 0.0


def memory_used(item: Item) -> int:
    """Bytes in use without the page cache that could be dropped at once."""
    usage = _whole(item, "memory_stats", "usage")
    for name in ("total_inactive_file", "inactive_file"):
        inactive = member(item, "memory_stats", "stats", name)
        if isinstance(inactive, int):
            return usage - inactive if inactive < usage else usage
    return usage


def _network(item: Item) -> str:
    networks = member(item, "networks")
    cards = networks.values() if isinstance(networks, dict) else []
    received = sum(_whole(card, "rx_bytes") for card in cards)
    sent = sum(_whole(card, "tx_bytes") for card in cards)
    return f"{human_size(received, 3)} / {human_size(sent, 3)}"


def _blocks(item: Item) -> str:
    totals = {"r": 0, "w": 0}
    for entry in documents(member(item, "blkio_stats", "io_service_bytes_recursive")):
        letter = str(entry.get("op", ""))[:1].lower()
        if letter in totals:
            totals[letter] += _whole(entry, "value")
    return f"{human_size(totals['r'], 3)} / {human_size(totals['w'], 3)}"


def _fields(*, full: bool) -> dict[str, Field]:
    def identity(item: Item) -> str:
        text = str(item.get("id") or "")
        return text if full else text[:12]

    def percent(item: Item) -> str:
        limit = _whole(item, "memory_stats", "limit")
        return f"{memory_used(item) / limit * 100 if limit else 0:.2f}%"

    def memory(item: Item) -> str:
        return f"{binary_size(memory_used(item))} / {binary_size(_whole(item, 'memory_stats', 'limit'))}"

    return {
        "Container": Field("CONTAINER ID", identity), "ID": Field("CONTAINER ID", identity),
        "Name": Field("NAME", lambda item: str(item.get("name") or "--").removeprefix("/")),
        "CPUPerc": Field("CPU %", lambda item: f"{cpu_percent(item):.2f}%"),
        "MemUsage": Field("MEM USAGE / LIMIT", memory), "MemPerc": Field("MEM %", percent),
        "NetIO": Field("NET I/O", _network), "BlockIO": Field("BLOCK I/O", _blocks),
        "PIDs": Field("PIDS", lambda item: str(_whole(item, "pids_stats", "current"))),
    }


def _read_all(session: Session, names: list[str]) -> tuple[list[Item], list[str]]:
    readings: dict[str, Item] = {}
    problems: list[str] = []

    def read(name: str) -> None:
        try:
            path = f"/containers/{quote(name)}/stats"
            readings[name] = document(session.transport.request("GET", path, query={"stream": "0"}).json())
        except Exception as error:
            problems.append(describe(error))

    threads = [threading.Thread(target=read, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [readings[name] for name in names if name in readings], problems


def stats(session: Session, options: Options, operands: list[str]) -> int:
    """`stats [CONTAINER...]`"""
    fields = _fields(full=options.flag("no-trunc"))
    while True:
        names = operands
        if not names:
            listed = session.transport.request("GET", "/containers/json", query={"all": options.flag("all")}).json()
            names = [str(item["Id"]) for item in documents(listed)]
        readings, problems = _read_all(session, names)
        if problems:
            raise CommandFailure("\n".join(problems))
        if not options.flag("no-stream"):
            session.out("\x1b[H\x1b[2J")
        show(session, fields, _DEFAULT, readings, options.text("format"))
        if options.flag("no-stream"):
            return 0
        if not names:
            time.sleep(1)


STATS = Command(stats, "[OPTIONS] [CONTAINER...]", STATS_OPTIONS, 0, None)
