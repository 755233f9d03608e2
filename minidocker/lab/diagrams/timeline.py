"""Requests and system calls on one line of time: what a client asks of a daemon, and what its processes then ask of
the kernel.

Source  UML's sequence diagrams, of which only lifelines and messages are used; strace(1) for the words of calls.
Rules   - only what was recorded is drawn, in the order of its time. The times of both recorders are the same clock's.
        - calls of one process that follow each other and do one thing are one arrow, with their number; nothing of
          them is left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from minidocker.lab.diagrams.picture import Picture, count, quoted
from minidocker.lab.diagrams.requests import LINE, SEQUENCE, Request, arrow, in_bytes, in_words, lifelines, shortened
from minidocker.lab.props.syscalls import BIRTHS, MOUNTS, RIGHTS, Call

KERNEL = "kernel"
# Inches between the lifelines of those who talk, of processes, and from the last of them to the kernel's.
_REQUESTS, _PROCESSES, _CALLS = 3.3, 0.95, 3.6
_ROW, _HEAD, _TIME_AT = 0.27, 0.42, -0.55  # inches
_LONGEST_ARGUMENTS, _LONGEST_LINE = 120, 44
_TELLING = ("unshare", "setns", "pivot_root", "umount2", "sethostname", "execve", "exit_group")


@dataclass(frozen=True, slots=True)
class _Moment:
    """One arrow. kind: what may be told together with the same of its neighbours; None: nothing."""

    when: float
    sender: str
    receiver: str
    words: str
    kind: str | None = None
    call: Call | None = None


def request_timeline(
    requests: Iterable[Request], calls: Iterable[Call], names: Mapping[int, str], title: str = "timeline"
) -> Picture:
    """Requests and calls from top to bottom, with milliseconds since the first of them.

    requests  with their times.
    names     pid -> what its lifeline is called, from left to right; others are "process PID".
    Raises    ValueError: there is no request, or one without its time.
    """
    asked, called = list(requests), list(calls)
    if not asked or any(one.began is None for one in asked):
        raise ValueError("a timeline needs requests with their times")
    moments = [moment for number, one in enumerate(asked, 1) for moment in _of_request(number, one)]
    moments += [_of_call(call, names) for call in called]
    moments.sort(key=lambda moment: moment.when)
    arrows = [_folded(list(run), names) for run in _runs(moments)]
    first = arrows[0].when
    rows = tuple((f"{(one.when - first) * 1000:.1f}", one.sender, one.receiver, one.words) for one in arrows)
    processes = dict.fromkeys([*names.values(), *(one.sender for one in arrows if one.receiver == KERNEL)])
    alt = _alt(title, asked, called, names)
    return Picture(_dot(rows, asked, list(processes) if called else []), alt, ("ms", "from", "to", "what"), rows)


def _of_request(number: int, one: Request) -> list[_Moment]:
    """The question, the answer, and the answer's end where others came in between."""
    assert one.began is not None
    sent = f"  ({in_bytes(one.sent)})" if one.sent else ""
    found = [_Moment(one.began, one.sender, one.receiver, f"{number}  {one.method} {shortened(one.path)}{sent}")]
    if one.answered is None:
        return found
    size = f", {in_bytes(one.received)}" if one.received else ""
    if not one.note or one.ended is None:
        words = f"{in_words(one.status)}{size}, answer to {number}"
        return [*found, _Moment(one.answered, one.receiver, one.sender, words)]
    words, end = f"{in_words(one.status)}, answer to {number} begins", f"answer to {number} ends{size}"
    return [
        *found,
        _Moment(one.answered, one.receiver, one.sender, words),
        _Moment(one.ended, one.receiver, one.sender, end),
    ]


def _of_call(call: Call, names: Mapping[int, str]) -> _Moment:
    families = {"births": BIRTHS, "mounts": MOUNTS, "rights": RIGHTS}
    kind = next((family for family, members in families.items() if call.name in members), call.name)
    return _Moment(call.when, names.get(call.pid, f"process {call.pid}"), KERNEL, "", kind, call)


