"""Progress as Docker's clients read it: one JSON object a line, with the bar as text.

Source  Docker Engine API, ImageCreate and ImagePush; moby pkg/jsonmessage and go-units (bar and sizes).
Rules   - `progressDetail` is there for everything that can move, `{}` where there is nothing to count.
        - the bar is made for a wide terminal: 50 characters.
"""

from typing import Any

from minidocker.registry.progress import Progress

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BAR = 50
# What a transfer says as a whole, rather than of a layer that moves.
_PLAIN = ("Pulling from ", "The push refers to ")


def human_size(count_bytes: int) -> str:
    """Bytes in decimal units with four digits.

    >>> human_size(1_234_567), human_size(999), human_size(3_000_000)
    ('1.235MB', '999B', '3MB')
    """
    size, unit = float(count_bytes), 0
    while size >= 1000.0 and unit < len(_UNITS) - 1:
        size, unit = size / 1000.0, unit + 1
    return f"{size:.4g}{_UNITS[unit]}"


def bar(current: int, total: int) -> str:
    """The text of a progress bar.

    >>> bar(512, 1024)
    '[=========================>                         ]     512B/1.024kB'
    """
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    done = min(int(current / total * 100) // 2, _BAR)
    numbers = f"{human_size(current):>8}" + (f"/{human_size(total)}" if current <= total else "")
    return f"[{'=' * done}>{' ' * (_BAR - done)}] {numbers}"


def as_json(progress: Progress) -> dict[str, Any]:
    """The object that goes out."""
    if progress.aux is not None:
        return {"progressDetail": {}, "aux": progress.aux}
    line: dict[str, Any] = {"status": progress.status}
    if progress.current is not None:
        current, total = progress.current, progress.total or 0
        line["progressDetail"] = {"current": current, "total": total}
        line["progress"] = bar(current, total)
    elif progress.id and not progress.status.startswith(_PLAIN):
        line["progressDetail"] = {}
    if progress.id:
        line["id"] = progress.id
    return line


def error_json(message: str) -> dict[str, Any]:
    """The last object of a stream that failed."""
    return {"errorDetail": {"message": message}, "error": message}
