"""The course as a map: which lesson needs which, with the time that each takes.

Source  the lessons' own metadata, which their first cells repeat.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from minidocker.lab.diagrams.picture import PAPER, Picture, quoted

PARTS = {
    "A container": range(1, 6),
    "An image": range(6, 10),
    "What is around": range(10, 13),
    "The system": range(13, 15),
}


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson as its metadata tells it. `number`: "07"; `requires`: numbers of lessons."""

    number: str
    title: str
    minutes: int
    requires: tuple[str, ...]
    path: Path


def lessons(directory: Path) -> list[Lesson]:
    """The lessons in a directory, in their order; this map's own notebook, 00, is none."""
    found = []
    for path in sorted(directory.glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text())
        about = notebook["metadata"]["minidocker"]
        title = "".join(notebook["cells"][0]["source"]).splitlines()[0].partition("·")[2].strip()
        if path.name[:2] != "00":
            found.append(Lesson(path.name[:2], title, about["minutes"], tuple(about["requires"]), path))
    return found


def _direct(lesson: Lesson, everything: list[Lesson]) -> set[str]:
    """What it needs, without what is needed for that anyway: fewer arrows say the same."""
    needs = {each.number: set(each.requires) for each in everything}
    implied: set[str] = set()
    waiting = [further for needed in lesson.requires for further in needs[needed]]
    while waiting:
        further = waiting.pop()
        implied.add(further)
        waiting += needs[further] - implied
    return set(lesson.requires) - implied


def course_map(directory: Path) -> Picture:
    """The lessons of a directory, each with an arrow from those that it needs (and that no other of these needs)."""
    found = lessons(directory)
    lines = ["rankdir=TB"]
    for number, (part, numbers) in enumerate(PARTS.items()):
        members = [lesson for lesson in found if int(lesson.number) in numbers]
        lines.append(f'subgraph cluster_{number} {{ label={quoted(part)} fontname="Helvetica" bgcolor="{PAPER}"')
        lines += [
            f"l{lesson.number} [label={quoted(f'{lesson.number} {lesson.title}', f'{lesson.minutes} minutes')}]"
            for lesson in members
        ]
        lines.append("}")
    lines += [f"l{needed} -> l{lesson.number}" for lesson in found for needed in _direct(lesson, found)]
    rows = [
        (lesson.number, lesson.title, str(lesson.minutes), ", ".join(lesson.requires) or "nothing") for lesson in found
    ]
    hours = sum(lesson.minutes for lesson in found) / 60
    alt = f"map of the course: {len(found)} lessons of {hours:.0f} hours in all, with arrows from what each needs"
    return Picture("\n".join(lines), alt, ("lesson", "title", "minutes", "needs"), tuple(rows))
