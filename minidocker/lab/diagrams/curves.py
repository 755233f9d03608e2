"""What was measured again and again, as curves: for each quantity a panel with its limit.

Source  SVG 2; WCAG 2.2, 1.4.1 (use of colour).
Rules   - curves differ by their strokes and carry their names in words; the table has the newest numbers.
        - no graphviz is needed: the picture is drawn here.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from minidocker.lab.diagrams.picture import INK, PAPER, Picture

WIDTH, PANEL_HEIGHT = 640, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 26, 20
_STROKES = ('stroke="#1b5e9c" stroke-width="2.2"', 'stroke="#a3460a" stroke-width="2" stroke-dasharray="2 4"')
_LIMIT_STROKE = f'stroke="{INK}" stroke-width="1.4" stroke-dasharray="9 5"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity over time.

    curves  name -> values, oldest first, all equally long; at most two.
    top     the value at the upper edge.
    limit   value of each moment's limit; None where there was none.
    """

    title: str
    unit: str
    curves: dict[str, Sequence[float]]
    limit: Sequence[float | None]
    top: float


@dataclass(frozen=True)
class Curves(Picture):
    """Panels one below the other, with a common time axis; `dot` is not used."""

    panels: tuple[Panel, ...] = ()
    seconds: float = 0.0

    def svg(self) -> str:
        height = PANEL_HEIGHT * len(self.panels) + _BOTTOM
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="Helvetica,sans-serif" font-size="11" fill="{INK}">',
            f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        ]
        for number, panel in enumerate(self.panels):
            parts.append(f'<g transform="translate(0 {number * PANEL_HEIGHT})">{_panel(panel)}</g>')
        axis = f'<text x="{_LEFT}" y="{height - 6}">{self.seconds:.0f} s ago</text>'
        axis += f'<text x="{WIDTH - _RIGHT}" y="{height - 6}" text-anchor="end">now</text>'
        return "".join([*parts, axis, "</svg>"])


def curves(panels: Sequence[Panel], seconds: float, alt: str) -> Curves:
    """The panels as a picture; the table tells the newest value of each curve and limit."""
    rows = []
    for panel in panels:
        limit = panel.limit[-1] if panel.limit else None
        told = "no limit" if limit is None else _number(limit, panel.unit)
        for name, values in panel.curves.items():
            newest, largest = (
                (_number(value, panel.unit) for value in (values[-1], max(values))) if values else ("", "")
            )
            rows.append((panel.title, name, newest, largest, told))
    return Curves("", alt, ("panel", "curve", "now", "largest", "limit now"), tuple(rows), tuple(panels), seconds)


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}{unit if unit == '%' else ' ' + unit}"


def _panel(panel: Panel) -> str:
    inner = PANEL_HEIGHT - _TOP - 8
    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{html.escape(panel.title)}</text>']
    for share in (0, 0.5, 1):
        y = _y(panel.top * share, panel.top)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0cdc4"/>')
        text = _number(panel.top * share, panel.unit)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    assert inner > 0
    x = WIDTH - _RIGHT
    for (name, values), stroke in zip(panel.curves.items(), _STROKES, strict=False):
        parts.append(f'<polyline fill="none" {stroke} points="{_points(list(values), panel.top)}"/>')
        x = _legend(parts, name, stroke, x)
    known = [panel.top * 2 if value is None else value for value in panel.limit]
    if any(value is not None for value in panel.limit):
        parts.append(f'<polyline fill="none" {_LIMIT_STROKE} points="{_points(known, panel.top)}"/>')
        _legend(parts, "limit", _LIMIT_STROKE, x)
    return "".join(parts)


def _legend(parts: list[str], name: str, stroke: str, right: int) -> int:
    """The stroke and its name, ending at `right`; where the next one ends."""
    begin = right - 7 * len(name)
    parts.append(f'<text x="{begin}" y="16">{html.escape(name)}</text>')
    parts.append(f'<line x1="{begin - 34}" x2="{begin - 6}" y1="12" y2="12" {stroke}/>')
    return begin - 50


def _y(value: float, top: float) -> float:
    inner = PANEL_HEIGHT - _TOP - 8
    return _TOP + inner * (1 - min(value, top * 1.02) / top)


def _points(values: list[float], top: float) -> str:
    step = (WIDTH - _LEFT - _RIGHT) / max(len(values) - 1, 1)
    return " ".join(f"{_LEFT + step * at:.1f},{_y(value, top):.1f}" for at, value in enumerate(values))
