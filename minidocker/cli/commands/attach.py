"""`attach`, and `start -a`.

Source  docker attach's reference.
Rules   - the wait is answered before the attach is sent, so an end in between is not missed.
"""

import posix

from minidocker.cli.commands.run import exit_status
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.cli.signals import forward
from minidocker.cli.streams import Detached, Pump
from minidocker.cli.terminal import DetachKeys, RawMode, follow_size
from minidocker.client.resource import member
from minidocker.client.response import Response
from minidocker.client.transport import quote

ATTACH_OPTIONS = """
    --detach-keys string   Keys that detach from the container
    --no-stdin             Leave its stdin alone
    --sig-proxy            Pass signals on to the process (default true)
"""


def _inspect(session: Session, name: str) -> dict[str, object]:
    answer = session.transport.request("GET", f"/containers/{quote(name)}/json").json()
    assert isinstance(answer, dict)
    return answer


def attach(session: Session, options: Options, operands: list[str]) -> int:
    """`attach CONTAINER`; its exit status."""
    document = _inspect(session, operands[0])
    for state, text in (("Paused", "You cannot attach to a paused container, unpause it first"),
                        ("Restarting", "You cannot attach to a restarting container, wait until it is running")):
        if member(document, "State", state):
            raise CommandFailure(text)
    if not member(document, "State", "Running"):
        raise CommandFailure("You cannot attach to a stopped container, start it first")
    stdin = bool(member(document, "Config", "OpenStdin")) and not options.flag("no-stdin")
    tty = bool(member(document, "Config", "Tty"))
    if tty and stdin and not posix.isatty(0):
        raise CommandFailure("the input device is not a TTY")
    path = f"/containers/{document['Id']}"
    wait = session.transport.request("POST", f"{path}/wait")
    attached = _attach(session, path, stdin=stdin, keys=options.text("detach-keys"))
    if options.flag("sig-proxy") and not tty:
        forward(session, str(document["Id"]))
    return _pump(session, path, attached, wait, tty=tty, stdin=stdin, keys=options.text("detach-keys"), start=False)


def start_attached(session: Session, options: Options, name: str) -> int:
    """Start one container with its streams here; its exit status."""
    document = _inspect(session, name)
    tty = bool(member(document, "Config", "Tty"))
    stdin = options.flag("interactive") and bool(member(document, "Config", "OpenStdin"))
    if tty and stdin and not posix.isatty(0):
        raise CommandFailure("the input device is not a TTY")
    path = f"/containers/{document['Id']}"
    if member(document, "State", "Running"):
        wait = session.transport.request("POST", f"{path}/wait")
    else:
        removed = bool(member(document, "HostConfig", "AutoRemove"))
        wait = session.transport.request("POST", f"{path}/wait",
                                         query={"condition": "removed" if removed else "next-exit"})
    attached = _attach(session, path, stdin=stdin, keys=options.text("detach-keys"))
    if not tty:
        forward(session, str(document["Id"]))
    return _pump(session, path, attached, wait, tty=tty, stdin=stdin, keys=options.text("detach-keys"), start=True)


def _attach(session: Session, path: str, *, stdin: bool, keys: str) -> Response:
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": keys}
    return session.transport.request("POST", f"{path}/attach", query=query, hijack=True)


def _pump(session: Session, path: str, attached: Response, wait: Response, *, tty: bool, stdin: bool, keys: str,
          start: bool) -> int:
    with RawMode(wanted=tty and stdin):
        if start:
            session.transport.request("POST", f"{path}/start").read()
        if tty:
            follow_size(session, path)
        watched = DetachKeys(keys) if tty and stdin else None
        try:
            Pump(attached.take_connection(), raw=tty, stdin=stdin, keys=watched).run()
        except Detached:
            # Neither an end nor a failure of the container.
            session.error("read escape sequence\n")
            return 0 if start else 1
    return exit_status(wait)


ATTACH = Command(attach, "[OPTIONS] CONTAINER", ATTACH_OPTIONS, 1, 1)
