"""`run` and `create`.

Source  docker run's reference; the order of requests is the stock client's: create, attach, wait, start.
Rules   - hot path. Attach and wait are answered before the start is sent: no output and no exit status can be missed.
        - exit status: the command's; 125 the engine failed, 126 the command cannot be run, 127 there is none.
"""

import posix

from minidocker.cli.container_options import CREATE_OPTIONS, RUN_OPTIONS
from minidocker.cli.create_body import Document, create_body
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, describe
from minidocker.cli.streams import Detached, Pump
from minidocker.client.response import Response

_NO_COMMAND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_RUNNABLE = ("permission denied", "is a directory")


def create(session: Session, options: Options, operands: list[str]) -> int:
    """`create IMAGE [COMMAND...]`: make a container, print its ID."""
    body = create_body(session, options, operands[0], operands[1:], detach=False)
    session.out(create_container(session, options, body) + "\n")
    return 0


def run(session: Session, options: Options, operands: list[str]) -> int:
    """`run IMAGE [COMMAND...]`: make a container and run it; the command's exit status."""
    detach = options.flag("detach")
    if detach and options.given("attach"):
        raise CommandFailure("conflicting options: cannot specify both --attach and --detach", 1)
    body = create_body(session, options, operands[0], operands[1:], detach=detach)
    if body["Tty"] and body["AttachStdin"] and not detach and not posix.isatty(0):
        raise CommandFailure("the input device is not a TTY", 1)
    container = create_container(session, options, body)
    if detach:
        _start(session, container)
        session.out(container + "\n")
        return 0
    return _run_attached(session, options, body, container)


def create_container(session: Session, options: Options, body: Document) -> str:
    """Create it, pulling the image if it is absent (as --pull says); the ID. Raises CommandFailure, DaemonError."""
    image = str(body["Image"])
    if not image or image != image.lower():
        from minidocker.cli.references import refusal

        if problem := refusal(image):
            raise CommandFailure(problem, 125)
    cidfile = options.text("cidfile")
    if cidfile and _exists(cidfile):
        raise CommandFailure(f"container ID file found, make sure the other container isn't running or delete "
                             f"{cidfile}", 125)
    pull = options.text("pull", "missing")
    if pull not in ("always", "missing", "never"):
        raise CommandFailure(f"invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\"", 125)
    if body["Tty"]:
        from minidocker.cli.terminal import size

        host = body["HostConfig"]
        assert isinstance(host, dict)
        host["ConsoleSize"] = list(size())
    answer = _create(session, options, body, pull)
    for warning in answer.get("Warnings") or []:
        session.error(f"WARNING: {warning}\n")
    container = str(answer["Id"])
    if cidfile:
        with open(cidfile, "w", encoding="utf-8") as file:
            file.write(container)
    return container


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def _create(session: Session, options: Options, body: Document, pull: str) -> dict[str, list[str] | str | None]:
    query = {"name": options.text("name"), "platform": _platform(session, options)}
    if pull == "always":
        _pull(session, options, str(body["Image"]))
    try:
        response = session.transport.request("POST", "/containers/create", query=query, body=body)
    except Exception as error:
        if pull != "missing" or getattr(error, "status", 0) != 404 or "no such image" not in str(error).lower():
            raise
        if not options.flag("quiet"):
            from minidocker.cli.references import familiar

            session.error(f"Unable to find image '{familiar(str(body['Image']))}' locally\n")
        _pull(session, options, str(body["Image"]))
        response = session.transport.request("POST", "/containers/create", query=query, body=body)
    answer = response.json()
    assert isinstance(answer, dict)
    return answer


def _platform(session: Session, options: Options) -> str:
    return options.text("platform") or session.environment.get("DOCKER_DEFAULT_PLATFORM", "")


def _pull(session: Session, options: Options, image: str) -> None:
    from minidocker.cli.commands.transfer import pull_image

    pull_image(session, image, platform=_platform(session, options), descriptor=2, quiet=options.flag("quiet"))


def _start(session: Session, container: str) -> None:
    """Start it. Raises CommandFailure with the status that the daemon's reason means."""
    try:
        session.transport.request("POST", f"/containers/{container}/start").read()
    except Exception as error:
        text = describe(error)
        status = 125
        if any(words in text for words in _NO_COMMAND):
            status = 127
        elif any(words in text for words in _NOT_RUNNABLE):
            status = 126
        raise CommandFailure(text, status) from None


def _run_attached(session: Session, options: Options, body: Document, container: str) -> int:
    transport = session.transport
    path = f"/containers/{container}"
    query: Document = {"stream": True, "stdin": body["AttachStdin"], "stdout": body["AttachStdout"],
                       "stderr": body["AttachStderr"], "detachKeys": options.text("detach-keys")}
    condition = {"condition": "removed" if options.flag("rm") else "next-exit"}
    attaching = transport.send("POST", f"{path}/attach", query=query, hijack=True)
    waiting = transport.send("POST", f"{path}/wait", query=condition)
    attached = transport.receive(attaching)
    wait = transport.receive(waiting)
    if options.flag("sig-proxy"):
        from minidocker.cli.signals import forward

        forward(session, container)
    if body["Tty"]:
        return _run_on_terminal(session, options, body, container, attached, wait)
    _start_or_wait(session, options, container, wait)
    Pump(attached.take_connection(), raw=False, stdin=bool(body["AttachStdin"])).run()
    return exit_status(wait)


def _start_or_wait(session: Session, options: Options, container: str, wait: Response) -> None:
    try:
        _start(session, container)
    except CommandFailure:
        if options.flag("rm"):
            wait.read()     # the daemon removes it: its name is free when we return
        raise


def _run_on_terminal(session: Session, options: Options, body: Document, container: str, attached: Response,
                     wait: Response) -> int:
    from minidocker.cli.terminal import DetachKeys, RawMode, follow_size

    stdin = bool(body["AttachStdin"])
    keys = DetachKeys(options.text("detach-keys")) if stdin and posix.isatty(0) else None
    with RawMode(wanted=stdin):
        _start_or_wait(session, options, container, wait)
        follow_size(session, f"/containers/{container}")
        try:
            Pump(attached.take_connection(), raw=True, stdin=stdin, keys=keys).run()
        except Detached:
            return 0
    return exit_status(wait)


def exit_status(wait: Response) -> int:
    """The container's exit status, from the answer of a wait. Raises CommandFailure if the daemon could not wait."""
    answer = wait.json()
    assert isinstance(answer, dict)
    if answer.get("Error"):
        raise CommandFailure(f"Error waiting for container: {answer['Error'].get('Message')}", 125)
    return int(answer.get("StatusCode", 0))


CREATE = Command(create, "[OPTIONS] IMAGE [COMMAND] [ARG...]", CREATE_OPTIONS, 1, None, interspersed=False,
                 long_errors=True)
RUN = Command(run, "[OPTIONS] IMAGE [COMMAND] [ARG...]", RUN_OPTIONS, 1, None, interspersed=False, long_errors=True)
