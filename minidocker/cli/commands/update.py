"""`update`: change the limits of containers.

Source  docker update's reference.
"""

from minidocker.cli.create_body import Document, restart_policy
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, each
from minidocker.client.transport import quote

UPDATE_OPTIONS = """
    --blkio-weight uint16        Block I/O weight, from 10 to 1000; 0 leaves it alone
    --cpu-period int             CFS period in microseconds
    --cpu-quota int              CFS quota in microseconds
    --cpu-rt-period int          Real-time period in microseconds
    --cpu-rt-runtime int         Real-time runtime in microseconds
-c, --cpu-shares int             CPU weight relative to others
    --cpus decimal               Number of CPUs
    --cpuset-cpus string         CPUs that may be used (0-3, 0,1)
    --cpuset-mems string         Memory nodes that may be used (0-3, 0,1)
-m, --memory bytes               Memory limit
    --memory-reservation bytes   Soft memory limit
    --memory-swap bytes          Limit of memory and swap together; -1 for no limit of swap
    --pids-limit int             Limit of processes; -1 for none
    --restart string             When to restart
"""
_NUMBERS = {"blkio-weight": "BlkioWeight", "cpu-period": "CpuPeriod", "cpu-quota": "CpuQuota",
            "cpu-rt-period": "CpuRealtimePeriod", "cpu-rt-runtime": "CpuRealtimeRuntime", "cpu-shares": "CpuShares",
            "cpus": "NanoCpus", "memory": "Memory", "memory-reservation": "MemoryReservation",
            "memory-swap": "MemorySwap", "pids-limit": "PidsLimit"}


def update(session: Session, options: Options, operands: list[str]) -> int:
    """`update CONTAINER...`"""
    body: Document = {key: options.number(name) for name, key in _NUMBERS.items() if options.given(name)}
    for name, key in (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems")):
        if options.given(name):
            body[key] = options.text(name)
    if options.given("restart"):
        body["RestartPolicy"] = restart_policy(options.text("restart"))
    if not body:
        raise CommandFailure("you must provide one or more flags when using this command")

    def one(name: str) -> str:
        answer = session.transport.request("POST", f"/containers/{quote(name)}/update", body=body).json()
        assert isinstance(answer, dict)
        for warning in answer.get("Warnings") or []:
            session.error(f"{warning}\n")
        return name

    return each(session, operands, one)


UPDATE = Command(update, "[OPTIONS] CONTAINER [CONTAINER...]", UPDATE_OPTIONS, 1, None)
