"""A build as a graph: which steps the cache had, which were made anew, and why.

Source  Docker Engine API, ImageBuild (the stream); build.cache.Decision, which `explain` adds to it.
Rules   - the daemon's own words are drawn: a step's verdict is the cache's decision, never a guess from timing.
        - a multi-stage build has a frame for each stage, and an edge for each COPY --from.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from minidocker.build import dockerfile
from minidocker.errors import InvalidArgument
from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted

START, HIT, MISS, FAILED = "start", "hit", "miss", "failed"
Message = Mapping[str, object]
_STEP = re.compile(r"Step (\d+)/\d+ : (.*)", re.DOTALL)
_IMAGE = re.compile(r" ---> ([0-9a-f]{12})\n")
_LONGEST_TEXT = 52


@dataclass(frozen=True, slots=True)
class BuildStep:
    """One step of a build as its output told it.

    stage    of a multi-stage build, from 0; -1 for an ARG in front of the first FROM.
    verdict  START (a FROM, or such an ARG), HIT, MISS, or FAILED (made anew, and no image came of it).
    reason   the cache's, in words.
    image    short ID of the image that stands after the step, or "".
    source   what COPY --from names, or "".
    """

    number: int
    stage: int
    text: str
    verdict: str = START
    reason: str = ""
    image: str = ""
    source: str = ""


def read_build(messages: Iterable[Message]) -> tuple[BuildStep, ...]:
    """The steps of a build, from what `images.build(..., explain=True, progress=...)` told."""
    steps: list[BuildStep] = []
    stage = -1
    for message in messages:
        said, aux = message.get("stream"), message.get("aux")
        if isinstance(said, str) and (begun := _STEP.match(said)):
            stage += begun[2].upper().startswith("FROM")
            steps.append(BuildStep(int(begun[1]), stage, begun[2].strip(), source=_source_of(begun[2])))
        elif isinstance(said, str) and steps and (made := _IMAGE.fullmatch(said)):
            steps[-1] = replace(steps[-1], image=made[1])
        elif isinstance(aux, Mapping) and isinstance(decision := aux.get("Cache"), Mapping) and steps:
            verdict = HIT if decision.get("hit") else MISS
            steps[-1] = replace(steps[-1], verdict=verdict, reason=str(decision.get("reason", "")))
    return tuple(replace(step, verdict=FAILED) if step.verdict == MISS and not step.image else step for step in steps)


def _source_of(text: str) -> str:
    try:
        flags = dockerfile.parse_one(text).flags
    except InvalidArgument:
        return ""
    return next((flag.removeprefix("--from=") for flag in flags if flag.startswith("--from=")), "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 3] + "..."


def build_graph(messages: Iterable[Message], title: str = "build") -> Picture:
    """A build's steps from top to bottom, each with the cache's verdict and its reason.

    messages  what the build's `progress` was told, with `explain=True`.
    Raises    ValueError: there is no step in them.
    """
    steps = read_build(messages)
    if not steps:
        raise ValueError("nothing was built: no step in these messages")
    lines = ['rankdir="TB" nodesep="0.5" ranksep="0.3"']
    for stage in sorted({step.stage for step in steps}):
        members = [step for step in steps if step.stage == stage]
        name = _stage_name(members[0])
        lines.append(f"subgraph cluster{stage + 1} {{ label={quoted(name)} style=dotted fontsize=11")
        lines += [_node(step) for step in members]
        lines += [f"s{one.number} -> s{two.number}" for one, two in pairwise(members)]
        lines.append("}")
    lines += _copies(steps)
    rows = tuple((str(s.number), _short(s.text), _word(s), s.reason, s.image) for s in steps)
    return Picture("\n".join(lines), _alt(steps, title), ("step", "instruction", "cache", "why", "image"), rows)


def _stage_name(first: BuildStep) -> str:
    words = first.text.split()
    if first.stage < 0:
        return "before the first stage"
    return f"stage {words[3]}" if len(words) == 4 else f"stage {first.stage}"


def _word(step: BuildStep) -> str:
    return {START: "", HIT: "HIT", MISS: "MISS", FAILED: "MISS, then failed"}[step.verdict]


_LOOKS = {
    START: 'fillcolor="white" style="filled,rounded"',
    HIT: f'fillcolor="{SHARED}"',
    MISS: f'fillcolor="{OWN}" style="filled,bold"',
    FAILED: f'fillcolor="{OWN}" style="filled,dashed,bold"',
}


def _node(step: BuildStep) -> str:
    lines = [f"{step.number}  {_short(step.text)}"]
    if _word(step):
        lines.append(f"{_word(step)}: {step.reason}")
    if step.image:
        lines.append(f"image {step.image}")
    return f"s{step.number} [label={quoted(*lines)} {_LOOKS[step.verdict]}]"


def _copies(steps: tuple[BuildStep, ...]) -> list[str]:
    """An edge from the last step of a stage to each COPY that reads of it."""
    last = {step.stage: step.number for step in steps}
    names = {str(stage): stage for stage in last}
    for step in steps:
        words = step.text.split()
        if step.verdict == START and len(words) == 4:
            names[words[3].lower()] = step.stage
    return [
        f's{last[names[step.source.lower()]]} -> s{step.number} [style="dashed" label="files" constraint=false]'
        for step in steps
        if step.source.lower() in names
    ]


def _alt(steps: tuple[BuildStep, ...], title: str) -> str:
    hits = sum(step.verdict == HIT for step in steps)
    missed = [step for step in steps if step.verdict in (MISS, FAILED)]
    text = f"{title}: {count(len(steps), 'step')}, {hits or 'none'} taken from the cache, {len(missed)} made anew"
    if missed:
        text += f"; the first of these is step {missed[0].number}: {missed[0].reason}"
    if any(step.verdict == FAILED for step in steps):
        text += f"; step {next(s.number for s in steps if s.verdict == FAILED)} failed"
    return text
