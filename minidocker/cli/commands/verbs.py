"""Commands that do one thing to each container named: stop, restart, kill, pause, unpause, wait, rename.

Source  docker's reference of each.
"""

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, describe, each
from minidocker.client.transport import quote

_CONTAINERS = "CONTAINER [CONTAINER...]"
_STOP_OPTIONS = """
-s, --signal string   Signal to send
-t, --timeout int     Seconds until SIGKILL
    --time int
"""
_KILL_OPTIONS = """
-s, --signal string   Signal to send
"""


def _post(session: Session, names: list[str], verb: str, query: dict[str, object] | None = None) -> int:
    def one(name: str) -> str:
        session.transport.request("POST", f"/containers/{quote(name)}/{verb}", query=query).read()
        return name

    return each(session, names, one)


def _stop_query(options: Options) -> dict[str, object]:
    seconds = next((options.number(name) for name in ("timeout", "time") if options.given(name)), None)
    return {"t": seconds, "signal": options.text("signal")}


def stop(session: Session, options: Options, operands: list[str]) -> int:
    """`stop CONTAINER...`"""
    return _post(session, operands, "stop", _stop_query(options))


def restart(session: Session, options: Options, operands: list[str]) -> int:
    """`restart CONTAINER...`"""
    return _post(session, operands, "restart", _stop_query(options))


def kill(session: Session, options: Options, operands: list[str]) -> int:
    """`kill CONTAINER...`"""
    return _post(session, operands, "kill", {"signal": options.text("signal")})


def pause(session: Session, options: Options, operands: list[str]) -> int:
    """`pause CONTAINER...`"""
    return _post(session, operands, "pause")


def unpause(session: Session, options: Options, operands: list[str]) -> int:
    """`unpause CONTAINER...`"""
    return _post(session, operands, "unpause")


def wait(session: Session, options: Options, operands: list[str]) -> int:
    """`wait CONTAINER...`: print the exit status of each, when it has ended."""

    def one(name: str) -> str:
        answer = session.transport.request("POST", f"/containers/{quote(name)}/wait").json()
        assert isinstance(answer, dict)
        return str(answer.get("StatusCode", 0))

    return each(session, operands, one)


def rename(session: Session, options: Options, operands: list[str]) -> int:
    """`rename CONTAINER NEW_NAME`"""
    old, new = operands
    try:
        session.transport.request("POST", f"/containers/{quote(old)}/rename", query={"name": new}).read()
    except Exception as error:
        raise CommandFailure(f"{describe(error)}\nError: failed to rename container named {old}") from None
    return 0


STOP = Command(stop, f"[OPTIONS] {_CONTAINERS}", _STOP_OPTIONS, 1, None)
RESTART = Command(restart, f"[OPTIONS] {_CONTAINERS}", _STOP_OPTIONS, 1, None)
KILL = Command(kill, f"[OPTIONS] {_CONTAINERS}", _KILL_OPTIONS, 1, None)
PAUSE = Command(pause, _CONTAINERS, "", 1, None)
UNPAUSE = Command(unpause, _CONTAINERS, "", 1, None)
WAIT = Command(wait, _CONTAINERS, "", 1, None)
RENAME = Command(rename, "CONTAINER NEW_NAME", "", 2, 2)
