"""The demonstration on a stage: it plays through, it can be spoilt, and it leaves nothing."""

import json
import os

import pytest

from minidocker.lab import demo, swap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes containers")


def test_it_takes_twenty_minutes() -> None:
    assert sum(act.minutes for act in demo.ACTS) == 20


def test_every_command_has_a_recorded_output() -> None:
    recorded = json.loads(demo.RECORD.read_text())
    assert set(recorded) == {step.command for act in demo.ACTS for step in act.steps}


@pytest.mark.parametrize("number", range(1, len(demo.ACTS) + 1))
def test_an_act_plays_alone_with_no_step_that_fails(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--auto", str(number)]) == 0
    shown = capfd.readouterr().out
    assert "when it was recorded" not in shown
    assert "rror" not in shown.replace("stderr", "")
    assert not swap.ROOT.exists() or not list(swap.ROOT.iterdir())


def test_what_fails_on_the_stage_is_shown_as_it_was_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--auto", "--spoil", "1"]) == 0
    shown = capfd.readouterr().out
    recorded = json.loads(demo.RECORD.read_text())
    for step in demo.ACTS[0].steps:
        assert recorded[step.command].splitlines()[0] in shown
    assert shown.count("exit status 99; this is what it printed when it was recorded") == len(demo.ACTS[0].steps)


def test_a_speaker_may_skip_begin_again_and_quit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["s", "r", "s", "s", "q"])
    monkeypatch.setattr("builtins.input", lambda _prompt: next(answers))
    assert demo.main(["1"]) == 0
    shown = capfd.readouterr().out
    assert shown.count(demo.ACTS[0].title) == 2
    assert "nothing is left" in shown
