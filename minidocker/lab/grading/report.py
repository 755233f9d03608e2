"""What an instructor sees of a class: a table, grades.csv, and a picture of how many have how much.

Source  RFC 4180 (CSV); SVG 1.1.
Rules   - a spreadsheet must not take a student's text for a formula: such cells begin with an apostrophe.
        - the picture says in words what it shows, and brings its own paper.
"""

import csv
import io
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT, MARGIN = 560, 260, 44
STEPS = 10


@dataclass(slots=True)
class Result:
    """One submission. `points`: cell -> (points or None for "a person must read it", the most it has).

    note    what went wrong in it, "" if nothing
    failed  why there are no points at all, "" if there are
    """

    student: str
    assignment: str
    digest: str = ""
    seconds: float = 0.0
    note: str = ""
    failed: str = ""
    points: dict[str, tuple[float | None, float]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """All points so far."""
        return sum(score or 0.0 for score, _ in self.points.values())

    @property
    def most(self) -> float:
        """What the tests can give, and what has been read."""
        return sum(most for score, most in self.points.values() if score is not None)

    @property
    def to_read(self) -> float:
        """Points that wait for a person."""
        return sum(most for score, most in self.points.values() if score is None)


def table(results: list[Result]) -> str:
    """One line a submission."""
    wide = max([7, *(len(result.student) for result in results)])
    lines = [f"{'student':{wide}}  {'assignment':16} {'points':>11}  {'to read':>7}  {'time':>6}  remarks"]
    for result in results:
        points = "-" if result.failed else f"{result.score:g} of {result.most:g}"
        remark = result.failed or result.note
        lines.append(
            f"{result.student:{wide}}  {result.assignment:16} {points:>11}  {result.to_read:7g}  "
            f"{result.seconds:5.1f}s  {remark}".rstrip()
        )
    return "\n".join(lines)


def as_csv(results: list[Result]) -> str:
    """One row a submission: totals, then each graded cell's points."""
    cells = list(dict.fromkeys(name for result in results for name in result.points))
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["student", "assignment", "score", "max_score", "to_read", "seconds", "remarks", *cells])
    for result in results:
        each = ("" if result.points.get(name, (None, 0))[0] is None else result.points[name][0] for name in cells)
        head = ["" if result.failed else result.score, result.most, result.to_read, f"{result.seconds:.1f}"]
        rows.writerow([result.student, result.assignment, *head, _harmless(result.failed or result.note), *each])
    return text.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def histogram(assignment: str, results: list[Result]) -> str:
    """A picture (SVG) of the class: how many have which share of the points of an assignment.

    Its alternative text is the same in words.
    """
    graded = [result for result in results if not result.failed and result.most]
    counts = [0] * STEPS
    for result in graded:
        counts[min(int(result.score / result.most * STEPS), STEPS - 1)] += 1
    tallest = max([1, *counts])
    step = (WIDTH - 2 * MARGIN) / STEPS
    parts = []
    for number, count in enumerate(counts):
        height = (HEIGHT - 2 * MARGIN) * count / tallest
        left, top = MARGIN + number * step, HEIGHT - MARGIN - height
        parts.append(
            f'<rect x="{left + 2:.1f}" y="{top:.1f}" width="{step - 4:.1f}" height="{height:.1f}" fill="#2a6f97"/>'
        )
        if count:
            parts.append(f'<text x="{left + step / 2:.1f}" y="{top - 5:.1f}" text-anchor="middle">{count}</text>')
        label = f"{number * 100 // STEPS}"
        parts.append(f'<text x="{left:.1f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{label}</text>')
    words = ", ".join(f"{n * 10}-{n * 10 + 10} %: {count}" for n, count in enumerate(counts) if count) or "nobody yet"
    title = escape(f"{assignment}: {len(graded)} submissions by their share of the points")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="12"><title>{title}. {escape(words)}</title><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{MARGIN}" y="22" font-size="14">{title}</text>{"".join(parts)}'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">100 %</text>'
        f'<path d="M{MARGIN} {HEIGHT - MARGIN}H{WIDTH - MARGIN}" stroke="#333"/></svg>\n'
    )
