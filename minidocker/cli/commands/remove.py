"""`rm`.

Source  docker rm's reference. Rules - hot path.
"""

from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session, each
from minidocker.client.transport import quote

RM_OPTIONS = """
-f, --force     Remove it even if it runs (SIGKILL)
-l, --link      Remove the link of that name
-v, --volumes   Remove its anonymous volumes too
"""


def remove(session: Session, options: Options, operands: list[str]) -> int:
    """`rm CONTAINER...`: remove each, printing its name."""
    query = {"force": options.flag("force"), "v": options.flag("volumes"), "link": options.flag("link")}

    def one(name: str) -> str | None:
        trimmed = name.strip("/")
        if not trimmed:
            raise CommandFailure("Container name cannot be empty")
        try:
            session.transport.request("DELETE", f"/containers/{quote(trimmed)}", query=query).read()
        except Exception as error:
            if options.flag("force") and getattr(error, "status", 0) == 404:
                session.error(f"Error response from daemon: {error}\n")
                return None
            raise
        return name

    return each(session, operands, one)


RM = Command(remove, "[OPTIONS] CONTAINER [CONTAINER...]", RM_OPTIONS, 1, None)
