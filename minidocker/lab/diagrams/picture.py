"""A picture with the same facts as text and as a table: what every diagram of the course is made of.

Source  the DOT language (graphviz.org); WCAG 2.2, 1.1.1 (text alternatives) and 1.4.1 (use of colour).
Rules   - a picture is drawn from what the kernel says at that moment, never from what we believe.
        - each has a text that says the same (`alt`) and a table, and no meaning by colour alone.
        - without graphviz the table is shown instead of the picture.
"""

import base64
import html
from dataclasses import dataclass

CELL = 'style="text-align:left;padding:0 1em 0 0;line-height:1.5"'  # of tables: in a widget they have no other style
# Readable on light and dark pages alike: the picture brings its own paper.
PAPER, INK, SHARED, OWN = "#fbfaf7", "#222222", "#e8eef7", "#fdebd3"
_GRAPH = f'graph [bgcolor="{PAPER}" fontname="Helvetica" pad="0.2" rankdir="LR" nodesep="0.15"]'
_TEXT = f'fontname="Helvetica" color="{INK}" fontcolor="{INK}"'
_NODE = f'node [{_TEXT} fontsize="11" shape="box" style="filled" fillcolor="white"]'
_EDGE = f'edge [{_TEXT} fontsize="9"]'


@dataclass(frozen=True)
class Picture:
    """A diagram with the same facts as text and as a table; a notebook shows it as the last value of a cell.

    dot      DOT source of the graph's body.
    alt      one sentence that says what the picture shows.
    columns  headings of the table; `rows` its cells.
    """

    dot: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def svg(self) -> str | None:
        """The picture as SVG, or None where graphviz is absent."""
        try:
            import graphviz

            source = graphviz.Source(f"digraph {{ {_GRAPH} {_NODE} {_EDGE}\n{self.dot}\n}}")
            return str(source.pipe(format="svg", encoding="utf-8"))
        except (ImportError, OSError, RuntimeError):
            return None

    def table(self) -> str:
        """The facts as plain text."""
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.columns, *self.rows)
        ]
        return "\n".join(lines)

    def html_table(self) -> str:
        head = "".join(f'<th scope="col" {CELL}>{html.escape(cell)}</th>' for cell in self.columns)
        rows = ("".join(f"<td {CELL}>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _repr_mimebundle_(self, **_options: object) -> dict[str, str]:
        text, svg = f"{self.alt}\n\n{self.table()}", self.svg()
        if svg is None:
            return {"text/plain": text}
        data = base64.b64encode(svg.encode()).decode()
        figure = (
            f'<figure style="margin:0"><img alt="{html.escape(self.alt, quote=True)}" style="max-width:100%" '
            f'src="data:image/svg+xml;base64,{data}"/><figcaption>{html.escape(self.alt)}</figcaption>'
            f"<details><summary>The same as a table</summary>{self.html_table()}</details></figure>"
        )
        return {"text/plain": text, "text/html": figure}


def quoted(*lines: str) -> str:
    """A DOT string of one or more lines."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"
