"""Columns aligned by blanks, as docker prints its tables.

Source  Go's text/tabwriter with docker's settings: cells at least 10 wide, 3 blanks between them.
Rules   - on `ps`'s hot path: no import.
"""

_MINIMUM = 10
_PADDING = 3


def align(text: str, *, minimum: int = _MINIMUM, padding: int = _PADDING) -> str:
    """Lines of tab-separated cells as aligned lines. Only cells that a tab ends are padded."""
    rows = [line.split("\t") for line in text.split("\n")]
    column = 0
    while any(len(row) > column + 1 for row in rows):
        start = 0
        while start < len(rows):
            end = start
            while end < len(rows) and len(rows[end]) > column + 1:
                end += 1
            # A column is as wide as its widest cell in neighbouring lines that have it.
            width = max((len(rows[index][column]) + padding for index in range(start, end)), default=0)
            for index in range(start, end):
                rows[index][column] = rows[index][column].ljust(max(width, minimum))
            start = end + 1
        column += 1
    return "\n".join("".join(row) for row in rows)
