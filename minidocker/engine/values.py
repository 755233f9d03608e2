"""What the texts of requests mean: sizes, booleans, signals, ports.

Source  Docker Engine API 1.44; go-units (sizes), moby/sys signal (names), go-connections/nat (ports).
Rules   - pure; a text that means nothing is InvalidArgument, in Docker's words where it has some.
"""

import re
import signal

from minidocker.errors import InvalidArgument

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)i?b?\Z", re.I)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size_bytes(text: str) -> int:
    """`10m`, `1g`, `512` in bytes. Raises InvalidArgument."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def truth(text: str) -> bool:
    """A boolean as Go reads it. Raises InvalidArgument in Go's words."""
    known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    if text.lower() not in known:
        raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return known[text.lower()]


def signal_number(text: str) -> int:
    """A signal by number or by name, with or without SIG, in any case. Raises InvalidArgument in Docker's words."""
    word = text.strip().upper()
    if word.isdecimal():
        number = int(word)
        if 1 <= number <= 64:
            return number
        raise InvalidArgument(f"Invalid signal: {text}")
    name = word if word.startswith("SIG") else f"SIG{word}"
    match = re.fullmatch(r"SIGRTM(IN|AX)([+-]\d+)?", name)
    if match:
        number = (34 if match[1] == "IN" else 64) + int(match[2] or 0)
        if 34 <= number <= 64:
            return number
    elif name in signal.Signals.__members__:
        return int(signal.Signals[name])
    raise InvalidArgument(f"Invalid signal: {text}")


def parse_port(text: str) -> tuple[int, int, str]:
    """`80/tcp`, `80`, `8000-8010/udp`: first port, last port, protocol."""
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    protocol = (protocol or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f'invalid port specification: "{text}": protocol must be tcp, udp or sctp')
    if not first.isdecimal() or (last and not last.isdecimal()):
        raise InvalidArgument(f'invalid port specification: "{text}"')
    low, high = int(first), int(last or first)
    if not 0 < low <= high < 65536:
        raise InvalidArgument(f'invalid port specification: "{text}": ports are 1 to 65535')
    return low, high, protocol
