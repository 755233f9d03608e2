"""What a grader and the program in a submission's container say to each other: JSON messages over one UNIX socket.

Source  unix(7), RFC 8259.
Rules   - a message is four bytes of length, then a JSON object. Nothing is ever unpickled.
        - who reads sets the limit: a length beyond it ends the conversation before a byte of the message is read.

    container -> grader   {"kind": "cell", index, outputs} {"kind": "hidden", name, definitions} {"kind": "end", note}
                          {"kind": "ran", found, printed} {"kind": "failed", reason, traceback}: answers to "run"
    grader -> container   {"kind": "notebook", cells, ...} {"kind": "run", code, ...} {"kind": "verdict", lines}
"""

import json
import socket
import struct
from pathlib import Path
from typing import Any

from minidocker.lab.definitions import Definition

Message = dict[str, Any]

GRADER = Path("/judge/grader.sock")  # in the container: to the grader; used up by the first who connects
JUDGE = Path("/run/minidocker-judge.sock")  # in the container: from the notebook's kernel to the program beside it
LIMIT_BYTES = 8 << 20
_LENGTH = struct.Struct("!I")


class Broken(OSError):
    """The other side has gone, or does not keep to the rules."""


def send(sock: socket.socket, message: Message) -> None:
    """Write one message. Raises Broken: nobody reads."""
    body = json.dumps(message).encode()
    try:
        sock.sendall(_LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise Broken(f"cannot be told anything: {error}") from None


def receive(sock: socket.socket) -> Message:
    """Read one message. Raises Broken; TimeoutError: the socket's own time limit."""
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    if length > LIMIT_BYTES:
        raise Broken(f"a message of {length} bytes is longer than {LIMIT_BYTES}")
    try:
        message = json.loads(_exactly(sock, length))
    except (ValueError, RecursionError):
        raise Broken("a message that is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise Broken("a message of no kind")
    return message


def _exactly(sock: socket.socket, length: int) -> bytes:
    content = bytearray()
    while len(content) < length:
        try:
            chunk = sock.recv(min(length - len(content), 1 << 20))
        except TimeoutError:
            raise
        except OSError as error:
            raise Broken(str(error)) from None
        if not chunk:
            raise Broken("the other side has hung up")
        content += chunk
    return bytes(content)


def as_message(name: str, definitions: list[Definition]) -> Message:
    """The question: do the cases called `name` hold for this code?"""
    texts = [{"name": text.name, "blocks": list(text.blocks)} for text in definitions]
    return {"kind": "hidden", "name": name, "definitions": texts}


def as_question(message: Message) -> tuple[str, list[Definition]]:
    """The question back from a message of whoever. Raises Broken: it is none."""
    try:
        definitions = [
            Definition(str(text["name"]), tuple(str(block) for block in text["blocks"]))
            for text in message["definitions"]
        ]
        return str(message["name"]), definitions
    except (KeyError, TypeError):
        raise Broken("a question without name or definitions") from None


def ask(name: str, definitions: list[Definition]) -> list[str]:
    """In the notebook's kernel: the judge's answer, [] if all cases hold, else the lines of the failure."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(JUDGE))
        send(sock, as_message(name, definitions))
        return [str(line) for line in receive(sock)["lines"]]
