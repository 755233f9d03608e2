"""The Dockerfile's language, without a daemon: lines, words, variables, instructions."""

import subprocess

import pytest

from minidocker.build import dockerfile, healthcheck, stages
from minidocker.build.arguments import Arguments
from minidocker.build.expansion import Lexer, go_quoted, split
from minidocker.build.instructions import Copy, Run
from minidocker.errors import InvalidArgument


def originals(text: str) -> list[str]:
    return [line.original for line in dockerfile.parse(text.encode()).lines]


def test_continued_lines_are_joined_and_comments_in_them_dropped() -> None:
    text = "FROM x\nRUN a \\\n  # no\n\n  b \\   \n c\n# RUN no\n"
    file = dockerfile.parse(text.encode())
    assert [line.original for line in file.lines] == ["FROM x", "RUN a   b  c"]
    assert [line.number for line in file.lines] == [1, 2]
    assert file.warnings[0].startswith("[WARNING]: Empty continuation line found in:\n    RUN a   b  c")


def test_a_doubled_backslash_at_the_end_continues_nothing() -> None:
    assert originals("RUN a \\\\\nRUN b\n") == ["RUN a \\\\", "RUN b"]


def test_the_escape_directive_changes_what_continues_a_line() -> None:
    file = dockerfile.parse(b"# syntax=docker/dockerfile:1\n# escape=`\nFROM x\nRUN a `\n b\\\n")
    assert file.escape == "`" and file.lines[1].original == "RUN a  b\\"


@pytest.mark.parametrize("text", ["# c\n# escape=`\n", "\n# escape=`\n", "FROM x\n# escape=`\n"])
def test_a_directive_that_does_not_come_first_is_a_comment(text: str) -> None:
    assert dockerfile.parse(f"{text}FROM y\n".encode()).escape == "\\"


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_it() -> None:
    assert originals("\ufeffFROM x\r\nRUN a \\\r\n b\r\n") == ["FROM x", "RUN a  b"]


def test_here_documents_belong_to_their_instruction() -> None:
    text = "FROM x\nRUN <<A cat\nFROM no\nA\nCOPY <<-'B' <<C /d/\n\tb\n\tB\nc\nC\nCMD [\"<<D\"]\n"
    run, copy, cmd = (stages.plan(dockerfile.parse(text.encode())).stages[0]).steps
    assert isinstance(run, Run) and run.line.heredocs[0].content == "FROM no\n"
    assert isinstance(copy, Copy) and copy.sources == ()
    assert [(d.name, d.content, d.expand) for d in copy.documents] == [("B", "b\n", False), ("C", "c\n", True)]
    assert cmd.line.heredocs == ()


def test_an_open_here_document_names_its_line() -> None:
    with pytest.raises(InvalidArgument, match="line 2: unterminated heredoc EOF"):
        dockerfile.parse(b"FROM x\nRUN <<EOF\nhi\n")


def test_a_shift_in_a_command_is_no_here_document() -> None:
    file = dockerfile.parse(b"FROM x\nRUN echo $((1<<2)) '<<EOF' a<<b\nRUN echo\n")
    assert [len(line.heredocs) for line in file.lines] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("$A", "x"), ("${A}b", "xb"), ("$AB", ""), ("\\$A", "$A"), ("'$A'", "$A"), ('"$A"', "x"), ('"\\$A"', "$A"),
        ("${N:-d}", "d"), ("${E:-d}", "d"), ("${E-d}", ""), ("${N-d}", "d"), ("${A:+d}", "d"), ("${E:+d}", ""),
        ("${E+d}", "d"), ("${N:-${A}}", "x"), ("${N:-'}'}", "}"), ("a\\ b", "a b"), ('"a\\b"', "a\\b"), ("$", "$"),
        ("$$", ""), ("${A?no}", "x"), ("$1a", "a"), ("ä$A", "äx"), ("", ""),
    ],
)  # fmt: skip
def test_a_word_is_expanded(text: str, word: str) -> None:
    assert Lexer().word(text, {"A": "x", "E": ""}) == word


@pytest.mark.parametrize("text", ["${A", "${}", "${A:", "${A:?}", "'a", '"a', "${A:=b}", "${:x}"])
def test_a_malformed_word_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="failed to process"):
        Lexer().word(text, {})


def test_the_escape_character_of_the_file_escapes() -> None:
    assert Lexer("`").word("`$A c:\\d", {"A": "x"}) == "$A c:\\d"


def test_text_of_a_here_document_keeps_quotes_and_escapes() -> None:
    assert Lexer().text("'$A' \"$A\" \\$A", {"A": "x"}) == "'x' \"x\" \\$A"


def test_words_keep_quotes_until_they_are_expanded() -> None:
    assert split("a=\"b c\" 'd e'  f\\ g") == ['a="b c"', "'d e'", "f\\ g"]


def test_go_quotes_as_go_does() -> None:
    assert go_quoted('a"\\\n\x01ä\u2028') == '"a\\"\\\\\\n\\x01ä\\u2028"'


def test_deep_json_is_text() -> None:
    assert dockerfile.json_words("[" * 100_000) is None


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("1s", 10**9), ("1h2m", 3720 * 10**9), ("1.5s", 15 * 10**8), ("0", 0), ("3ms", 3 * 10**6)]
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert healthcheck.duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "1x", "x", "1s2", "."])
def test_malformed_durations(text: str) -> None:
    with pytest.raises(InvalidArgument, match="time: "):
        healthcheck.duration_ns(text)


def test_an_argument_of_the_line_wins_over_defaults_and_env_over_all() -> None:
    arguments = Arguments({"A": "line", "B": None}, {"TARGETARCH": "amd64"})
    arguments.add_before_from("G", "global")
    for name, value in (("A", "default"), ("B", "default"), ("C", "c"), ("G", None), ("TARGETARCH", None), ("D", None)):
        arguments.add(name, value)
    assert arguments.for_step(["C=env"]) == ["A=line", "B=default", "G=global", "TARGETARCH=amd64"]
    arguments.begin_stage()
    assert arguments.for_step([]) == []


SHELL_WORDS = [
    "${A#a/}", "${A#*/}", "${A##*/}", "${A##a*b}", "${A%.gz}", "${A%.*}", "${A%%.*}", "${A%%*}", "${A#?}", "${A%?/*}",
    "${A/b/x}", "${A//b/x}", "${A/b*/x}", "${A//?/x}", "${A/nope/x}", "${A/b/}", "${A//\\//_}", "${A#\"a/\"}", "${A##}",
    "${U#x}", "${U/x/y}", "${A%$B}", "${A/$B/-}", "${S#\\*}", "${S#*}", "${S##*}", "${S/\\*/x}", "${A/b/$B}",
    "${A/*b/[&]}",
]  # fmt: skip


@pytest.mark.parametrize("word", SHELL_WORDS)
def test_patterns_cut_and_replace_as_bash_does(word: str) -> None:
    variables = {"A": "a/b.b/c.tar.gz", "B": "gz", "S": "*x*"}
    shell = f"shopt -u patsub_replacement 2>/dev/null; printf %s \"{word}\""
    done = subprocess.run(["bash", "-c", shell], env=variables, capture_output=True, text=True, check=True)
    assert Lexer().word(word, variables) == done.stdout


def test_a_pattern_made_to_be_slow_is_not() -> None:
    value, pattern = "a" * 20000, "*a" * 50 + "b"
    assert Lexer().word("${A##" + pattern + "}${A//" + pattern + "/x}", {"A": value}) == value * 2
