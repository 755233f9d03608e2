"""This terminal, for a container that has one: raw mode, its size, the detach keys.

Source  termios(3); docker run's reference, "--detach-keys".
Rules   - raw mode is always undone, also when the command fails.
"""

import fcntl
import posix
import termios
from _signal import SIG_DFL, signal  # type: ignore[import-not-found]

from minidocker.cli.session import CommandFailure, Session

DEFAULT_KEYS = "ctrl-p,ctrl-q"
_SIGWINCH = 28


def size() -> tuple[int, int]:
    """Rows and columns of the terminal at stdout or stdin; (0, 0) if there is none."""
    for descriptor in (1, 0):
        try:
            packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
        except OSError:
            continue
        return int.from_bytes(packed[:2], "little"), int.from_bytes(packed[2:4], "little")
    return 0, 0


def follow_size(session: Session, path: str) -> None:
    """Tell the container (or exec) at `path` the terminal's size, now and at every change."""

    def tell(number: int, frame: object) -> None:
        rows, columns = size()
        if not rows or not columns:
            return
        try:
            session.transport.request("POST", f"{path}/resize", query={"h": rows, "w": columns}).read()
        except Exception:       # not running yet, or no longer
            pass

    signal(_SIGWINCH, tell)
    tell(_SIGWINCH, None)


class RawMode:
    """With it, descriptor 0 passes every key on; without a terminal there it does nothing."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted and posix.isatty(0)
        self._saved: list[object] | None = None

    def __enter__(self) -> "RawMode":
        if self._wanted:
            self._saved = termios.tcgetattr(0)
            raw = termios.tcgetattr(0)
            raw[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
                        | termios.IGNCR | termios.ICRNL | termios.IXON)
            raw[1] &= ~termios.OPOST
            raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSANOW, raw)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSANOW, self._saved)  # type: ignore[arg-type]
        signal(_SIGWINCH, SIG_DFL)


class DetachKeys:
    """Looks for the detach keys in what is typed; keys that may begin them are held back until that is decided."""

    def __init__(self, text: str) -> None:
        self._keys = parse_keys(text or DEFAULT_KEYS)
        self._seen = 0

    def feed(self, piece: bytes) -> tuple[bytes, bool]:
        """What may be passed on of `piece`, and True if the keys are complete."""
        passed = bytearray()
        for byte in piece:
            if self._keys and byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._seen]
            self._seen = 0
            if self._keys and byte == self._keys[0]:
                self._seen = 1
            else:
                passed.append(byte)
        return bytes(passed), False


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,b` as bytes. Raises CommandFailure."""
    found = bytearray()
    for word in text.split(","):
        key = word.removeprefix("ctrl-")
        if word.startswith("ctrl-") and len(key) == 1 and (key.isalpha() or key in "@[\\]^_"):
            found.append(ord(key.upper()) - 64)
        elif len(word) == 1:
            found += word.encode()
        else:
            raise CommandFailure(f"invalid detach keys ({text}): unknown character '{word}'", 125)
    return bytes(found)
