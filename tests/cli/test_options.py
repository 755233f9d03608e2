"""The option parser follows pflag's rules."""

import pytest

from minidocker.cli.container_options import CREATE_OPTIONS, RUN_OPTIONS
from minidocker.cli.options import Options, UsageError, parse, table

TABLE = """
-d, --detach            run in the background
-e, --env list          environment
-m, --memory bytes      limit
-n, --name string       name
    --proxy             signals (default true)
-t, --tty               terminal
    --cpus decimal      CPUs
    --wait duration     time
    --retries int       count
-f, --filter filter     filter
    --alias strings     names
"""


def options(*words: str) -> Options:
    return parse(TABLE, list(words))[0]


@pytest.mark.parametrize("words", [["--name", "x"], ["--name=x"], ["-n", "x"], ["-nx"], ["-n=x"], ["-dtn", "x"],
                                   ["-dtnx"], ["--name=y", "--name=x"]])
def test_a_value_can_be_given_in_every_way_that_pflag_knows(words: list[str]) -> None:
    assert options(*words).text("name") == "x"


@pytest.mark.parametrize(("words", "value"), [(["-d"], True), (["--detach"], True), (["--detach=false"], False),
                                              (["-d=0"], False), (["-td"], True), ([], False)])
def test_switches_take_a_value_only_after_an_equals_sign(words: list[str], value: bool) -> None:
    assert options(*words).flag("detach") is value


def test_a_switch_that_is_on_by_default_can_be_switched_off() -> None:
    assert options().flag("proxy")
    assert not options("--proxy=false").flag("proxy")


def test_repeated_options_keep_their_order_and_strings_are_split_at_commas() -> None:
    given = options("-e", "A=1", "--env=B=2", "--alias", "a,b", "--alias", "c")
    assert given.items("env") == ["A=1", "B=2"]
    assert given.items("alias") == ["a", "b", "c"]


def test_numbers_are_read_in_their_own_units() -> None:
    given = options("-m", "1.5g", "--cpus", ".25", "--wait", "1m30s", "--retries", "-3")
    assert given.number("memory") == 3 * 2**29
    assert given.number("cpus") == 250_000_000
    assert given.number("wait") == 90 * 10**9
    assert given.number("retries") == -3


def test_the_first_operand_ends_the_options_where_they_are_not_interspersed() -> None:
    given, operands = parse(TABLE, ["-t", "image", "-d", "--x"], interspersed=False)
    assert operands == ["image", "-d", "--x"]
    assert not given.flag("detach")


def test_two_dashes_end_the_options() -> None:
    assert parse(TABLE, ["a", "--", "-d"])[1] == ["a", "-d"]


def test_a_single_dash_is_an_operand() -> None:
    assert parse(TABLE, ["-"])[1] == ["-"]


@pytest.mark.parametrize(("words", "text"), [
    (["--nope"], "unknown flag: --nope"),
    (["-dz"], "unknown shorthand flag: 'z' in -dz"),
    (["--name"], "flag needs an argument: --name"),
    (["-dn"], "flag needs an argument: 'n' in -dn"),
    (["-m", "xx"], "invalid argument \"xx\" for \"-m, --memory\" flag: invalid size: 'xx'"),
    (["--detach=maybe"], 'invalid argument "maybe" for "-d, --detach" flag: strconv.ParseBool: parsing "maybe": '
                         "invalid syntax"),
    (["--cpus", "a"], 'invalid argument "a" for "--cpus" flag: failed to parse a as a rational number'),
    (["-f", "a"], 'invalid argument "a" for "-f, --filter" flag: bad format of filter (expected name=value)'),
])
def test_mistakes_are_named_in_pflags_words(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        options(*words)
    assert str(caught.value) == text


@pytest.mark.parametrize("text", [CREATE_OPTIONS, RUN_OPTIONS])
def test_no_two_options_of_run_share_a_name(text: str) -> None:
    found = table(text)
    for names in ([option.name for option in found], [option.short for option in found if option.short]):
        assert len(names) == len(set(names))
