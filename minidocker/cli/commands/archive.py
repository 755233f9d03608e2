"""`save` and `load`: images as tar archives.

Source  docker's reference of both; Docker Engine API, "ImageGet" and "ImageLoad".
"""

import os
from collections.abc import Iterator

from minidocker.cli.options import Options
from minidocker.cli.progress import Display, follow
from minidocker.cli.session import Command, CommandFailure, Session, write_all

SAVE_OPTIONS = """
-o, --output string     Write to a file instead of stdout
    --platform string   Save only the variant of that platform
"""
LOAD_OPTIONS = """
-i, --input string      Read from a file instead of stdin
    --platform string   Load only the variant of that platform
-q, --quiet             Say nothing while loading
"""
_PIECE_BYTES = 1 << 16


def write_stream(pieces: Iterator[bytes], path: str) -> None:
    """Write to the file `path`, which appears only when all of it is there; to stdout if it is empty."""
    if not path:
        if os.isatty(1):
            raise CommandFailure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for piece in pieces:
            write_all(1, piece)
        return
    aside = f"{path}.{os.getpid()}"
    try:
        with open(aside, "wb") as file:
            for piece in pieces:
                file.write(piece)
        os.rename(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def save(session: Session, options: Options, operands: list[str]) -> int:
    """`save IMAGE...`"""
    if not options.text("output") and os.isatty(1):
        raise CommandFailure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    query = {"names": operands, "platform": options.text("platform")}
    write_stream(session.transport.request("GET", "/images/get", query=query).chunks(), options.text("output"))
    return 0


def pieces_of(descriptor: int) -> Iterator[bytes]:
    """What can be read from a descriptor, piece by piece."""
    while piece := os.read(descriptor, _PIECE_BYTES):
        yield piece


def load(session: Session, options: Options, operands: list[str]) -> int:
    """`load`: read images from a file or stdin."""
    path = options.text("input")
    if not path and os.isatty(0):
        raise CommandFailure("requested load from stdin, but stdin is empty")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else 0
    except OSError as error:
        raise CommandFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    quiet = options.flag("quiet") or not os.isatty(1)
    query = {"quiet": "1" if quiet else "0", "platform": options.text("platform")}
    response = session.transport.request("POST", "/images/load", query=query, body=pieces_of(descriptor))
    follow(response.objects(), Display(1))
    return 0


SAVE = Command(save, "[OPTIONS] IMAGE [IMAGE...]", SAVE_OPTIONS, 1, None)
LOAD = Command(load, "[OPTIONS]", LOAD_OPTIONS)
