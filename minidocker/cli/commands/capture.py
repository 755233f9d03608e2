"""`commit`, `export` and `import`: a container's filesystem as an image or an archive, and back.

Source  docker's reference of each.
"""

import os

from minidocker.cli.commands.archive import pieces_of, write_stream
from minidocker.cli.options import Options
from minidocker.cli.progress import Display, follow
from minidocker.cli.references import split
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.client.transport import quote

COMMIT_OPTIONS = """
-a, --author string    Author
-c, --change list      Apply a Dockerfile instruction to the image
-m, --message string   Message
-p, --pause            Pause the container meanwhile (default true)
"""
EXPORT_OPTIONS = """
-o, --output string   Write to a file instead of stdout
"""
IMPORT_OPTIONS = """
-c, --change list       Apply a Dockerfile instruction to the image
-m, --message string    Message
    --platform string   Platform of the image
"""


def commit(session: Session, options: Options, operands: list[str]) -> int:
    """`commit CONTAINER [REPOSITORY[:TAG]]`; prints the image's ID."""
    repository, tag, _ = split(operands[1]) if len(operands) > 1 else ("", "", "")
    query = {"container": operands[0], "repo": repository, "tag": tag, "author": options.text("author"),
             "comment": options.text("message"), "changes": options.items("change") or None,
             "pause": None if options.flag("pause") else "0"}
    answer = session.transport.request("POST", "/commit", query=query, body={}).json()
    assert isinstance(answer, dict)
    session.out(f"{answer['Id']}\n")
    return 0


def export(session: Session, options: Options, operands: list[str]) -> int:
    """`export CONTAINER`"""
    if not options.text("output") and os.isatty(1):
        raise CommandFailure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    response = session.transport.request("GET", f"/containers/{quote(operands[0])}/export")
    write_stream(response.chunks(), options.text("output"))
    return 0


def import_(session: Session, options: Options, operands: list[str]) -> int:
    """`import FILE|URL|- [REPOSITORY[:TAG]]`"""
    source = operands[0]
    repository, tag, _ = split(operands[1]) if len(operands) > 1 else ("", "", "")
    remote = source.startswith(("http://", "https://"))
    query = {"fromSrc": source if remote else "-", "repo": repository, "tag": tag,
             "message": options.text("message"), "platform": options.text("platform"),
             "changes": options.items("change") or None}
    body = None
    if not remote:
        try:
            body = pieces_of(0 if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise CommandFailure(f"open {source}: {(error.strerror or '').lower()}") from None
    response = session.transport.request("POST", "/images/create", query=query, body=body)
    follow(response.objects(), Display(1))
    return 0


COMMIT = Command(commit, "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", COMMIT_OPTIONS, 1, 2)
EXPORT = Command(export, "[OPTIONS] CONTAINER", EXPORT_OPTIONS, 1, 1)
IMPORT = Command(import_, "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", IMPORT_OPTIONS, 1, 2)
