"""Progress of pull, push and load: bars on a terminal, a line a step elsewhere.

Source  the JSON messages of the Docker Engine API; VT100 cursor movements.
Rules   - a stream that holds an error ends the command with it.
"""

import os
import time
from collections.abc import Iterable

from minidocker.cli.session import CommandFailure, write_all
from minidocker.cli.values import human_size

_BAR = 50


class Display:
    """Shows messages on `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        self._columns = os.get_terminal_size(descriptor).columns if self._terminal else 80
        self._lines: dict[str, int] = {}
        self._started: dict[str, float] = {}

    def show(self, message: dict[str, object]) -> None:
        """Show one message."""
        identity = str(message.get("id") or "")
        detail = message.get("progressDetail")
        text = self._text(message, identity, detail if isinstance(detail, dict) else {})
        if text is None:
            return
        if not self._terminal:
            write_all(self._descriptor, text.encode())
            return
        if identity and isinstance(detail, dict):
            self._on_line(identity, text)
        else:
            self._lines = {}
            write_all(self._descriptor, text.encode())

    def _text(self, message: dict[str, object], identity: str, detail: dict[str, object]) -> str | None:
        if message.get("stream"):
            return str(message["stream"])
        if not message.get("status"):
            return None
        bar = self._bar(identity, detail)
        if bar and not self._terminal:
            return None
        text = f"{identity + ': ' if identity else ''}{message['status']}"
        return f"{text} {bar}" if bar else f"{text}\n"

    def _bar(self, identity: str, detail: dict[str, object]) -> str:
        current, total = detail.get("current"), detail.get("total")
        if not isinstance(current, int) or current <= 0:
            return ""
        if not isinstance(total, int) or total <= 0 or current > total:
            return f"{human_size(current):>8}"
        share = current / total
        filled = int(share * _BAR)
        bar = f"[{'=' * filled}>{' ' * (_BAR - filled)}] " if self._columns > 110 else ""
        left = ""
        started = self._started.setdefault(identity, time.monotonic())
        if self._columns > 50 and current < total and (used := time.monotonic() - started) >= 1:
            left = f" {int(used / share - used)}s"
        return f"{bar}{human_size(current):>8}/{human_size(total)}{left}"

    def _on_line(self, identity: str, text: str) -> None:
        """Rewrite the line of this layer, wherever the cursor is."""
        start = ""
        if identity not in self._lines:
            self._lines[identity] = len(self._lines)
            start = "\n"
        up = len(self._lines) - self._lines[identity]
        line = text.rstrip("\n")[: self._columns]
        write_all(self._descriptor, f"{start}\x1b[{up}A\x1b[2K\r{line}\r\x1b[{up}B".encode())


def follow(messages: Iterable[object], display: Display | None) -> list[dict[str, object]]:
    """Show all messages of a stream, and give back those that hold `aux`. Raises CommandFailure at an error in it."""
    kept = []
    for message in messages:
        assert isinstance(message, dict)
        if message.get("error"):
            raise CommandFailure(str(message["error"]))
        if message.get("aux") is not None:
            kept.append(message)
        elif display is not None:
            display.show(message)
    return kept
