"""What a RUN writes, as the lines of a build's stream."""

from typing import Any

import pytest

from minidocker.build.output import CommandOutput, Output


def frame(stream: int, text: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


def red(text: str) -> str:
    return f"\x1b[91m{text}\x1b[0m"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def command(said: list[str]) -> CommandOutput:
    def listen(line: dict[str, Any]) -> None:
        said.append(line["stream"])

    return CommandOutput(Output(listen, lambda progress: {}))


def test_a_line_that_is_written_in_pieces_is_said_whole(command: CommandOutput, said: list[str]) -> None:
    for piece in (b"/bin/sh: ", b"x: not ", b"found\n"):
        command.feed(frame(2, piece))
    command.feed(frame(1, b"one\ntwo\n"))
    assert said == [red("/bin/sh: x: not found\n"), "one\ntwo\n"]


def test_a_lines_beginning_is_said_when_the_other_stream_speaks_or_all_ends(
    command: CommandOutput, said: list[str]
) -> None:
    command.feed(frame(1, b"done\nhalf"))
    assert said == ["done\n"] and command.holds
    command.feed(frame(2, b"error\n") + frame(1, b"last"))
    assert said == ["done\n", "half", red("error\n")]
    command.finish()
    assert said[3:] == ["last"] and not command.holds


def test_what_is_held_too_long_is_released(command: CommandOutput, said: list[str]) -> None:
    command.feed(frame(1, b"50%"))
    command.release()
    command.release()
    command.feed(frame(1, b"\r100%\n"))
    assert said == ["50%", "\r100%\n"]


def test_a_character_cut_in_two_is_said_once_it_is_whole(command: CommandOutput, said: list[str]) -> None:
    whole = "é\n".encode()
    command.feed(frame(1, whole[:1])[:9])
    command.feed(frame(1, whole[1:]))
    assert said == ["é\n"]
