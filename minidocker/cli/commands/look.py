"""Commands that look at one container: logs, top, port, diff.

Source  docker's reference of each.
"""

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, write_all
from minidocker.cli.table import align
from minidocker.cli.times import timestamp
from minidocker.client.frames import Demultiplexer
from minidocker.client.resource import member
from minidocker.client.transport import quote

LOGS_OPTIONS = """
    --details        Show the attributes that log options added
-f, --follow         Wait for more output
    --since string   Show what was written since then (2013-01-02T13:23:37Z, or 42m for 42 minutes ago)
-n, --tail string    Number of lines to show from the end
-t, --timestamps     Show when each line was written
    --until string   Show what was written before then
"""


def _inspect(session: Session, name: str) -> dict[str, object]:
    answer = session.transport.request("GET", f"/containers/{quote(name)}/json").json()
    assert isinstance(answer, dict)
    return answer


def logs(session: Session, options: Options, operands: list[str]) -> int:
    """`logs CONTAINER`: what it wrote, stdout to stdout and stderr to stderr."""
    document = _inspect(session, operands[0])
    query = {"stdout": True, "stderr": True, "follow": options.flag("follow"), "details": options.flag("details"),
             "timestamps": options.flag("timestamps"), "tail": options.text("tail", "all"),
             "since": timestamp(options.text("since")), "until": timestamp(options.text("until"))}
    response = session.transport.request("GET", f"/containers/{document['Id']}/logs", query=query)
    frames = None if member(document, "Config", "Tty") else Demultiplexer()
    for piece in response.chunks():
        if frames is None:
            write_all(1, piece)
            continue
        for stream, payload in frames.feed(piece):
            write_all(1 if stream == 1 else 2, payload)
    return 0


def top(session: Session, options: Options, operands: list[str]) -> int:
    """`top CONTAINER [ps OPTIONS]`"""
    path = f"/containers/{quote(operands[0])}/top"
    answer = session.transport.request("GET", path, query={"ps_args": " ".join(operands[1:])}).json()
    assert isinstance(answer, dict)
    lines = [answer["Titles"], *(answer["Processes"] or [])]
    session.out(align("\n".join("\t".join(line) for line in lines), minimum=20, padding=3) + "\n")
    return 0


def port(session: Session, options: Options, operands: list[str]) -> int:
    """`port CONTAINER [PORT[/PROTOCOL]]`: where its ports are published."""
    document = _inspect(session, operands[0])
    ports = member(document, "NetworkSettings", "Ports")
    published = ports if isinstance(ports, dict) else {}
    if len(operands) > 1:
        wanted = operands[1] if "/" in operands[1] else f"{operands[1]}/tcp"
        if not published.get(wanted):
            raise CommandFailure(f"Error: No public port '{operands[1]}' published for {operands[0]}")
        session.out("".join(_address(binding) + "\n" for binding in published[wanted]))
        return 0
    lines = [(int(inside.partition("/")[0]), inside, _address(binding)) for inside, bindings in published.items()
             for binding in bindings or []]
    session.out("".join(f"{inside} -> {address}\n" for _, inside, address in sorted(lines)))
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp", "")
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def diff(session: Session, options: Options, operands: list[str]) -> int:
    """`diff CONTAINER`: C changed, A added, D deleted."""
    changes = session.transport.request("GET", f"/containers/{quote(operands[0])}/changes").json()
    assert isinstance(changes, list) or changes is None
    session.out("".join(f"{'CAD'[change['Kind']]} {change['Path']}\n" for change in changes or []))
    return 0


LOGS = Command(logs, "[OPTIONS] CONTAINER", LOGS_OPTIONS, 1, 1)
TOP = Command(top, "CONTAINER [ps OPTIONS]", "", 1, None, interspersed=False)
PORT = Command(port, "CONTAINER [PRIVATE_PORT[/PROTO]]", "", 1, 2)
DIFF = Command(diff, "CONTAINER", "", 1, 1)
