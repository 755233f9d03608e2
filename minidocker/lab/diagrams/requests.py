"""A recorded exchange of HTTP requests as a sequence chart: who asked whom for what, and what came back.

Source  RFC 9110 (methods, status codes); UML's sequence diagrams, of which only lifelines and messages are used.
Rules   - only what was recorded is drawn, in the order in which it began; nothing is made up in between.
        - each request is an arrow with words, each answer one with its status in numbers and words.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted

_APART, _ROW, _ANSWER = 5.6, 0.62, 0.26  # inches between lifelines, of a request, and from it down to its answer
LINE = 0.15  # inches of one more line of words
_LONGEST_PATH = 72
SEQUENCE = ('layout="neato" splines="line"', 'node [fontsize="10"]', 'edge [arrowsize="0.6"]')
"""How a chart begins whose nodes have their places, in inches."""
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_OPAQUE = re.compile(r"(?<=[?&])\w+=(?!sha256:)[^&]{64,}&?")  # a parameter that only its maker can read
_LONG_WORD = re.compile(r"[A-Za-z0-9_%=-]{32,}")
_UNITS = ("B", "kB", "MB", "GB")


@dataclass(frozen=True, slots=True)
class Request:
    """One request and its answer.

    sender, receiver  who asked whom: "daemon", "registry", "client" ...
    path              with the query, as it was sent.
    status            0: no answer came.
    sent, received    bytes of the two bodies.
    note              what else matters: "with a token", "Range: bytes=5-".
    began, answered, ended  when it was sent, the answer began and ended, in seconds since the epoch; None: not known.
    """

    sender: str
    receiver: str
    method: str
    path: str
    status: int = 0
    sent: int = 0
    received: int = 0
    note: str = ""
    began: float | None = None
    answered: float | None = None
    ended: float | None = None


def request_sequence(requests: Iterable[Request], title: str = "exchange", *, parties: Sequence[str] = ()) -> Picture:
    """The requests from top to bottom between the lifelines of those who took part.

    parties  their order from left to right; by default that of their first appearance.
    Raises   ValueError: nothing was recorded.
    """
    recorded = list(requests)
    if not recorded:
        raise ValueError("no request was recorded")
    seen = dict.fromkeys([*parties, *(name for one in recorded for name in (one.sender, one.receiver))])
    places = {name: number * _APART for number, name in enumerate(seen)}
    lines = [*SEQUENCE, *lifelines(places, -(len(recorded) + 0.4) * _ROW)]
    for number, one in enumerate(recorded):
        lines += _arrows(number, one, places)
    rows = tuple(_row(number, one) for number, one in enumerate(recorded, 1))
    columns = ("nr", "who", "method", "path", "sent", "answer", "received", "note")
    return Picture("\n".join(lines), _alt(recorded, title), columns, rows)


def _row(number: int, one: Request) -> tuple[str, ...]:
    who, path = f"{one.sender} to {one.receiver}", shortened(one.path)
    sent, received = in_bytes(one.sent), in_bytes(one.received)
    return str(number), who, one.method, path, sent, in_words(one.status), received, one.note


def _arrows(number: int, one: Request, places: dict[str, float]) -> list[str]:
    left, right = places[one.sender], places[one.receiver]
    top = -(number + 0.75) * _ROW
    asked = f"{number + 1}  {one.method} {shortened(one.path)}"
    details = ", ".join(part for part in (in_bytes(one.sent), one.note) if part)
    answer = ", ".join(part for part in (in_words(one.status), in_bytes(one.received)) if part)
    return [
        *arrow(f"q{number}", left, right, top, f"{asked}  ({details})" if details else asked, "solid"),
        *arrow(f"a{number}", right, left, top - _ANSWER, answer, "dashed"),
    ]


def lifelines(places: dict[str, float], bottom: float) -> list[str]:
    """The head of each party at its place from the left, and a dotted line down to `bottom`, both in inches."""
    lines = []
    for name, x in places.items():
        end = quoted(f"end {name}")
        lines.append(f'{quoted(name)} [pos="{x:.2f},0!" style="filled,bold" fillcolor="{SHARED}"]')
        lines.append(f'{end} [pos="{x:.2f},{bottom:.2f}!" shape="point" width="0.03"]')
        lines.append(f'{quoted(name)} -> {end} [arrowhead="none" style="dotted"]')
    return lines


def arrow(
    name: str, start: float, end: float, y: float, text: str, style: str, *, words_at: float | None = None
) -> list[str]:
    """An arrow between two lifelines, and its words just above it; those of an error stand in a box.

    text      of one line or more.
    words_at  where their middle is, from the left; None: in the middle of the arrow.
    """
    bad = style == "dashed" and text[:1] in "045"
    look = f'shape="box" style="filled" fillcolor="{OWN}" height="0.1" margin="0.04,0.01"' if bad else 'shape="plain"'
    style_of_text = "" if bad else 'style=""'
    middle = (start + end) / 2 if words_at is None else words_at
    lines = text.split("\n")
    place = f"{middle:.2f},{y + (0.11 if bad else 0.095) + (len(lines) - 1) * LINE / 2:.3f}!"
    return [
        f'{name}s [pos="{start:.2f},{y:.2f}!" shape="point" width="0.04"]',
        f'{name}e [pos="{end:.2f},{y:.2f}!" shape="point" width="0.04"]',
        f'{name}s -> {name}e [style="{style}"]',
        f'{name}t [pos="{place}" fontsize="9" {look} {style_of_text} label={quoted(*lines)}]',
    ]


def shortened(path: str) -> str:
    """Digests by their first 12 digits, other long words by their beginning; the whole not too long."""
    text = _DIGEST.sub(r"\1", _OPAQUE.sub("", path))
    text = _LONG_WORD.sub(lambda match: f"{match[0][:8]}...", text)
    return text if len(text) <= _LONGEST_PATH else f"{text[: _LONGEST_PATH - 3]}..."


def in_bytes(bytes_: int) -> str:
    if not bytes_:
        return ""
    size, unit = float(bytes_), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def in_words(status: int) -> str:
    """ "404 Not Found"; "no answer" for 0."""
    try:
        return f"{status} {HTTPStatus(status).phrase}" if status else "0: no answer"
    except ValueError:
        return str(status)


def _alt(recorded: list[Request], title: str) -> str:
    methods = dict.fromkeys(one.method for one in recorded)
    parts = [f"{sum(one.method == method for one in recorded)} {method}" for method in methods]
    bad = sum(one.status == 0 or one.status >= 400 for one in recorded)
    moved = sum(one.sent + one.received for one in recorded)
    return (
        f"{title}: {count(len(recorded), 'request')} ({', '.join(parts)}), {in_bytes(moved) or 'nothing'} moved, "
        f"{bad or 'none'} answered 4xx, 5xx or not at all"
    )
