"""Sizes and times are read and written as docker's units package does."""

import pytest

from minidocker.cli import values
from minidocker.cli.session import CommandFailure
from minidocker.cli.times import seconds, timestamp


@pytest.mark.parametrize(("text", "size"), [("32", 32), ("32b", 32), ("32k", 32 << 10), ("32KiB", 32 << 10),
                                            ("32KB", 32 << 10), ("1.5g", 3 << 29), ("-1", -1), ("0", 0),
                                            ("2 MB", 2 << 20), ("1t", 1 << 40)])
def test_sizes_are_binary(text: str, size: int) -> None:
    assert values.read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "-2m", "1q", "1.2.3", "m", "1 1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        values.read_bytes(text)


@pytest.mark.parametrize(("text", "nanoseconds"), [("0", 0), ("300ms", 3 * 10**8), ("1h2m3s", 3723 * 10**9),
                                                   ("1.5s", 1_500_000_000), ("-2s", -2 * 10**9), ("2us", 2000)])
def test_durations_are_gos(text: str, nanoseconds: int) -> None:
    assert values.read_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "3", "s", "3x", "1h2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        values.read_duration(text)


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (1982433, "1.98MB"),
                                            (208_000_000, "208MB")])
def test_sizes_are_shown_in_decimal_units(size: int, text: str) -> None:
    assert values.human_size(size, 3) == text


def test_memory_is_shown_in_binary_units() -> None:
    assert values.binary_size(548 << 10) == "548KiB"


@pytest.mark.parametrize(("passed", "text"), [
    (0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3540, "59 minutes"),
    (3600, "About an hour"), (7200, "2 hours"), (48 * 3600, "2 days"), (15 * 86400, "2 weeks"),
    (70 * 86400, "2 months"), (800 * 86400, "2 years"),
])
def test_durations_are_shown_in_words(passed: float, text: str) -> None:
    assert values.human_duration(passed) == text


def test_moments_are_understood_as_rfc_3339_unix_seconds_and_so_long_ago() -> None:
    assert timestamp("2013-01-02T13:23:37Z") == "1357133017.000000000"
    assert timestamp("2013-01-02T13:23:37.25+01:00") == "1357129417.250000000"
    assert timestamp("1357133017.5") == "1357133017.5"
    assert float(timestamp("10m")) > 1_600_000_000
    with pytest.raises(CommandFailure, match="failed to parse value"):
        timestamp("yesterday")


def test_the_year_one_means_never() -> None:
    assert seconds("0001-01-01T00:00:00Z") == 0
    assert seconds("1970-01-01T00:00:01.500000001Z") == 1.5
