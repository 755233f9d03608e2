"""What the caller of the command line and the container's process say to each other: progress, console, execution.

Source  runtime/sync.py; runc's terminals.md for --console-socket.
Rules   - an error of the process becomes StartError here, whenever it comes.
"""

import array
import errno
import os
import socket
from pathlib import Path

from minidocker.errors import KernelError
from minidocker.runtime.lifecycle import StartError
from minidocker.runtime.sync import Channel, Message


def connect(connection: socket.socket, directory: Path, name: str) -> None:
    """Connect to the socket `name` in `directory`, however long its path is."""
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{parent}/{name}")
    finally:
        os.close(parent)


def expect(channel: Channel, console_socket: Path | None) -> Message:
    """The next message of the process; a console is handed on. Raises StartError."""
    while True:
        message, descriptors = channel.receive()
        if message is None:
            raise StartError(Message("error", text="the process has ended early", exit_code=128))
        if message.kind == "error":
            raise StartError(message)
        if message.kind == "console":
            _hand_over(descriptors[0], console_socket)
            continue
        if message.kind != "warning":
            return message


def _hand_over(master: int, console_socket: Path | None) -> None:
    if console_socket is None:
        raise KernelError("sendmsg", "console", errno.EINVAL, "a terminal needs --console-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connect(connection, console_socket.parent, console_socket.name)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))]
        connection.sendmsg([b"/dev/ptmx"], rights)
    os.close(master)


def await_exec(channel: Channel) -> None:
    """Wait until the command runs. Raises StartError."""
    executing = False
    while True:
        message, _ = channel.receive()
        if message is None:
            if executing:
                return
            raise StartError(Message("error", text="the process has ended early", exit_code=128))
        if message.kind == "error":
            raise StartError(message)
        executing = executing or message.kind == "exec"
