"""`events`.

Source  docker events' reference.
"""

from time import localtime, strftime

from minidocker.cli.listing import filters
from minidocker.cli.options import Options
from minidocker.cli.session import Command, Session
from minidocker.cli.times import timestamp
from minidocker.client.resource import member

EVENTS_OPTIONS = """
-f, --filter filter   Show only events for which this holds
    --format string   Format by a Go template, or 'json'
    --since string    Show events since then (a moment, or how long ago)
    --until string    Stop at this moment
"""


def text(event: dict[str, object]) -> str:
    """One event as a line."""
    nanoseconds = event.get("timeNano")
    moment = nanoseconds if isinstance(nanoseconds, int) else 0
    zone = strftime("%z", localtime(moment // 10**9))
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    clock = strftime("%Y-%m-%dT%H:%M:%S", localtime(moment // 10**9))
    attributes = member(event, "Actor", "Attributes")
    pairs = ", ".join(f"{name}={value}" for name, value in sorted(attributes.items())) \
        if isinstance(attributes, dict) else ""
    line = f"{clock}.{moment % 10**9:09d}{zone} {event.get('Type')} {event.get('Action')} " \
           f"{member(event, 'Actor', 'ID')}"
    return f"{line} ({pairs})\n" if pairs else line + "\n"


def events(session: Session, options: Options, operands: list[str]) -> int:
    """`events`: print each as it happens, until `--until` or an interrupt."""
    query = {"since": timestamp(options.text("since")), "until": timestamp(options.text("until")),
             "filters": filters(options.items("filter"))}
    form = options.text("format")
    response = session.transport.request("GET", "/events", query=query)
    for event in response.objects():
        assert isinstance(event, dict)
        if form:
            from minidocker.cli.commands.system import formatted

            session.out(formatted(event, form))
        else:
            session.out(text(event))
    return 0


EVENTS = Command(events, "[OPTIONS]", EVENTS_OPTIONS)
