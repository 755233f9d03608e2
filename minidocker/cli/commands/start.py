"""`start`.

Source  docker start's reference. Rules - hot path without -a and -i.
"""

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, describe
from minidocker.client.transport import quote

START_OPTIONS = """
-a, --attach                  Attach to its output and pass signals on
    --detach-keys string      Keys that detach from the container
-i, --interactive             Attach to its stdin
"""


def start(session: Session, options: Options, operands: list[str]) -> int:
    """`start CONTAINER...`: start each, printing its name; with -a or -i the exit status of the one."""
    if options.flag("attach") or options.flag("interactive"):
        if len(operands) > 1:
            raise CommandFailure("you cannot start and attach multiple containers at once")
        from minidocker.cli.commands.attach import start_attached

        return start_attached(session, options, operands[0])
    failed = []
    for name in operands:
        try:
            session.transport.request("POST", f"/containers/{quote(name)}/start").read()
        except Exception as error:
            session.error(describe(error) + "\n")
            failed.append(name)
        else:
            session.out(name + "\n")
    if failed:
        raise CommandFailure(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


START = Command(start, "[OPTIONS] CONTAINER [CONTAINER...]", START_OPTIONS, 1, None)