def _runs(moments: list[_Moment]) -> Iterable[Iterable[_Moment]]:
    """Neighbours that are told together: calls of one kind of one process. Of requests each stands alone."""
    keys = ((one.sender, one.kind or str(number)) for number, one in enumerate(moments))
    return [[one for _, one in run] for _, run in groupby(zip(keys, moments, strict=True), key=lambda pair: pair[0])]


def _folded(run: list[_Moment], names: Mapping[int, str]) -> _Moment:
    first = run[0]
    calls = [one.call for one in run if one.call is not None]
    if not calls:
        return first
    times = Counter(call.name for call in calls)
    words = ", ".join(name if number == 1 else f"{name} × {number}" for name, number in times.items())
    if len(calls) == 1:
        words = _one_call(calls[0], names)
    failed = Counter(call.error for call in calls if call.error)
    if failed:
        words += " (" + ", ".join(f"{number} × {error}" for error, number in failed.items()) + ")"
    return _Moment(first.when, first.sender, first.receiver, words)


def _one_call(call: Call, names: Mapping[int, str]) -> str:
    if call.name in BIRTHS and call.result is not None:
        name = names.get(call.result)
        return f"{call.name} = {call.result}" + (f": {name}" if name else "")
    if call.name not in _TELLING:
        return call.name
    arguments = call.arguments.partition(", 0x")[0]  # an address says nothing
    if len(arguments) > _LONGEST_ARGUMENTS:
        arguments = f"{arguments[: _LONGEST_ARGUMENTS - 3]}..."
    return f"{call.name}({arguments})"


def _dot(rows: tuple[tuple[str, ...], ...], requests: list[Request], processes: list[str]) -> str:
    talkers = dict.fromkeys(name for one in requests for name in (one.sender, one.receiver))
    places = {name: number * _REQUESTS for number, name in enumerate(talkers)}
    edge = max(places.values())
    for name in processes:
        edge += _PROCESSES
        places[name] = edge
    words_at = edge + _CALLS / 2
    if processes:
        places[KERNEL] = edge + _CALLS
    y, lines = -_HEAD, []
    for number, (when, sender, receiver, words) in enumerate(rows):
        folded = _in_lines(words)
        y -= _ROW + (len(folded) - 1) * LINE
        to_kernel = receiver == KERNEL
        style = "solid" if to_kernel or places[sender] < places[receiver] else "dashed"
        lines += arrow(f"m{number}", places[sender], places[receiver], y, "\n".join(folded), style,
                       words_at=words_at if to_kernel else None)  # fmt: skip
        time = f'pos="{_TIME_AT:.2f},{y:.2f}!" shape="plain" style="" fontsize="9" label={quoted(f"{when} ms")}'
        lines.append(f"m{number}w [{time}]")
    return "\n".join([*SEQUENCE, *lifelines(places, y - _ROW), *lines])


def _in_lines(words: str) -> list[str]:
    """Words that are too long for one line are broken behind a comma or a bar."""
    lines = [""]
    for part in re.split(r"(?<=[|,])", words):
        if len(lines[-1] + part) > _LONGEST_LINE and lines[-1]:
            lines.append("")
        lines[-1] += part
    return [line.strip() for line in lines]


def _alt(title: str, requests: list[Request], calls: list[Call], names: Mapping[int, str]) -> str:
    by = Counter(names.get(call.pid, f"process {call.pid}") for call in calls)
    parts = ", ".join(f"{number} of {name}" for name, number in by.items())
    said = f"{title}: {count(len(requests), 'request')} and {count(len(calls), 'system call')}"
    said += f" ({parts})" if parts else ""
    program = next((call for call in calls if call.name == "execve" and not call.error), None)
    if program is None:
        return said
    before = [number for number, one in enumerate(requests, 1) if one.began is not None and one.began < program.when]
    return f"{said}; the first execve comes after request {before[-1]}" if before else said
