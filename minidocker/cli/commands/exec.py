"""`exec`.

Source  docker exec's reference; Docker Engine API, "Exec".
Rules   - hot path: three requests (create, start, inspect); the daemon refuses what is not running.
"""

import posix

from minidocker.cli.create_body import Document, environment
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.cli.streams import Detached, Pump
from minidocker.client.response import Connection
from minidocker.client.transport import quote

EXEC_OPTIONS = """
-d, --detach               Run in the background
    --detach-keys string   Keys that detach from the command
-e, --env list             Set environment variables
    --env-file list        Read environment variables from a file
-i, --interactive          Keep STDIN open even if not attached
    --privileged           Give all privileges of the host's root
-t, --tty                  Give it a terminal
-u, --user string          User by name or number (user[:group])
-w, --workdir string       Working directory
"""


def execute(session: Session, options: Options, operands: list[str]) -> int:
    """`exec CONTAINER COMMAND...`; the command's exit status."""
    container, *command = operands
    detach, tty = options.flag("detach"), options.flag("tty")
    stdin = options.flag("interactive") and not detach
    body: Document = {
        "Cmd": command, "AttachStdin": stdin, "AttachStdout": not detach, "AttachStderr": not detach, "Tty": tty,
        "User": options.text("user"), "WorkingDir": options.text("workdir"), "Privileged": options.flag("privileged"),
        "Env": environment(session, options), "DetachKeys": options.text("detach-keys"),
    }
    if tty:
        from minidocker.cli.terminal import size

        body["ConsoleSize"] = list(size())
        if stdin and not posix.isatty(0):
            # Say first that there is no such container, as docker does.
            session.transport.request("GET", f"/containers/{quote(container)}/json").read()
            raise CommandFailure("the input device is not a TTY")
    created = session.transport.request("POST", f"/containers/{quote(container)}/exec", body=body).json()
    assert isinstance(created, dict)
    path = f"/exec/{created['Id']}"
    start: Document = {"Detach": detach, "Tty": tty}
    if detach:
        session.transport.request("POST", f"{path}/start", body=start).read()
        return 0
    if tty:
        start["ConsoleSize"] = body["ConsoleSize"]
    attached = session.transport.request("POST", f"{path}/start", body=start, hijack=True)
    try:
        if tty:
            _on_terminal(session, options, path, attached.take_connection(), stdin=stdin)
        else:
            Pump(attached.take_connection(), raw=False, stdin=stdin).run()
    except Detached:
        return 0
    ended = session.transport.request("GET", f"{path}/json").json()
    assert isinstance(ended, dict)
    return int(ended.get("ExitCode") or 0)


def _on_terminal(session: Session, options: Options, path: str, connection: Connection, *, stdin: bool) -> None:
    from minidocker.cli.terminal import DetachKeys, RawMode, follow_size

    keys = DetachKeys(options.text("detach-keys")) if stdin else None
    with RawMode(wanted=stdin):
        follow_size(session, path)
        Pump(connection, raw=True, stdin=stdin, keys=keys).run()


EXEC = Command(execute, "[OPTIONS] CONTAINER COMMAND [ARG...]", EXEC_OPTIONS, 2, None, interspersed=False)
